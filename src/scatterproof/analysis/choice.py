"""Which attack counts under a threat: chosen on other seeds than those that judge it. Imports no torch.

On either side the attack is chosen for each victim seed by its mean accuracy over the other seeds (cross-fitting:
Cawley & Talbot, JMLR 2010, https://jmlr.org/papers/v11/cawley10a.html, say why not by its own), so a seed never judges
what was chosen on it.
"""

from collections.abc import Iterator

import pandas as pd

from scatterproof.analysis.columns import THREAT
from scatterproof.analysis.threat_key import KEY, with_key
from scatterproof.config.settings.ceilings import CEILINGS
from scatterproof.config.threat import WITH_STREAM

AVERAGED = ["accuracy", "device_minutes", "cost_over_retraining"]
CASE = ["study", "layer", "block_size", "victim", KEY]
ABOUT = ["study", "layer", "block_size", "keep", "victim", *THREAT]


def with_withheld(attacks: pd.DataFrame) -> pd.DataFrame:
    """`tables/attacks.csv` with `withheld_accuracy`: the same pirate's without the blocks, in every row of a seed."""
    parts = []
    for rows in by_threat(attacks):
        withheld = chosen(rows, "withheld").set_index("victim_seed")["accuracy"]
        parts.append(rows.assign(withheld_accuracy=rows["victim_seed"].map(withheld)))
    return pd.concat(parts, ignore_index=True) if parts else attacks


def chosen(rows: pd.DataFrame, *roles: str, halves: bool = False) -> pd.DataFrame:
    """Of one threat's attacks in these roles, one row for each victim seed: that which is best on the other seeds, or
    on the other half of them.

    Ties go to the attack that comes first in the table. With one seed alone there are no others: its own best. Where an
    attack was run on several draws for one victim seed, their mean stands.
    """
    last = rows[rows["last"].astype(bool) & rows["role"].isin(roles)]
    order = list(dict.fromkeys(last["attack"]))
    accuracy = last.pivot_table(index="victim_seed", columns="attack", values="accuracy", aggfunc="mean")[order]
    best = []
    for number, seed in enumerate(accuracy.index):
        apart = accuracy.iloc[1 - number % 2 :: 2] if halves else accuracy.drop(index=seed)
        others = apart if len(apart) else accuracy
        name = others.mean().idxmax()
        mine = last[(last["attack"] == name) & (last["victim_seed"] == seed)]
        best.append(pd.concat([mine.iloc[0].drop(AVERAGED), mine[AVERAGED].astype(float).mean()]))
    return pd.DataFrame(best)


def beside_traffic(hijacks: pd.DataFrame, attacks: pd.DataFrame) -> pd.DataFrame:
    """The hijacks, and under each of their threats what the study's other attacks reach on the same blocks without the
    traffic: who has more can do no worse. None where they were not run on every victim seed of the hijacks."""
    parts = [hijacks]
    for (victim, size, _), rows in with_key(hijacks).groupby(["victim", "block_size", KEY], sort=False):
        about = rows.iloc[0][["threat", "obfuscation", "params"]]
        same = (attacks["victim"] == victim) & (attacks["block_size"] == size)
        granted = attacks["threat"] == about["threat"].partition(WITH_STREAM)[0]
        seeds = set(rows["victim_seed"])
        others = attacks[same & granted & ~attacks["role"].isin(CEILINGS) & attacks["victim_seed"].isin(seeds)]
        if set(others["victim_seed"]) == seeds:
            parts.append(others.assign(**about))
    return pd.concat(parts, ignore_index=True)


def by_threat(attacks: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of each victim, block size and threat."""
    for _, rows in with_key(attacks).groupby(CASE, sort=False):
        yield rows.drop(columns=KEY)
