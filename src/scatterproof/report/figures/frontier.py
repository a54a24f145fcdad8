"""The frontier as a figure: what the pirate is left with against what a setting costs, from tables/frontier.csv."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scatterproof.analysis.frontier.points import COST, NONE, WHOLE, frontiers
from scatterproof.config.threat import parts_of, rest_of
from scatterproof.report.figures.base import COLOURS, GREY, finish, panels
from scatterproof.report.input_words import accuracy_label
from scatterproof.report.threat_words import grants
from scatterproof.report.words import setting

HEIGHT, LABELS = 4.2, 1.5  # inches of a panel, and of those above the points, where their names stand
GAP = 0.03  # between names, of the width of the axis
ASIDE = 0.004  # so much one series stands beside another
SERIES = (
    ("ends_with", "ends with", COLOURS[1], "o", -ASIDE),
    ("told_accuracy", "told ceiling", COLOURS[0], "^", ASIDE),
)


def draw_frontier(frontier: pd.DataFrame, svg: Path) -> Path:
    """Accuracy and gain against the trusted party's share of operations; two panels for each threat without its
    defence, a point for each setting, with 95 % intervals and the settings beside them."""
    drawn = {f"{what}: {_title(rows)}": (what, rows) for rows in frontiers(frontier) for what in ("accuracy", "gain")}
    with panels(list(drawn), svg, height=HEIGHT) as axes:
        for title, axis in axes.items():
            what, rows = drawn[title]
            points = rows.dropna(subset=[COST]).sort_values(COST, kind="stable")
            (_accuracies if what == "accuracy" else _gains)(axis, points)
            axis.set_xlim(-0.04 * _width(points), 1.04 * _width(points))
        finish(axes, "operations of the trusted party (% of those of the whole layer)")
    return svg


def _title(rows: pd.DataFrame) -> str:
    """The threat without its defence, and how many victims or draws a point is a mean of."""
    first = next(_rows(rows))
    undefended = rest_of(str(first.threat), "defence")
    where = setting(first.victim, first.block_size, first.keep, undefended)
    counts = sorted({int(count) for count in rows["seeds"]})
    return f"{where}, {grants(first.images, first.knows, undefended)}; n = {' to '.join(map(str, counts))}"


def _accuracies(axis: Axes, points: pd.DataFrame) -> None:
    first = points.iloc[0]
    axis.axhline(100 * first["victim_accuracy"], color=GREY, linestyle="--", linewidth=1.2, label="the victim itself")
    axis.axhline(100 * points["withheld_accuracy"].mean(), color=GREY, linestyle=":", linewidth=1.4,
                 label="the best without blocks")  # fmt: skip
    for column, label, colour, marker, aside in SERIES:
        shown = points.dropna(subset=[column])
        _bars(axis, shown, _width(points) * aside, (column, f"{column}_low", f"{column}_high"), colour, marker, label)
    _labels(
        axis, points, points[["ends_with_high", "ends_with", "told_accuracy_high", "told_accuracy"]].max(axis=1), 0.0
    )
    axis.set_ylabel(accuracy_label())


def _gains(axis: Axes, points: pd.DataFrame) -> None:
    axis.axhline(0, color=GREY, linestyle=":", linewidth=1.4, label="the best without blocks")
    _bars(axis, points.dropna(subset=["gain"]), 0.0, ("gain", "ci_low", "ci_high"), COLOURS[2], "s", "gain")
    bounds = points.dropna(subset=["told_most"])
    at = 100 * bounds[COST] + ASIDE * _width(points)
    axis.plot(at, 100 * bounds["told_most"], "_", color=COLOURS[0], markersize=9, label="told ceiling gains at most")
    _labels(
        axis,
        points,
        points[["ci_high", "gain", "told_most"]].max(axis=1),
        100 * min(0.0, float(points[["ci_low", "gain"]].min().min())),
    )
    axis.set_ylabel("gain by the blocks (points)")


def _bars(
    axis: Axes, rows: pd.DataFrame, aside: float, columns: tuple[str, str, str], colour: str, marker: str, label: str
) -> None:
    """Points with their 95 % intervals; no arms where there is none."""
    mean, low, high = (100 * rows[column].to_numpy(dtype=float) for column in columns)
    arms = np.nan_to_num(np.array([mean - low, high - mean]), nan=0.0).clip(min=0)
    at = 100 * rows[COST].to_numpy(dtype=float) + aside
    axis.errorbar(at, mean, yerr=arms, color=colour, fmt=marker, capsize=3, linewidth=1.2, label=label)


def _labels(axis: Axes, points: pd.DataFrame, top: "pd.Series[float]", low: float) -> None:
    """The name of each point in the room above all of them, a thin line from it to the point, or, where no attack
    counts and it has no value, to the lower end."""
    at = 100 * points[COST].to_numpy(dtype=float)
    highest: list[float] = np.nan_to_num(100 * top.to_numpy(dtype=float), nan=low).tolist()
    high = max(*highest, low + 1.0)
    foot = high + 0.12 * (high - low)
    for name, x, y, aside in zip(map(_name, _rows(points)), at, highest, spread(at, GAP * _width(points)), strict=True):
        axis.plot([x, x, aside], [y, high + 0.03 * (high - low), foot], color=GREY, linewidth=0.4, zorder=0.5)
        axis.text(aside, foot, f" {name}", rotation=90, fontsize=6.5, ha="center", va="bottom")
    axis.set_yticks([tick for tick in axis.get_yticks() if tick <= foot])
    axis.set_ylim(low - 0.06 * (high - low), foot + LABELS / (HEIGHT - LABELS) * (foot - low))


def spread(at: Any, gap: float) -> Any:
    """Positions in the same order that are at least a gap apart, and none further right than the last."""
    places = np.array(at, dtype=float)
    for number in range(1, len(places)):
        places[number] = max(places[number], places[number - 1] + gap)
    ends = max(at[-1], gap * (len(places) - 1)) - gap * np.arange(len(places))[::-1]
    return np.minimum(places, ends)


def _width(points: pd.DataFrame) -> float:
    """Of the axis of costs, in percent."""
    return 100 * max(1.0, float(points[COST].max()))


def _name(row: Any) -> str:
    named = {NONE: "no defence", WHOLE: "the whole layer at home"}
    return named.get(str(row.point)) or parts_of(str(row.threat)).defence


def _rows(frame: pd.DataFrame) -> Any:
    return frame.itertuples(index=False)
