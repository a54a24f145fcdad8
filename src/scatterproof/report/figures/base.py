"""The figures of a study, each saved as .svg, .pdf and .png.

Every `draw_*` takes tidy tables and the path of the .svg, writes that and the others beside it, and returns the path.
The bytes depend on the tables alone; an empty selection makes a figure that says so. Panels stand above each other, so
that a figure can be read on a phone.
Colours: Okabe & Ito's palette for colour-blind readers, https://jfly.uni-koeln.de/color/.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from scatterproof.analysis.statistics import curve
from scatterproof.report.input_words import accuracy_label
from scatterproof.report.words import CORRECTIONS, cut, names, share, side, victim_label
from scatterproof.running.files import atomic

WIDTH = 5.6  # inches
LONG_TITLE = 60  # characters of a line above a panel
LONG_LABEL = 44  # characters: two columns of longer ones are wider than the figure
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#555555"
RED = "#B00020"

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "scatterproof",
}
_LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}


def draw_prune(
    prune: pd.DataFrame, victims: pd.DataFrame, thresholds: pd.DataFrame, block_size: int, svg: Path
) -> Path:
    """P1: accuracy against the share of blocks held in known places; a line a correction, a panel a victim."""
    prune = prune[prune["block_size"] == block_size]
    means = curve(prune, ["victim", "correction"])
    titles = {cut(name, block_size): name for name in names(prune)}
    with panels(list(titles), svg) as axes:
        for title, axis in axes.items():
            name = titles[title]
            reference_lines(axis, victims, name)
            for (label, colour, marker), line in _by_correction(means[means["victim"] == name]):
                draw_line(axis, line, "keep", colour, marker, label)
            here = thresholds[(thresholds["victim"] == name) & (thresholds["block_size"] == block_size)]
            here = here[here["keep"] > prune["keep"].min()]
            _mark_thresholds(axis, here, victims, name)
            shares(axis, accuracy_label())
        finish(axes, "share of the blocks held, places known (%)")
    return svg


def draw_shuffle(shuffle: pd.DataFrame, victims: pd.DataFrame, block_size: int, svg: Path) -> Path:
    """S1: accuracy against the share of blocks held; a line for each share of them displaced, a panel a victim."""
    shuffle = shuffle[shuffle["block_size"] == block_size]
    means = curve(shuffle, ["victim", "moved"])
    titles = {cut(name, block_size): name for name in names(shuffle)}
    with panels(list(titles), svg) as axes:
        for title, axis in axes.items():
            reference_lines(axis, victims, titles[title])
            lines = means[means["victim"] == titles[title]].groupby("moved")
            for index, (moved, line) in enumerate(lines):
                style = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
                draw_line(axis, line, "keep", *style, f"{share(moved)} of them displaced")
            shares(axis, accuracy_label())
        finish(axes, "share of the blocks held (%)")
    return svg


def draw_threshold(thresholds: pd.DataFrame, svg: Path) -> Path:
    """The kept share at half of the victim's accuracy against the block size; thresholds not reached are left out."""
    titles = {victim_label(name): name for name in names(thresholds)}
    with panels(list(titles), svg, height=2.1) as axes:
        for title, axis in axes.items():
            here = thresholds[thresholds["victim"] == titles[title]]
            for index, ((label, colour, marker), line) in enumerate(_by_correction(here)):
                sizes = line["block_size"].to_numpy(dtype=float) * 2 ** (0.06 * (index - 1))
                _draw_intervals(axis, sizes, line.assign(mean=line["keep"]), colour, marker, label)
            _percent(axis, "blocks needed (%)")
            axis.set_xscale("log", base=2)
            whole_numbers(axis, here["block_size"].unique().tolist())
            axis.set_ylim(0, None)
        finish(axes, "block size (weights a side)")
    return svg


def draw_curve(curves: pd.DataFrame, svg: Path) -> Path:
    """Training: each victim's accuracy on test images against minutes of training, a line a seed."""
    with panels(["training"], svg) as axes:
        axis = axes["training"]
        for index, name in enumerate(names(curves)):
            for count, (_, line) in enumerate(curves[curves["victim"] == name].groupby("victim_seed")):
                line = line.sort_values("epoch")
                label = victim_label(name) if count == 0 else None
                x, y = line["minutes"].to_numpy(dtype=float), 100 * line["accuracy"].to_numpy(dtype=float)
                axis.plot(x, y, color=COLOURS[index % len(COLOURS)], linewidth=1.2, label=label)
        axis.set_title("")
        axis.set_xlim(0, None)
        _percent(axis, accuracy_label())
        finish(axes, "minutes of training, a line for each seed")
    return svg


def draw_cost(summary: pd.DataFrame, retraining: float, svg: Path) -> Path:
    """Minutes of each stage: useful, start-up, wasted, beside training one victim (`retraining`, NaN: unknown)."""
    stages = summary[summary["stage"] != "total"].iloc[::-1]
    with panels(["cost"], svg, height=0.34 * len(stages) + 1.3) as axes:
        axis = axes["cost"]
        useful = stages["device_minutes"].fillna(0).to_numpy(dtype=float)
        overhead = stages["overhead_minutes"].fillna(0).to_numpy(dtype=float)
        wasted = stages["wasted_minutes"].fillna(0).to_numpy(dtype=float)
        labels = [str(stage) for stage in stages["stage"]]
        axis.barh(labels, useful, color=COLOURS[0], label="useful")
        axis.barh(labels, overhead, left=useful, color=COLOURS[5], label="start-up")
        if wasted.any():
            axis.barh(labels, wasted, left=useful + overhead, color=COLOURS[1], hatch="//", label="wasted")
        if retraining > 0:
            axis.axvline(retraining, color=GREY, linestyle="--", linewidth=1.2, label="training one victim")
        for row, (value, known) in enumerate(
            zip(useful + overhead + wasted, stages["device_minutes"].notna(), strict=True)
        ):
            text = f"{value:.3g}" if known else "unknown"
            axis.annotate(text, (value, row), (4, 0), textcoords="offset points", va="center", bbox=_LABEL_BOX)
        axis.set_title("")
        axis.grid(axis="y", visible=False)
        axis.margins(x=0.12)
        finish(axes, "minutes of one device")
    return svg


def draw_theory(theory: pd.DataFrame, block_size: int, svg: Path) -> Path:
    """Expected clues in a population: the talk's formula, the exact value, the Monte Carlo; a panel a layer, share."""
    rows = theory[(theory["quantity"] == "expected_clues") & (theory["block_size"] == block_size)]
    rows = rows.drop_duplicates(["layer", "keep", "population"])
    by_title = {
        f"{layer}, blocks of {side(block_size)}, {share(keep)} of them held": here
        for (layer, keep), here in rows.sort_values("population").groupby(["layer", "keep"])
    }
    with panels(list(by_title), svg, height=2.4) as axes:
        for title, axis in axes.items():
            here = by_title[title]
            x = here["population"].to_numpy(dtype=float)
            _dots(axis, x / 1.04, here["value"], COLOURS[1], "s", "the talk's formula (independent blocks)")
            _dots(axis, x, here["exact"], COLOURS[0], "o", "exact (without replacement)")
            simulated = here.assign(mean=here["monte_carlo"])
            _draw_intervals(axis, x * 1.04, simulated, COLOURS[2], "^", "Monte Carlo, 95 % interval", factor=1)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.margins(x=0.1, y=0.15)
            whole_numbers(axis, sorted({int(value) for value in x}))
            axis.set_ylabel("expected clues")
        finish(axes, "population (placements)")
    return svg


@contextmanager
def panels(titles: list[str], svg: Path, height: float = 3.0, share_x: bool = True) -> Iterator[dict[str, Axes]]:
    """Panels above each other, by title; saved as .svg, .pdf and .png when done. No titles: a panel that says so."""
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE}):
        figure = Figure(figsize=(WIDTH, height * len(titles) + 0.9), layout="constrained")
        FigureCanvasAgg(figure)
        if not titles:
            figure.text(0.5, 0.5, "nothing was measured here", ha="center", va="center")
        grid = figure.subplots(len(titles), 1, sharex=share_x, squeeze=False)[:, 0] if titles else ()
        axes: dict[str, Axes] = dict(zip(titles, grid, strict=True))
        for title, axis in axes.items():
            axis.set_title(fill(title, LONG_TITLE, break_on_hyphens=False))
        yield axes
        with atomic(svg) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        with atomic(svg.with_suffix(".pdf")) as temporary:
            figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
        with atomic(svg.with_suffix(".png")) as temporary:
            figure.savefig(temporary, format="png")


def finish(axes: dict[str, Axes], x_label: str) -> None:
    """The x label and one legend below all panels, where it covers no data."""
    if not axes:
        return
    last = list(axes.values())[-1]
    last.set_xlabel(x_label)
    by_label: dict[str, Any] = {}
    for axis in axes.values():
        handles, labels = axis.get_legend_handles_labels()
        by_label |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in by_label}
    columns = 1 if max(map(len, by_label), default=0) > LONG_LABEL else 2
    last.figure.legend(by_label.values(), by_label.keys(), loc="outside lower center", ncols=columns)


def _by_correction(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """(label, colour, marker) and the rows of each correction that occurs, in a fixed order."""
    for (correction, label), colour, marker in zip(CORRECTIONS.items(), COLOURS, MARKERS, strict=False):
        rows = frame[frame["correction"] == correction]
        if len(rows):
            yield (label, colour, marker), rows


def draw_line(axis: Axes, line: pd.DataFrame, x: str, colour: str, marker: str, label: str, dashes: str = "-") -> None:
    """A curve of means with its 95 % band, in percent; no band where there is no interval."""
    at, mean, low, high = (100 * line[column].to_numpy(dtype=float) for column in (x, "mean", "ci_low", "ci_high"))
    axis.plot(at, mean, color=colour, marker=marker, linestyle=dashes, label=label)
    axis.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


def _draw_intervals(
    axis: Axes, x: Any, line: pd.DataFrame, colour: str, marker: str, label: str, factor: float = 100
) -> None:
    """Points with 95 % intervals; an arm is left out where the interval is unknown or open."""
    mean, low, high = (factor * line[column].to_numpy(dtype=float) for column in ("mean", "ci_low", "ci_high"))
    arms = np.nan_to_num(np.array([mean - low, high - mean]), nan=0.0).clip(min=0)
    axis.errorbar(x, mean, yerr=arms, color=colour, fmt=marker, capsize=3, linewidth=1.2, label=label)


def _dots(axis: Axes, x: Any, values: "pd.Series[Any]", colour: str, marker: str, label: str) -> None:
    axis.plot(x, values.to_numpy(dtype=float), color=colour, marker=marker, linestyle="none", label=label)


def reference_lines(axis: Axes, victims: pd.DataFrame, name: str, upright: bool = False) -> None:
    """The victim's own accuracy, and chance; upright where accuracy lies along x."""
    own = victims[victims["victim"] == name]
    top, chance = 100 * float(own["accuracy"].mean()), 100 * float(own["chance"].mean())
    line = axis.axvline if upright else axis.axhline
    line(top, color=GREY, linestyle="--", linewidth=1.2, label="the victim itself")
    line(chance, color=GREY, linestyle=":", linewidth=1.4, label="chance")


def _mark_thresholds(axis: Axes, thresholds: pd.DataFrame, victims: pd.DataFrame, name: str) -> None:
    """A ring on each curve where it first reaches half of the victim's accuracy."""
    half = 50 * float(victims[victims["victim"] == name]["accuracy"].mean())
    at = 100 * thresholds["keep"].dropna().to_numpy(dtype=float)
    style: dict[str, Any] = {
        "marker": "o",
        "markersize": 10,
        "markerfacecolor": "none",
        "linestyle": "none",
        "zorder": 5,
    }
    axis.plot(at, np.full(len(at), half), color="black", label="half of the victim's accuracy", **style)


def shares(axis: Axes, y_label: str) -> None:
    """Axes for accuracies in percent against shares of the blocks in percent."""
    axis.set_xlim(0, 103)
    _percent(axis, y_label)


def _percent(axis: Axes, y_label: str) -> None:
    axis.set_ylim(0, None)
    axis.set_ylabel(y_label)


def whole_numbers(axis: Axes, values: list[int]) -> None:
    """Ticks at the values that occur, written out."""
    axis.xaxis.set_major_locator(FixedLocator(sorted(float(value) for value in values)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())
