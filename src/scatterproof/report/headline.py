"""The headline table as Markdown: accuracy by share of blocks held and images granted, from `attacks.csv`.

Beside it the same blocks in their places and at random places, and the same pirate with the layer withheld.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from scatterproof.analysis.choice import chosen
from scatterproof.analysis.control_results import has_failed
from scatterproof.analysis.gains import interval
from scatterproof.analysis.threat_key import KEY, undefended_first, with_key
from scatterproof.config.threat import Parts, parts_of
from scatterproof.report.sections.controls import marked_tables
from scatterproof.report.threat_words import besides, defended, granted
from scatterproof.report.words import attack_label, cut, names, share

NOT_RUN = "-"
SCATTERED = {"layer": "one layer", "dense": "all dense layers"}


def headline(tables: Mapping[str, pd.DataFrame]) -> str:
    """A table for each victim, block size and threat, whatever share of the blocks and images it grants, those without
    a defence first. Percent; intervals are Student's t over victim seeds.

    Of several attacks the one that is best on the other seeds, as for the verdict; none whose control failed.
    """
    marked = marked_tables(tables)
    attacks = with_key(undefended_first(marked["attacks"]), "share", "images")
    parts = []
    for name in names(attacks):
        for _, rows in attacks[attacks["victim"] == name].groupby(["block_size", KEY], sort=False):
            parts.append(_table(name, rows, marked["shuffle"]))
    return "\n\n".join(parts) + "\n"


def _table(name: str, rows: pd.DataFrame, shuffle: pd.DataFrame) -> str:
    knows, threat = rows["knows"].iloc[0], str(rows["threat"].iloc[0])
    parts, size = parts_of(threat), rows["block_size"].iloc[0]
    images = sorted(rows["images"].unique())
    ceiling = rows[(rows["role"] == "ceiling") & rows["last"].astype(bool)].drop_duplicates("victim_seed")["accuracy"]
    what = f"{SCATTERED[parts.scatter]} scattered{defended(threat)}{besides(threat)}"
    title = f"### {cut(name, size)}, {what}: {len(ceiling)} victims, {spread(ceiling)} % accurate"
    head = ["blocks held", "layer withheld", "at random places", *(granted(each, knows) for each in images)]
    learns = knows != "none" or bool(parts.activations)
    if learns:  # without the blocks the same pirate trains the layer: as many images, as many peers
        head = [*head[:1], *head[2:], *(f"withheld, {granted(each, knows)}" for each in images)]
    lines = [[*head, "places known"], ["---"] * (len(head) + 1)]
    for keep, held in rows.groupby("keep"):
        reached = [spread(_best(held[held["images"] == each], "blocks")) for each in images]
        rest = [spread(_best(held[held["images"] == each], "withheld")) for each in images]
        places = [spread(_random(shuffle, name, float(str(keep)), size, parts))]
        known = spread(held.groupby("victim_seed")["known_places_accuracy"].mean())
        without = next((each for each in rest if each != NOT_RUN), NOT_RUN)  # nothing is known: images change nothing
        middle = [*places, *reached, *rest] if learns else [without, *places, *reached]
        lines.append([share(keep), *middle, known])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([title, table, *_attacks(rows)])


def _attacks(rows: pd.DataFrame) -> Iterator[str]:
    """Which attacks on the blocks the best is chosen from, and which are left out."""
    kinds = rows[rows["role"] == "blocks"].drop_duplicates(["attack", "control"])
    failed = has_failed(kinds["control"])
    for text, some in (("The best is chosen from", kinds[~failed]), ("Left out", kinds[failed])):
        if len(some):
            yield f"{text}: {', '.join(attack_label(row) for row in some.itertuples())}."


def _best(rows: pd.DataFrame, role: str) -> pd.Series:
    """Accuracy for each victim seed; empty where the threat was not run, or every attack's control failed."""
    best = chosen(rows[~has_failed(rows["control"])], role)
    return best["accuracy"] if len(best) else pd.Series(dtype=float)


def _random(shuffle: pd.DataFrame, name: str, keep: float, block_size: int, threat: Parts) -> pd.Series:
    """Accuracy for each victim seed of as many blocks at random places; empty under a defence, where none are drawn."""
    here = (shuffle["victim"] == name) & np.isclose(shuffle["keep"], keep) & (shuffle["block_size"] == block_size)
    here &= (shuffle["scatter"] == threat.scatter) & (not threat.defence)
    return shuffle[here & (shuffle["moved"] == 1)].groupby("victim_seed")["accuracy"].mean()


def spread(values: pd.Series) -> str:
    """Mean and interval in percent, a dash where there is nothing."""
    if values.empty:
        return NOT_RUN
    mean, low, high = interval(100 * values.to_numpy(dtype=float))
    return f"{mean:.1f}" if np.isnan(low) else f"{mean:.1f} [{max(low, 0):.1f}, {min(high, 100):.1f}]"
