"""Means, 95 % intervals, thresholds and excess over chance, from the tidy tables of the grids.

Intervals are percentile intervals of a hierarchical bootstrap (Davison & Hinkley 1997, section 3.8): victim seeds are
resampled with replacement, then the repeats within each. Draws are nested over the shares kept, so a threshold's
resample takes the same repeats at every share. With one victim seed only the repeats are resampled, so the interval
says nothing about other victims: the column `seeds` tells. With few seeds such intervals are somewhat narrow. Every
draw comes from a fixed seed and rows are sorted first, so the order of a table changes nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scatterproof.analysis.columns import COLUMNS

Floats = NDArray[np.float64]

DRAWS = 2000
WITHIN = 0.02  # 'at chance' means within two points of it

_SEED = 20241101
_PERCENTILES = (2.5, 97.5)


def bootstrap_means(values: Floats, draws: int = DRAWS) -> Floats:
    """Means of `draws` hierarchical resamples.

    values: (points, seeds, repeats), a column for each repeat's number, NaN where it was not measured, each seed having
    at least one per point; returns (draws, points). A draw takes the same seeds and the same repeats of each at every
    point. Of a seed's repeats it takes as many as the seed has at any point; where a point lacks some of those taken,
    the others count, and where it lacks all of them, the seed's mean there.
    """
    rng = np.random.default_rng(_SEED)
    points, seeds, repeats = values.shape
    measured = ~np.isnan(values)
    somewhere = measured.any(axis=0)
    chosen = rng.integers(seeds, size=(draws, seeds))
    counts = somewhere.sum(axis=1)[chosen][:, :, None]
    numbers = np.argsort(~somewhere, axis=1, kind="stable")  # of each seed's repeats, those it has first
    picks = (rng.random((draws, seeds, repeats)) * counts).astype(np.int64)
    cells = chosen[:, :, None], numbers[chosen[:, :, None], picks]
    means = np.empty((draws, points))
    for point, table in enumerate(values):
        taken = measured[point][cells] & (np.arange(repeats) < counts)
        count = taken.sum(axis=2)
        sums = np.where(taken, table[cells], 0).sum(axis=2)
        means[:, point] = np.where(count > 0, sums / np.maximum(count, 1), np.nanmean(table, axis=1)[chosen]).mean(
            axis=1
        )
    return means


def curve(frame: pd.DataFrame, by: Sequence[str], x: str = "keep", value: str = "accuracy") -> pd.DataFrame:
    """The mean of `value` at each `x` of each group, with its interval.

    Returns the columns `by`, x, mean, ci_low, ci_high, seeds, repeats (per seed, at most), sorted. The mean is that of
    the seeds' means. A point with a single observation has no interval (NaN).
    """
    rows = []
    for key, group in frame.groupby([*by, x], sort=True):
        table = seed_table(group, value)
        low, high = percentile_interval(bootstrap_means(table[None])[:, 0]) if table.size > 1 else (np.nan, np.nan)
        rows.append((*key, _mean(table), low, high, *table.shape))
    return pd.DataFrame(rows, columns=[*by, x, "mean", "ci_low", "ci_high", "seeds", "repeats"])


def crossing(x: Floats, y: Floats, level: float | Floats) -> Floats:
    """The first x at which a curve reaches a level, by linear interpolation; infinite where it never does.

    x: (points,) ascending; y: (curves, points); level: one, or (curves,). A curve that starts at or above the level
    gives the first x: the true crossing is there or below.
    """
    reached = y >= np.broadcast_to(level, y.shape[:1])[:, None]
    right = reached.argmax(axis=1)
    left = np.maximum(right - 1, 0)
    row = np.arange(len(y))
    rise = np.where(right > 0, y[row, right] - y[row, left], 1.0)
    part = np.where(
        right > 0, (np.broadcast_to(level, right.shape) - y[row, left]) / np.where(rise > 0, rise, 1.0), 0.0
    )
    return np.where(reached.any(axis=1), x[left] + part * (x[right] - x[left]), np.inf)


def threshold(prune: pd.DataFrame, victims: pd.DataFrame) -> pd.DataFrame:
    """`tables/threshold.csv`: the kept share at which the mean accuracy first reaches half of the victim's.

    One row for each study, victim, layer, block size, scatter and correction; `keep` is the threshold, and a resample
    compares with the accuracy of the victims it drew. Empty `keep`: not reached at the largest share measured, or
    `half_is_chance`; empty `ci_high`: the interval is open there. A `keep` equal to the smallest share measured means
    there or below.
    """
    rows = []
    by = ["study", "layer", "block_size", "victim", "scatter", "correction"]
    accuracy = victims.groupby(["victim", "victim_seed"])["accuracy"].first().to_dict()
    for key, group in prune.groupby(by, sort=True):
        study, layer, block_size, victim, scatter, correction = key
        seeds = sorted(group["victim_seed"].unique())
        own = np.array([accuracy[victim, seed] for seed in seeds], dtype=np.float64)
        keeps = np.sort(group["keep"].unique().astype(np.float64))
        wide = group.pivot_table(index=["keep", "victim_seed"], columns="repeat", values="accuracy")
        wide = wide.reindex(pd.MultiIndex.from_product([keeps, seeds]))
        values = wide.to_numpy(dtype=np.float64).reshape(len(keeps), len(seeds), -1)
        at, low, high = np.nan, np.nan, np.nan
        if not half_is_chance(victims, str(victim)):
            observed = np.array([[_mean(table) for table in values]])
            at = float(crossing(keeps, observed, own.mean() / 2)[0])
            if values[0].size > 1:
                owns = np.where(np.isnan(values).all(axis=0), np.nan, own[:, None])
                drawn = bootstrap_means(np.concatenate([values, owns[None]]))
                low, high = percentile_interval(crossing(keeps, drawn[:, :-1], drawn[:, -1] / 2))
        rows.append((study, np.nan, layer, block_size, at, victim, scatter, correction, low, high, len(seeds)))
    return pd.DataFrame(rows, columns=COLUMNS["threshold"]).replace(np.inf, np.nan)


def half_is_chance(victims: pd.DataFrame, victim: str) -> bool:
    """Half of the victim's mean accuracy is no more than chance: no share of the blocks is needed to reach it."""
    own = victims[victims["victim"] == victim]
    return bool(own["accuracy"].mean() / 2 <= own["chance"].mean())


def shuffled_excess(shuffle: pd.DataFrame, victims: pd.DataFrame) -> pd.DataFrame:
    """Accuracy minus chance with every block held and every one displaced (keep = 1, moved = 1).

    Columns: victim, block_size, victim_seed (`all`: pooled), chance, accuracy, excess, ci_low, ci_high (of the excess),
    seeds, repeats, within (the excess is at most two points either way). One row a victim seed, then the pooled one.
    """
    whole = _all_displaced(shuffle)
    chances = victims.groupby("victim")["chance"].first()
    each = curve(whole, ["victim", "block_size", "victim_seed"])
    pooled = curve(whole, ["victim", "block_size"]).assign(victim_seed="all")
    table = pd.concat([each.astype({"victim_seed": str}), pooled], ignore_index=True).sort_values(
        ["victim", "block_size"], kind="stable", ignore_index=True
    )
    chance = table["victim"].map(chances).astype(float)
    table = table.assign(chance=chance, accuracy=table["mean"], excess=table["mean"] - chance)
    table = table.assign(ci_low=table["ci_low"] - chance, ci_high=table["ci_high"] - chance)
    table["within"] = table["excess"].abs() <= WITHIN
    columns = ["victim", "block_size", "victim_seed", "chance", "accuracy", "excess", "ci_low", "ci_high"]
    return table[[*columns, "seeds", "repeats", "within"]]


def draw_spread(shuffle: pd.DataFrame) -> float:
    """Standard deviation of single draws' accuracy with every block held and displaced, NaN if none was repeated.

    Pooled over victims, their seeds and block sizes, around the mean of each.
    """
    by = [c for c in ("layer", "scatter", "victim", "block_size", "victim_seed") if c in shuffle.columns]
    draws = _all_displaced(shuffle).groupby(by)["accuracy"]
    freedom = (draws.count() - 1).sum()
    return float(np.sqrt((draws.var() * (draws.count() - 1)).sum() / freedom)) if freedom else np.nan


def _all_displaced(shuffle: pd.DataFrame) -> pd.DataFrame:
    return shuffle[np.isclose(shuffle["keep"], 1) & np.isclose(shuffle["moved"], 1)]


def seed_table(group: pd.DataFrame, value: str) -> Floats:
    """(seeds, repeats) of a group's values, NaN where a seed has fewer; the order of its rows does not matter."""
    ordered = group.sort_values([c for c in ("victim_seed", "repeat", value) if c in group.columns])
    by_seed: list[Any] = [rows[value].to_numpy(dtype=np.float64) for _, rows in ordered.groupby("victim_seed")]
    table = np.full((len(by_seed), max(len(rows) for rows in by_seed)), np.nan)
    for row, values in zip(table, by_seed, strict=True):
        row[: len(values)] = values
    return table


def _mean(table: Floats) -> float:
    return float(np.nanmean(table, axis=1).mean())


def percentile_interval(draws: Floats) -> tuple[float, float]:
    low, high = np.percentile(draws, _PERCENTILES, method="inverted_cdf")
    return float(low), float(high)


def kinds(search: pd.DataFrame) -> pd.DataFrame:
    """The searches' table with population as text, empty where an attack has none, so that it can be grouped by."""
    as_text = search["population"].map(lambda count: "" if pd.isna(count) else f"{count:,.0f}")
    return search.assign(population=as_text)
