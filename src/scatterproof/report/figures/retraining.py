"""Attacks against retraining as a figure: accuracy against minutes, and where each attack is overtaken."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from scatterproof.analysis.breakeven import SOURCES, candidates
from scatterproof.analysis.control_results import FAILED, marked, with_controls
from scatterproof.analysis.crossing import crossing, envelope, mean_curves
from scatterproof.analysis.statistics import WITHIN
from scatterproof.analysis.threat_key import KEY, with_key
from scatterproof.config.attacks import NEEDS
from scatterproof.report.figures.base import COLOURS, GREY, MARKERS, finish, panels
from scatterproof.report.input_words import inputs
from scatterproof.report.sections.attacks import OF_LINE
from scatterproof.report.sections.searches import ATTACKS
from scatterproof.report.threat_words import besides
from scatterproof.report.words import setting, victim_label

_STYLES = {"own": ("black", 2.2), "recipe": ("#a05fc0", 1.2), "pirate": ("#8a6d1d", 1.6)}
_OVERTAKEN = "overtaken by retraining"
_RING: Any = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.4, "linestyle": "none", "zorder": 5}


def draw_retraining(
    retraining: pd.DataFrame,
    trajectory: pd.DataFrame | None,
    victims: pd.DataFrame,
    controls: pd.DataFrame,
    svg: Path,
) -> Path:
    """Accuracy on test images against minutes: the curves of retraining as bands, the attacks on top; a panel for each
    victim, block size, share held, defence and whatever else the threats differ in but images. Of each attack the kind
    that gets furthest is drawn; a ring marks where it is overtaken by a curve of retraining on the same device.
    """
    curves = mean_curves(retraining, trajectory)
    attacks = with_controls(curves[curves["what"] == "attack"], controls, "name")
    of = ["victim", "block_size", KEY, "keep"]
    parts: dict[str, tuple[str, pd.DataFrame]] = {
        setting(victim, size, keep, rows["threat"].iloc[0]) + besides(rows["threat"].iloc[0]): (str(victim), rows)
        for (victim, size, _, keep), rows in with_key(attacks, *OF_LINE).groupby(of, sort=True)
    }
    if not parts:
        parts = {victim_label(str(name)): (str(name), attacks[:0]) for name in sorted(curves["victim"].unique())}
    with panels(list(parts), svg, height=3.2) as axes:
        for title, axis in axes.items():
            victim, rows = parts[title]
            trainings = curves[(curves["victim"] == victim) & (curves["what"] != "attack")]
            own = victims[victims["victim"] == victim]
            _draw_trainings(axis, trainings)
            _draw_attacks(axis, rows, trainings, float(own["chance"].mean()) + WITHIN)
            for value, style, text in (("accuracy", "--", "the victim itself"), ("chance", ":", "chance")):
                axis.axhline(100 * float(own[value].mean()), color=GREY, linestyle=style, linewidth=1.0, label=text)
            axis.set_xscale("log")
            axis.set_ylim(0, 103 * max(float(own["accuracy"].mean()), float(curves["mean"].max())))
            axis.set_ylabel(f"best accuracy so far\non test {inputs()} (%)")
        finish(axes, "minutes of one device: training, or attack with its set-up")
    return svg


def _draw_trainings(axis: Axes, trainings: pd.DataFrame) -> None:
    """A band for each curve of retraining; on several devices, one of the same colour for each."""
    for source in _drawn(trainings):
        colour, width = _STYLES[source]
        for count, (_, same) in enumerate(candidates(trainings, source).groupby("device", sort=True)):
            x, mean, low, high = _columns(envelope(same))
            label = SOURCES[source].format(inputs()) if count == 0 else None
            axis.plot(x, mean, color=colour, drawstyle="steps-post", linewidth=width, label=label)
            axis.fill_between(x, low, high, step="post", color=colour, alpha=0.15, linewidth=0)


def _drawn(trainings: pd.DataFrame) -> list[str]:
    """The curves of retraining that there are trainings of."""
    return [source for source in _STYLES if (trainings["what"] == source).any()]


def _draw_attacks(axis: Axes, attacks: pd.DataFrame, trainings: pd.DataFrame, floor: float) -> None:
    """The furthest kind of each attack, dotted where it has ended; a ring where a curve of retraining overtakes it."""
    rings = []
    for (name, state), label, colour, marker in _styles(attacks):
        line = _furthest(attacks[(attacks["name"] == name) & (attacks["control"] == state)])
        x, mean, low, high = _columns(line)
        axis.plot(x, mean, color=colour, marker=marker, markersize=3, linewidth=1.3, label=label)
        axis.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        same = trainings[trainings["device"] == line["device"].iloc[0]]
        for source in _drawn(same):
            point = crossing(line, envelope(candidates(same, source)), floor)
            if point.ahead == "until":
                if point.minutes > x[-1]:
                    axis.plot(
                        [x[-1], point.minutes], [mean[-1]] * 2, color=colour, linestyle=(0, (1, 2)), linewidth=1.1
                    )
                rings.append((point, _STYLES[source][0]))
    for point, colour in rings:
        axis.plot(point.minutes, 100 * point.accuracy, "o", markeredgecolor=colour, label=_OVERTAKEN, **_RING)


def _columns(line: pd.DataFrame) -> tuple[Any, ...]:
    """Minutes, and mean and interval in percent."""
    minutes, *shares = (line[column].to_numpy(dtype=float) for column in ("minutes", "mean", "ci_low", "ci_high"))
    return (minutes, *(100 * share for share in shares))


def _furthest(attacks: pd.DataFrame) -> pd.DataFrame:
    """Of several kinds of one attack the one whose mean ends highest, the first to end if equal."""
    kinds = [kind for _, kind in attacks.groupby(["threat", "params", "device"], sort=True)]
    best: pd.DataFrame = max(kinds, key=lambda kind: (kind["mean"].iloc[-1], -kind["minutes"].iloc[-1]))
    return best


def _styles(attacks: pd.DataFrame) -> Iterator[tuple[tuple[str, str], str, str, str]]:
    """((attack, what its controls say), label, colour, marker) of each that occurs, the same in every study."""
    names = [name for name in NEEDS if NEEDS[name].role == "blocks"]
    looks = [(colour, marker) for marker in MARKERS for colour in COLOURS]
    for name, (colour, marker) in zip(names, looks, strict=False):
        for state in sorted(set(attacks[attacks["name"] == name]["control"])):
            shown = "x" if state.startswith(FAILED) else marker
            yield (name, state), marked(ATTACKS.get(name, name), state), colour, shown
