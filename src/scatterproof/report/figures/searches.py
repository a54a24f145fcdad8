"""The searches as figures: best fitness against evaluations, and test accuracy against minutes."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from scatterproof.analysis.statistics import curve, kinds
from scatterproof.analysis.threat_key import KEY, with_key
from scatterproof.report.figures.base import COLOURS, GREY, MARKERS, finish, panels
from scatterproof.report.input_words import accuracy_label, inputs
from scatterproof.report.sections.searches import ATTACKS, FITNESS, OF_PANEL, aligned, label, searched

PANEL = ["victim", "block_size", KEY, "keep", "fitness"]


def draw_search(search: pd.DataFrame, svg: Path) -> Path:
    """Best fitness so far against evaluations; a panel for each victim, threat and fitness, at one budget."""
    shown = _comparable(search)
    parts = {_title(rows): rows for _, rows in shown.groupby(PANEL, sort=True)}
    with panels(list(parts), svg, height=2.7) as axes:
        for title, axis in axes.items():
            rows = parts[title]
            by_accuracy = rows["fitness"].iloc[0] == "accuracy"
            factor = 100 if by_accuracy else 1
            for (text, colour, marker), line in _lines(rows):
                means = curve(line, [], "evaluations", "best_fitness")
                _band(axis, means["evaluations"], means, factor, colour, marker, text)
            axis.set_xscale("log")
            axis.set_ylabel(
                f"best accuracy on the\npirate's {inputs()} (%)" if by_accuracy else "best minus cross-entropy"
            )
        finish(axes, "evaluations")
    return svg


def draw_trajectory(search: pd.DataFrame, victims: pd.DataFrame, retraining: float, svg: Path) -> Path:
    """Accuracy on test images against minutes of search; a panel for each victim, threat and fitness."""
    shown = _comparable(search)
    parts = {_title(rows): rows for _, rows in shown.groupby(PANEL, sort=True)}
    with panels(list(parts), svg, height=2.7) as axes:
        for title, axis in axes.items():
            rows = parts[title]
            for (text, colour, marker), line in _lines(rows):
                means = curve(line, [], "evaluations", "accuracy")
                minutes = line.groupby("evaluations")["device_minutes"].mean()
                _band(axis, means["evaluations"].map(minutes), means, 100, colour, marker, text)
            own = victims[victims["victim"] == rows["victim"].iloc[0]]
            for value, style, text in (("accuracy", "--", "the victim itself"), ("chance", ":", "chance")):
                axis.axhline(100 * float(own[value].mean()), color=GREY, linestyle=style, linewidth=1.2, label=text)
            if retraining > 0:
                axis.axvline(retraining, color="black", linewidth=1.2, label="training one victim")
            axis.set_xscale("log")
            axis.set_ylim(0, None)
            axis.set_ylabel(accuracy_label())
        finish(axes, "minutes of search, set-up included")
    return svg


def _comparable(search: pd.DataFrame) -> pd.DataFrame:
    """For each victim, threat and fitness the images and budget that most kinds of search have, the larger if equal;
    the others are in the table. Runs of a kind stand at the same evaluations."""
    search, means = with_key(search, *OF_PANEL), ["images", "budget"]
    counted = kinds(search).drop_duplicates([*PANEL, *means, "attack", "population"])
    counted = counted.groupby([*PANEL, *means], as_index=False).size()
    chosen = counted.sort_values(["size", *means]).groupby(PANEL, as_index=False).tail(1)
    return aligned(search.merge(chosen[[*PANEL, *means]], on=[*PANEL, *means]))


def _title(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    where = searched(*first[["victim", "block_size", "keep", "threat"]])
    return f"{where}, by {FITNESS[str(first['fitness'])]}"


def _lines(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """(label, colour, marker) and rows of each attack; of the genetic search the smallest and largest population."""
    populations = sorted({int(text) for text in rows["population"] if text})
    styles = iter(zip(COLOURS, MARKERS, strict=True))
    for attack in ATTACKS:
        shown = dict.fromkeys([populations[0], populations[-1]]) if attack == "genetic" and populations else [None]
        for population in shown:
            text = "" if population is None else str(population)
            line = rows[(rows["attack"] == attack) & (rows["population"] == text)]
            colour, marker = next(styles)
            if len(line):
                yield (label(attack, text, line["control"].iloc[0]), colour, marker), line


def _band(
    axis: Axes, x: "pd.Series[float]", means: pd.DataFrame, factor: float, colour: str, marker: str, text: str
) -> None:
    mean, low, high = (factor * means[column].to_numpy(dtype=float) for column in ("mean", "ci_low", "ci_high"))
    at = x.to_numpy(dtype=float)
    axis.plot(at, mean, color=colour, marker=marker, markersize=3, linewidth=1.3, label=text)
    axis.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
