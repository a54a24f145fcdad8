"""What P1, S1 and the theory come to, in sentences: parts of the blocks in known places, and in random ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scatterproof.analysis.statistics import WITHIN, curve, half_is_chance
from scatterproof.report.words import (
    CORRECTIONS,
    cut,
    names,
    number,
    percent,
    points,
    seeds,
    setting,
    share,
    side,
    threshold_text,
    victim_label,
)

HEADLINE_SHARE = 0.25
BETTER = 0.001  # a gain in accuracy that shows in percent with one decimal

_OFF = f"With 100 % of the blocks held, every one displaced, more than {100 * WITHIN:g} points off"


@dataclass(frozen=True)
class Worth:
    """What a part of one victim's blocks gives: in known places as they are, with the missing made up for, and in
    random places (NaN where not measured); shares. moved: the share of them displaced there; seeds: of victims."""

    victim: str
    block_size: int
    keep: float
    moved: float
    known: float
    best: float
    unknown: float
    own: float
    chance: float
    seeds: int


def worths(tables: Mapping[str, pd.DataFrame], block_size: int) -> list[Worth]:
    """Of each victim, at the share held nearest to a quarter.

    Without draws of all held blocks displaced, the largest share displaced stands in, and is named.
    """
    prune, shuffle, victims = tables["prune"], tables["shuffle"], tables["victim"]
    prune, shuffle = prune[prune["block_size"] == block_size], shuffle[shuffle["block_size"] == block_size]
    moved = shuffle["moved"].max()
    shuffle = shuffle[shuffle["moved"] == moved]
    shares = sorted(set(prune["keep"]) & set(shuffle["keep"]), key=lambda keep: abs(keep - HEADLINE_SHARE))
    return [_worth(name, shares[0], moved, prune, shuffle, victims) for name in names(prune) if shares]


def _worth(
    name: str, keep: float, moved: float, prune: pd.DataFrame, shuffle: pd.DataFrame, victims: pd.DataFrame
) -> Worth:
    known = prune[(prune["victim"] == name) & (prune["keep"] == keep)]
    means = curve(known, ["correction"]).set_index("correction")
    unknown = curve(shuffle[(shuffle["victim"] == name) & (shuffle["keep"] == keep)], ["victim"])["mean"]
    own, reached = victims[victims["victim"] == name], means["mean"]
    return Worth(
        victim=name,
        block_size=int(prune["block_size"].iloc[0]),
        keep=keep,
        moved=moved,
        known=float(reached["none" if "none" in reached.index else reached.index[0]]),
        best=float(reached.max()),
        unknown=float(unknown.iloc[0]) if len(unknown) else np.nan,
        own=float(own["accuracy"].mean()),
        chance=float(own["chance"].mean()),
        seeds=int(means["seeds"].max()),
    )


def headline(tables: Mapping[str, pd.DataFrame], block_size: int) -> list[str]:
    """A sentence for each victim: part of the blocks in known places against the same part in random places."""
    return list(map(_sentence, worths(tables, block_size)))


def _sentence(worth: Worth) -> str:
    where = setting(worth.victim, worth.block_size, worth.keep)
    text = f"{where}: in known places they give {percent(worth.known)}"
    if worth.best - worth.known >= BETTER:
        text += f" ({percent(worth.best)} with the missing blocks made up for)"
    text += f" accuracy of the victim's {percent(worth.own)}"
    if not np.isnan(worth.unknown):
        text += f"; as many {displaced(worth.moved)} give {percent(worth.unknown)}"
    return f"{text}. Chance is {percent(worth.chance)}. {seeds(worth.seeds)}"


def displaced(moved: float) -> str:
    """Where blocks lie of which so many were put elsewhere."""
    return "in random places" if np.isclose(moved, 1) else f"with {share(moved)} of them displaced"


def thresholds(tables: Mapping[str, pd.DataFrame], block_size: int) -> list[str]:
    """A sentence for each victim: the kept share at half of its accuracy, or that half of it is chance."""
    rows, keeps = tables["threshold"], tables["prune"]["keep"]
    rows = rows[rows["block_size"] == block_size]
    sentences = []
    for name in names(rows):
        if half_is_chance(tables["victim"], name):
            sentences.append(f"{cut(name, block_size)}: half of its accuracy is no more than chance: no threshold.")
            continue
        own: Any = rows[rows["victim"] == name].itertuples()
        parts = [
            f"{threshold_text(row, keeps.min(), keeps.max())} ({CORRECTIONS.get(row.correction, row.correction)})"
            for row in own
        ]
        count = int(rows[rows["victim"] == name]["seeds"].max())
        sentences.append(
            f"{cut(name, block_size)}: half of the victim's accuracy is reached with this share of the blocks in known "
            f"places: {'; '.join(parts)}. {seeds(count)}"
        )
    return sentences


def epochs(victims: pd.DataFrame) -> str:
    """A warning where the victims were not all trained for the same number of epochs, else empty."""
    counts = victims.groupby("victim")["epochs"].agg(lambda own: ", ".join(map(number, sorted(own.dropna().unique()))))
    if counts.nunique() < 2:
        return ""
    each = "; ".join(f"{victim_label(name)}: {counts[name] or 'unknown'}" for name in names(victims))
    return (
        f"The victims were trained for different numbers of epochs ({each}). The comparison between them is "
        "confounded by that: a difference may come from the training."
    )


def excess(table: pd.DataFrame, spread: float) -> str:
    """Which victims are more than two points off chance when all blocks are displaced, and whether draws explain it.

    spread: the standard deviation of single draws, as `draw_spread` gives it.
    """
    if table.empty:
        return "Excess over chance was not measured: no draw holds every block and displaces every one."
    parts = [
        "No draw was repeated, so how far single draws scatter is unknown."
        if pd.isna(spread)
        else f"Single draws scatter with a standard deviation of {100 * spread:.1f} points around the mean of their "
        "victim, seed and block size; means of n draws with that over the square root of n."
    ]
    off = table[~table["within"]]
    if off.empty:
        sizes = " and ".join(side(size) for size in sorted(set(table["block_size"])))
        parts.append(
            f"Every victim is within two points of chance, in blocks of {sizes}, 100 % of them held and every one "
            "displaced: with all places lost, nothing is left."
        )
    noise, unknown = (off["ci_low"] <= 0) & (off["ci_high"] >= 0), off["ci_low"].isna()
    if unknown.any():
        parts.append(f"{_OFF} in a single draw, without interval: {_which(off[unknown])}.")
    if noise.any():
        parts.append(f"{_OFF}, with an interval that holds 0: {_which(off[noise])}.")
    clear = off[~noise & ~unknown]
    if len(clear):
        intervals = int(table["ci_low"].notna().sum())
        parts.append(
            f"{_OFF}, with an interval that leaves 0 out: {_which(clear)}. Among "
            f"{intervals} intervals of 95 % about {max(1, round(0.05 * intervals))} do so by luck; percentile "
            "intervals of few draws are somewhat narrow besides. If it persists with more repeats, blocks displaced "
            "within their own row still feed the features they were trained for: in a grid of few rows that is "
            "likely. No place was found: no search was made."
        )
    return " ".join(parts)


def _which(off: pd.DataFrame) -> str:
    rows: Any = off.itertuples()
    return ", ".join(
        f"{victim_label(row.victim)} {'pooled' if row.victim_seed == 'all' else f'seed {row.victim_seed}'}"
        f" in blocks of {side(row.block_size)} ({points(row.excess)})"
        for row in rows
    )


def theory(table: pd.DataFrame, block_size: int) -> list[str]:
    """The talk's expected clues explained: its formula against drawing without replacement."""
    clues = table[(table["quantity"] == "expected_clues") & table["reported"].notna()]
    if clues.empty:
        return [
            "The talk's figure is for a 16 x 98 grid, 10 % of the blocks held and a population of 100; this study has "
            "no such row. The formula treats blocks as independent, the exact value draws them without replacement."
        ]
    row: Any = next(clues.sort_values("block_size", key=lambda sizes: sizes != block_size).itertuples())
    here = [table[column] == getattr(row, column) for column in ("layer", "block_size", "keep", "population")]
    floor = table[(table["quantity"] == "expected_clues_floor") & np.logical_and.reduce(here)]
    exact = number(row.exact, 3)
    if len(floor):
        exact += f" (or {number(floor['exact'].iloc[0], 3)} if the count of blocks is rounded down)"
    inside = row.ci_low <= row.exact <= row.ci_high
    excluded = not row.ci_low <= row.value <= row.ci_high
    return [
        f"The talk reports {number(row.reported, 3)} expected clues in a population of {row.population:g}, with "
        f"{share(row.keep)} of the blocks held; for {row.layer} in blocks of {side(row.block_size)} its formula gives "
        f"{number(row.value)}. The formula treats the blocks as independent. Two blocks never share a place: drawn "
        f"without replacement, the exact value is {exact}.",
        f"The Monte Carlo, which knows neither formula, gives {number(row.monte_carlo, 3)} "
        f"[{number(row.ci_low, 3)}, {number(row.ci_high, 3)}]: its 95 % interval {'contains' if inside else 'misses'} "
        f"the exact value and {'excludes' if excluded else 'contains'} the talk's.",
    ]
