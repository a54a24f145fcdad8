"""The plateau in words and as a figure: where fitness tells a right move from a wrong one, and its count of values."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from scatterproof.report.figures.base import COLOURS, GREY, MARKERS, finish, panels, whole_numbers
from scatterproof.report.input_words import inputs
from scatterproof.report.words import number, seeds, setting

FITNESS = {"accuracy": "accuracy", "loss": "cross-entropy"}
_CASE = ["victim", "block_size", "keep"]
_SERIES = ["images", "fitness", "correct_share"]


def sentences(table: pd.DataFrame) -> list[str]:
    """For each victim and fitness: between which shares of blocks right a search can climb, on the most images."""
    texts = []
    for (victim, size, keep, fitness), rows in table.groupby([*_CASE, "fitness"], sort=True):
        most = rows[rows["images"] == rows["images"].max()]
        means = most.groupby("correct_share")[["auc", "auc_low", "snr"]].mean()
        clear = means[means["auc_low"] > 0.5]
        noise = (
            "" if means["snr"].isna().all() else f" The signal is at most {number(means['snr'].max(), 2)} of the noise."
        )
        top: Any = means["auc"].idxmax()
        where = (
            "at no share of blocks right measured"
            if clear.empty
            else f"at {len(clear)} of {len(means)} shares of blocks right ("
            f"{', '.join(f'{100 * share:.3g} %' for share in clear.index)})"
        )
        texts.append(
            f"{setting(victim, size, keep)}, {FITNESS[str(fitness)]} on {number(most['images'].iloc[0])} {inputs()}: a "
            f"right exchange beats a wrong one more often than a coin would {where}; most clearly with "
            f"{100 * top:.3g} % right, {100 * means['auc'].max():.0f} times in 100.{noise} "
            f"{seeds(rows['victim_seed'].nunique())}"
        )
    return texts


def draw_plateau(table: pd.DataFrame, svg: Path) -> Path:
    """How often a right move beats a wrong one, a panel each fitness and a line each number of images, then how many
    fitness values random placements take.

    table: rows of `plateau` of one victim and block size. Several victim seeds are averaged, the ends of their
    intervals too: an interval over draws, a little wide for the mean.
    """
    means = table.groupby(_SERIES, as_index=False).mean(numeric_only=True)
    kinds = [name for name in FITNESS if (means["fitness"] == name).any()]
    whose = setting(*table[_CASE].iloc[0]) if len(table) else ""
    titles = {f"{whose}; fitness: {FITNESS[name]}": name for name in kinds}
    counts = f"{whose}; values among placements at random" if kinds else None
    with panels([*titles, *([counts] if counts else [])], svg, height=2.7, share_x=False) as axes:
        low, high = 100 * means["auc_low"].min(), 100 * means["auc_high"].max()
        for title, name in titles.items():
            _contrast(axes[title], means[means["fitness"] == name])
            axes[title].set_ylim(min(low, 45) - 2, max(high, 60) + 2)
        if counts:
            _distinct(axes[counts], means)
        finish(axes, inputs())
    return svg


def _contrast(axis: Axes, rows: pd.DataFrame) -> None:
    """AUC in percent against the share of blocks right, with its interval."""
    axis.axhline(50, color=GREY, linestyle="--", linewidth=1.2, label="a coin's toss")
    for index, (images, line) in enumerate(rows.groupby("images")):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        share, auc, low, high = (
            100 * line[column].to_numpy(dtype=float) for column in ("correct_share", "auc", "auc_low", "auc_high")
        )
        axis.plot(share, auc, color=colour, marker=marker, label=f"{images} {inputs()}")
        axis.fill_between(share, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("blocks right already (%)")
    axis.set_ylabel("right move beats\na wrong one (%)")


def _distinct(axis: Axes, means: pd.DataFrame) -> None:
    """Distinct fitness values at the least share right, against images, below the number of placements drawn."""
    rows = means[means["correct_share"] == means["correct_share"].min()]
    for name, colour, marker in zip(FITNESS, ("black", GREY), ("o", "x"), strict=True):
        line = rows[rows["fitness"] == name]
        axis.plot(
            line["images"].to_numpy(dtype=float),
            line["distinct"].to_numpy(dtype=float),
            color=colour,
            marker=marker,
            label=f"values of {FITNESS[name]}",
        )
    axis.axhline(float(rows["draws"].max()), color=GREY, linestyle=":", linewidth=1.4, label="placements drawn")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    whole_numbers(axis, sorted({int(value) for value in rows["images"]}))
    axis.set_ylabel("distinct values")
