"""What a pirate's images are worth to it: accuracy against their number, attack by attack, as a figure."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from scatterproof.analysis.control_results import marked
from scatterproof.analysis.statistics import curve
from scatterproof.config.attacks import NOTHING
from scatterproof.config.settings.base import TAUGHT
from scatterproof.report.figures.base import COLOURS, GREY, MARKERS, finish, panels, reference_lines, whole_numbers
from scatterproof.report.sections.attacks import final
from scatterproof.report.sections.leaderboard import REPORTED
from scatterproof.report.words import cases, of_case, setting

KNOWN = {"labels": "labelled images", "logits": "images with the victim's logits"}
PANEL = ["victim", "block_size", "knows"]
LINES = {"withheld": "-", "blocks": "--"}
WITH = {"withheld": "without the blocks", "blocks": "from the blocks"}


def taught(attacks: pd.DataFrame) -> pd.DataFrame:
    """Of the attacks what counts where something is known of the images, at the largest share held."""
    last = final(attacks)
    last = last[last["knows"].isin(TAUGHT) & last["role"].isin(LINES) & (last["attack"] != NOTHING)]
    return last[last["keep"] == last.groupby(["victim", "block_size"])["keep"].transform("max")]


def draw_curves(attacks: pd.DataFrame, victims: pd.DataFrame, svg: Path) -> Path:
    """A line for each attack with its 95 % band over victim seeds; a panel for each victim, block size and what is
    known. Published figures are of another, wider victim: they are drawn at the same share of this one's accuracy."""
    rows = taught(attacks).assign(repeat=0)
    means = curve(rows, [*PANEL, "role", "attack", "control"], x="images")
    styles = dict(_styles(means))
    titles = {
        f"{setting(*case, of_case(rows, case)['keep'].iloc[0])}: {text}": (case, knows)
        for case in cases(rows)
        for knows, text in KNOWN.items()
        if (of_case(means, case)["knows"] == knows).any()
    }
    with panels(list(titles), svg, height=3.4) as axes:
        for title, axis in axes.items():
            case, knows = titles[title]
            name = case[0]
            reference_lines(axis, victims, name)
            here = of_case(means, case)
            lines = here[here["knows"] == knows].groupby(["role", "attack", "control"], sort=False)
            for (role, attack, control), line in lines:
                label = f"{marked(str(attack), str(control))}, {WITH[str(role)]}"
                _draw(axis, line, *styles[str(attack)], LINES[str(role)], label)
            if knows == "logits":
                _draw_reported(axis, float(victims[victims["victim"] == name]["accuracy"].mean()), styles)
            axis.set_ylim(0, None)
            axis.set_ylabel("accuracy on test images (%)")
            axis.set_xscale("log")
        if axes:
            whole_numbers(list(axes.values())[-1], sorted({*means["images"].astype(int), *_reported_images(titles)}))
        finish(axes, "images that the pirate holds")
    return svg


def _styles(means: pd.DataFrame) -> Iterator[tuple[str, tuple[str, str]]]:
    """(attack, (colour, marker)), those without the blocks first."""
    order = means.sort_values(["role", "attack"], ascending=[False, True])["attack"]
    looks = [(colour, marker) for turn in range(len(MARKERS)) for colour, marker in _turned(turn)]
    for attack, look in zip(dict.fromkeys(order), looks, strict=False):
        yield str(attack), look


def _turned(turn: int) -> Iterator[tuple[str, str]]:
    """Every colour with a marker; in another turn with another one."""
    return zip(COLOURS, MARKERS[turn:] + MARKERS[:turn], strict=False)


def _draw(axis: Axes, line: pd.DataFrame, colour: str, marker: str, style: str, label: str) -> None:
    at = line["images"].to_numpy(dtype=float)
    mean, low, high = (100 * line[column].to_numpy(dtype=float) for column in ("mean", "ci_low", "ci_high"))
    axis.plot(at, mean, color=colour, marker=marker, linestyle=style, label=label)
    axis.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)


def _draw_reported(axis: Axes, own: float, styles: dict[str, tuple[str, str]]) -> None:
    for kin in dict.fromkeys(each.kin for each in REPORTED):
        points = [each for each in REPORTED if each.kin == kin and each.images and each.whole]
        if points:
            shares = [100 * own * each.reached / each.whole for each in points if each.whole]
            axis.plot(
                [float(each.images or 0) for each in points],
                shares,
                marker="*",
                markersize=10,
                linestyle=":",
                linewidth=1,
                markerfacecolor="none",
                color=styles[kin][0] if kin in styles else GREY,
                label=f"{kin}, reported (No Privacy Left Outside)",
            )


def _reported_images(titles: dict[str, tuple[tuple[str, int], str]]) -> list[int]:
    shown = any(knows == "logits" for _, knows in titles.values())
    return [each.images for each in REPORTED if each.images] if shown else []
