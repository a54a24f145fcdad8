"""The verdict on each threat, read top down. It errs towards `not broken yet`. Imports no torch.

All numbers are paired by victim seed and hold for the victims' recipe, or by draw and hold for one model: see `basis`.
*Gain*: of the best attack on the blocks over the best of the same pirate without them. *Headroom*: the victim less the
best without. *Margin*: a fifth of the headroom, at least one and at most two points. *Told ceiling*: the pirate with
the blocks, told their places and every key, see `judging.ceilings`.

invalid          no attack on the blocks has passed its controls, or the best exceeds the told ceiling by the margin
lost             without the blocks the pirate has the model already, for less than training it costs
broken           the gain's interval lies above the margin
moot             the headroom's interval lies below five points: there is nothing left to protect in this layer
bounded          the headroom's interval lies above five points, and no form of the told ceiling, each with a passed
                 control, nor any attack gains the margin (one-sided 95 % bounds)
not broken yet   no attack gains the margin, but that it could not, places known, is not shown
undecided        the intervals do not say, or there are fewer than five victim seeds, or ten draws
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scatterproof.analysis.basis import LEAST, MODEL, RECIPE, Basis, with_units
from scatterproof.analysis.choice import ABOUT, by_threat, chosen
from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.control_results import controls_of, marked, state_of
from scatterproof.analysis.gains import Gains, interval, seeds_to_decide, upper
from scatterproof.config.settings.ceilings import FORMS, granted_forms

STOLEN_AT = 0.95  # of the victim's accuracy
LEAST_MARGIN, MOST_MARGIN, OF_HEADROOM = 0.01, 0.02, 0.2
MOOT_BELOW = 0.05  # headroom
_ROUNDING = 1e-9

INVALID, LOST, BROKEN, MOOT = "invalid", "lost", "broken", "moot"
BOUNDED, NOT_YET, UNDECIDED = "bounded", "not broken yet", "undecided"
VERDICTS = (INVALID, LOST, BROKEN, MOOT, BOUNDED, NOT_YET, UNDECIDED)
NOT_RUN = "ceiling not run"

Cheapest = Mapping[tuple[str, str], float]


class Evidence(NamedTuple):
    """Of one threat, each by victim seed: the gain of the best attack on the blocks; of every attack on them; of every
    form of the told ceiling whose control passed; the best attack over the best form; the victim's accuracy over the
    best without the blocks; the best without over the victim; its minutes over those of the cheapest training. forms:
    of the told ceiling, those that the threat allows; frozen: whether a scattered layer was never trained, so that no
    ceiling bounds it; least: seeds or draws that decide."""

    gain: Gains | None
    attacks: Mapping[str, Gains]
    told: Mapping[str, Gains]
    beyond: Gains | None
    headroom: Gains
    stolen: Gains
    cost: Gains
    forms: frozenset[str] = frozenset(FORMS)
    frozen: bool = False
    least: int = LEAST[RECIPE]


def verdict_table(attacks: pd.DataFrame, controls: pd.DataFrame, cheapest: Cheapest | None = None) -> pd.DataFrame:
    """`tables/verdict.csv`: a row for each victim and threat, all its seeds in it (`victim_seed` stays empty).

    attacks, controls: `attacks.csv` (and the hijacks of `hijacks.csv`) and `controls.csv`; cheapest: minutes of the
    cheapest training that reaches 95 % of a victim's accuracy, by victim and device; without it the victim's own.
    """
    rows = []
    for threat, basis in map(with_units, by_threat(attacks)):
        about = threat.iloc[0][ABOUT].to_dict()
        mine = controls_of(controls, about["victim"], about["threat"])
        least = (cheapest or {}).get((about["victim"], str(threat["device"].iloc[0])), math.nan)
        rows.append(about | _row(threat, mine, least, basis))
    return pd.DataFrame(rows, columns=COLUMNS["verdict"])


def cheapest_training(breakeven: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Minutes of the cheapest training from nothing to 95 % of a victim's accuracy, the own recipe's among them.

    breakeven: `tables/breakeven.csv`.
    """
    trained = breakeven[breakeven["what"].isin(["own", "recipe"]) & np.isclose(breakeven["level"], STOLEN_AT)]
    rows = trained.dropna(subset=["minutes"]).sort_values("minutes", ascending=False)
    return {(str(row.victim), str(row.device)): float(row.minutes) for row in rows.itertuples(index=False)}  # type: ignore[arg-type]


def judged(evidence: Evidence) -> str:
    """The verdict that the evidence gives."""
    if evidence.gain is None:
        return INVALID
    if len(evidence.gain) < evidence.least:
        return UNDECIDED
    margin = margin_of(evidence.headroom)
    if evidence.beyond is not None and interval(evidence.beyond)[1] > margin:
        return INVALID
    if interval(evidence.stolen)[1] >= STOLEN_AT - _ROUNDING and interval(evidence.cost)[2] < 1:
        return LOST
    if interval(evidence.gain)[1] > margin:
        return BROKEN
    _, low, high = interval(evidence.headroom)
    if high <= MOOT_BELOW:
        return MOOT
    if not all(upper(gains) < margin for gains in (evidence.gain, *evidence.attacks.values())):
        return UNDECIDED
    told = [upper(gains) < margin for gains in evidence.told.values()]
    bounds = low > MOOT_BELOW and not evidence.frozen
    return BOUNDED if bounds and set(evidence.told) >= evidence.forms and all(told) else NOT_YET


def margin_of(headroom: Gains) -> float:
    """What a gain must exceed: a fifth of the headroom, between one and two points; two where nobody knows it."""
    if np.isnan(headroom).any() or not len(headroom):
        return MOST_MARGIN
    return float(np.clip(OF_HEADROOM * headroom.mean(), LEAST_MARGIN, MOST_MARGIN))


def stolen(row: Any) -> bool:
    """Whether the pirate ends with 95 % of the victim's accuracy or more; row: of `tables/verdict.csv`."""
    return bool(row.ends_with >= STOLEN_AT * row.victim_accuracy - _ROUNDING)


def _row(threat: pd.DataFrame, controls: pd.DataFrame, least: float, basis: Basis) -> dict[str, Any]:
    on_blocks = threat[threat["role"] == "blocks"]
    states = {str(name): state_of(str(name), controls) for name in on_blocks["attack"].unique()}
    left_out = {name: state for name, state in states.items() if state}
    trusted = threat[~threat["attack"].isin(left_out)]
    halves = basis.name == MODEL
    best, rest = chosen(trusted, "blocks", halves=halves), chosen(threat, "withheld", halves=halves)
    ends = chosen(trusted, "blocks", "withheld", halves=halves)
    evidence = _evidence(trusted, controls, best, rest, least, basis)
    return {
        "verdict": judged(evidence),
        "basis": basis.name,
        "against": _most(rest["attack"]),
        "withheld_accuracy": rest["accuracy"].mean(),
        "victim_accuracy": _by_seed(threat, "ceiling").mean(),
        "ends_with": ends["accuracy"].mean(),
        **_ends_of("ends_with", ends.set_index("victim_seed")["accuracy"], basis),
        "ends_with_attack": _most(ends["attack"]),
        "seeds": len(rest),
        "controls": _controls(on_blocks[on_blocks["last"].astype(bool)], left_out),
        "device": threat["device"].iloc[0],
        **_about_headroom(evidence.headroom),
        **_about_gain(evidence, best),
        **_about_told(evidence, threat, basis),
    }


def _evidence(
    trusted: pd.DataFrame,
    controls: pd.DataFrame,
    best: pd.DataFrame,
    rest: pd.DataFrame,
    least: float,
    basis: Basis,
) -> Evidence:
    without = rest.set_index("victim_seed")["accuracy"]
    victim = _by_seed(trusted, "ceiling")
    told = {name: _by_seed(trusted[trusted["attack"] == name], "told") for name in _names(trusted, "told")}
    attacks = {name: _by_seed(trusted[trusted["attack"] == name], "blocks") for name in _names(trusted, "blocks")}
    gain = None if best.empty else best.set_index("victim_seed")["accuracy"]
    highest = max(told.values(), key=lambda each: float(each.mean()), default=None)
    cost = rest["device_minutes"] / least if not math.isnan(least) else rest["cost_over_retraining"]
    return Evidence(
        gain=None if gain is None else basis.less(gain, without),
        attacks={name: basis.less(values, without) for name, values in attacks.items()},
        told={name: basis.less(values, without) for name, values in told.items() if _passed(name, controls)},
        beyond=None if gain is None or highest is None else basis.less(gain, highest),
        headroom=basis.less(victim, without),
        stolen=basis.over(without, victim),
        cost=np.asarray(cost, dtype=np.float64),
        forms=frozenset(granted_forms(FORMS, int(trusted["images"].iloc[0]), str(trusted["knows"].iloc[0]))),
        frozen=_frozen(trusted),
        least=basis.least,
    )


def _about_headroom(headroom: Gains) -> dict[str, Any]:
    mean, low, high = interval(headroom)
    return {"headroom": mean, "headroom_low": low, "headroom_high": high, "margin": margin_of(headroom)}


def _about_gain(evidence: Evidence, best: pd.DataFrame) -> dict[str, Any]:
    if evidence.gain is None:
        return {}
    gain, low, high = interval(evidence.gain)
    undecided = judged(evidence) == UNDECIDED and evidence.least == LEAST[RECIPE]  # draws share the test images' luck
    wanted = seeds_to_decide(evidence.gain, margin_of(evidence.headroom), evidence.least) if undecided else math.nan
    return {
        "attack": _most(best["attack"]),
        "accuracy": best["accuracy"].mean(),
        "gain": gain,
        "ci_low": low,
        "ci_high": high,
        "gain_most": max(upper(each) for each in (evidence.gain, *evidence.attacks.values())),
        "seeds_to_decide": wanted,
        "minutes": best["device_minutes"].mean(),
        "cost_over_retraining": best["cost_over_retraining"].mean(),
    }


def _ends_of(name: str, accuracies: "pd.Series[float]", basis: Basis) -> dict[str, Any]:
    """The ends of the interval of a mean accuracy."""
    _, low, high = interval(basis.less(accuracies, accuracies * 0.0))
    return {f"{name}_low": low, f"{name}_high": high}


def _about_told(evidence: Evidence, threat: pd.DataFrame, basis: Basis) -> dict[str, Any]:
    """The best form, the largest bound of any, and which were tried; those whose control failed are marked."""
    tried = _names(threat, "told")
    if not tried:
        return {"told": NOT_RUN}
    reached = {name: _by_seed(threat[threat["attack"] == name], "told") for name in tried}
    best = max(reached.values(), key=lambda each: float(each.mean()))
    failed = [name for name in tried if name not in evidence.told]
    tells = "bounds no frozen layer: " if evidence.frozen else ""
    bounds = [upper(gains) for gains in evidence.told.values()]
    return {
        "told": tells + ", ".join(f"{name} (control failed)" if name in failed else name for name in tried),
        "told_accuracy": float(best.mean()),
        **_ends_of("told_accuracy", best, basis),
        "told_most": max(bounds) if bounds else math.nan,
    }


def _frozen(threat: pd.DataFrame) -> bool:
    """Whether a scattered layer was never trained; tables of before there were any have no such column."""
    return "frozen" in threat and bool((threat["frozen"].fillna("").astype(str) != "").any())


def _passed(form: str, controls: pd.DataFrame) -> bool:
    """Whether a form of the told ceiling has a control, and all of them passed."""
    own = controls[controls["attack"] == form]
    return len(own) > 0 and bool(own["passed"].astype(bool).all())


def _names(rows: pd.DataFrame, role: str) -> list[str]:
    return [str(name) for name in rows[rows["role"] == role]["attack"].unique()]


def _by_seed(rows: pd.DataFrame, role: str) -> "pd.Series[float]":
    """The last step's accuracy by victim seed, the mean over its draws."""
    last = rows[(rows["role"] == role) & rows["last"].astype(bool)]
    return last.groupby("victim_seed")["accuracy"].mean()


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
