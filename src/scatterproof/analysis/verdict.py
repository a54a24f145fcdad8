"""The verdict on each threat: the best attack on the blocks against the best of the same pirate without them.

On both sides the attack is chosen for each victim seed by its mean accuracy over the other seeds (cross-fitting: Cawley
& Talbot, JMLR 2010, https://jmlr.org/papers/v11/cawley10a.html, say why not by its own), so a seed never judges what
was chosen on it. Gains are paired by seed; their interval is Student's t over seeds. Imports no torch.

broken: the gain's lower end exceeds two points of accuracy; blocks add nothing: its upper end is below, which says
nothing of what the pirate has without them; undecided: neither, or fewer than five victim seeds; invalid: there is no
attack on the blocks whose controls passed. An attack without passed controls is never chosen.

Beside it stands what the pirate ends with: the best of all attacks, with the blocks or without.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scatterproof.analysis.columns import COLUMNS, THREAT
from scatterproof.analysis.control_results import controls_of, marked, state_of
from scatterproof.config.settings.ceilings import CEILINGS
from scatterproof.config.stream import WITH_STREAM

AVERAGED = ["accuracy", "device_minutes", "cost_over_retraining"]
MARGIN = 0.02
SEEDS = 5
_ROUNDING = 1e-9
STOLEN_AT = 0.95  # of the victim's accuracy
BROKEN, NOTHING_ADDED, UNDECIDED, INVALID = "broken", "blocks add nothing", "undecided", "invalid"

OF_THREAT = ["study", "layer", "block_size", "keep", "victim", *THREAT]


def with_withheld(attacks: pd.DataFrame) -> pd.DataFrame:
    """`tables/attacks.csv` with `withheld_accuracy`: the same pirate's without the blocks, in every row of a seed."""
    parts = []
    for _, rows in _by_threat(attacks):
        withheld = chosen(rows, "withheld").set_index("victim_seed")["accuracy"]
        parts.append(rows.assign(withheld_accuracy=rows["victim_seed"].map(withheld)))
    return pd.concat(parts, ignore_index=True) if parts else attacks


def chosen(rows: pd.DataFrame, *roles: str) -> pd.DataFrame:
    """Of one threat's attacks in these roles, one row for each victim seed: that which is best on the other seeds.

    Ties go to the attack that comes first in the table. With one seed alone there are no others: its own best. Where an
    attack was run on several draws for one victim seed, their mean stands.
    """
    last = rows[rows["last"].astype(bool) & rows["role"].isin(roles)]
    order = list(dict.fromkeys(last["attack"]))
    accuracy = last.pivot_table(index="victim_seed", columns="attack", values="accuracy", aggfunc="mean")[order]
    best = []
    for seed in accuracy.index:
        others = accuracy.drop(index=seed) if len(accuracy) > 1 else accuracy
        name = others.mean().idxmax()
        mine = last[(last["attack"] == name) & (last["victim_seed"] == seed)]
        best.append(pd.concat([mine.iloc[0].drop(AVERAGED), mine[AVERAGED].astype(float).mean()]))
    return pd.DataFrame(best)


def verdict_table(attacks: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """`tables/verdict.csv`: a row for each victim and threat, all its seeds in it (`victim_seed` stays empty), from
    `attacks.csv` and `controls.csv`."""
    rows = [
        dict(zip(OF_THREAT, key, strict=True)) | _verdict(threat, controls_of(controls, str(key[4]), str(key[5])))
        for key, threat in _by_threat(attacks)
    ]
    return pd.DataFrame(rows, columns=COLUMNS["verdict"])


def beside_traffic(hijacks: pd.DataFrame, attacks: pd.DataFrame) -> pd.DataFrame:
    """The hijacks, and under each of their threats what the study's other attacks reach on the same blocks without the
    traffic: who has more can do no worse. None where they were not run on every victim seed of the hijacks."""
    parts = [hijacks]
    of = ["victim", "block_size", "threat", "obfuscation", "params"]
    for (victim, size, threat, obfuscation, params), rows in hijacks.fillna({"params": ""}).groupby(of, sort=False):
        same = (attacks["victim"] == victim) & (attacks["block_size"] == size)
        granted = attacks["threat"] == str(threat).partition(WITH_STREAM)[0]
        seeds = set(rows["victim_seed"])
        others = attacks[same & granted & ~attacks["role"].isin(CEILINGS) & attacks["victim_seed"].isin(seeds)]
        if set(others["victim_seed"]) == seeds:
            parts.append(others.assign(threat=str(threat), obfuscation=str(obfuscation), params=str(params)))
    return pd.concat(parts, ignore_index=True)


def _by_threat(attacks: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The rows of each threat, also where a field is empty, which is read as NaN."""
    return iter(attacks.groupby(OF_THREAT, sort=False, dropna=False))


def _verdict(threat: pd.DataFrame, controls: pd.DataFrame) -> dict[str, Any]:
    on_blocks = threat[threat["role"] == "blocks"]
    states = {str(name): state_of(str(name), controls) for name in on_blocks["attack"].unique()}
    left_out = {name: state for name, state in states.items() if state}
    trusted = threat[~threat["attack"].isin(left_out)]
    ends = chosen(trusted, "blocks", "withheld")
    ceiling = threat[(threat["role"] == "ceiling") & threat["last"].astype(bool)]
    rest = chosen(threat, "withheld")
    return {
        **_gained(chosen(trusted, "blocks"), rest),
        "against": _most(rest["attack"]),
        "withheld_accuracy": rest["accuracy"].mean(),
        "victim_accuracy": ceiling["accuracy"].mean(),
        "ends_with": ends["accuracy"].mean(),
        "ends_with_attack": _most(ends["attack"]),
        "seeds": len(rest),
        "controls": _controls(on_blocks[on_blocks["last"].astype(bool)], left_out),
        "device": threat["device"].iloc[0],
    }


def _gained(best: pd.DataFrame, rest: pd.DataFrame) -> dict[str, Any]:
    """The verdict on the best attack against the rest; invalid, and nothing else, where there is none to choose."""
    if best.empty:
        return {"verdict": INVALID}
    paired = best.set_index("victim_seed")["accuracy"] - rest.set_index("victim_seed")["accuracy"]
    gain, low, high = interval(paired.to_numpy(dtype=float))
    return {
        "verdict": judged(low, high, len(paired)),
        "attack": _most(best["attack"]),
        "accuracy": best["accuracy"].mean(),
        "gain": gain,
        "ci_low": low,
        "ci_high": high,
        "minutes": best["device_minutes"].mean(),
        "cost_over_retraining": best["cost_over_retraining"].mean(),
    }


def interval(gains: "np.typing.NDArray[np.float64]") -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t; NaN ends for a single value."""
    mean = float(gains.mean())
    if len(gains) < 2:
        return mean, np.nan, np.nan
    half = float(stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5)
    return mean, mean - half, mean + half


def judged(low: float, high: float, seeds: int) -> str:
    """The verdict that an interval of gains gives."""
    if seeds < SEEDS or np.isnan(low):
        return UNDECIDED
    if low > MARGIN:
        return BROKEN
    return NOTHING_ADDED if high < MARGIN else UNDECIDED


def stolen(row: Any) -> bool:
    """Whether the pirate ends with 95 % of the victim's accuracy or more; row: of `tables/verdict.csv`."""
    return bool(row.ends_with >= STOLEN_AT * row.victim_accuracy - _ROUNDING)


def _most(names: pd.Series) -> str:
    """The attack chosen for most seeds."""
    return str(Counter(names).most_common(1)[0][0])


def _controls(on_blocks: pd.DataFrame, left_out: dict[str, str]) -> str:
    """`passed`, or which attacks were left out, why, and what they reached."""
    if on_blocks.empty:
        return "no attack on the blocks"
    reached = on_blocks.groupby("attack")["accuracy"].mean()
    parts = [f"{marked(name, state)[:-1]}; reached {100 * reached[name]:.1f} %)" for name, state in left_out.items()]
    chose = "passed; " if len(left_out) < len(reached) else ""
    return f"{chose}left out: {', '.join(parts)}" if parts else "passed"
