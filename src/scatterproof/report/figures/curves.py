"""What a pirate's images are worth to it: accuracy against their number, attack by attack, as a figure."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from scatterproof.analysis.control_results import marked
from scatterproof.analysis.statistics import curve
from scatterproof.analysis.threat_key import with_key
from scatterproof.config.attacks import NOTHING
from scatterproof.config.settings.base import TAUGHT
from scatterproof.config.threat import knows_of
from scatterproof.report.figures.base import COLOURS, GREY, MARKERS, finish, panels, reference_lines, whole_numbers
from scatterproof.report.input_words import accuracy_label, inputs
from scatterproof.report.sections.attacks import CASE, final
from scatterproof.report.sections.leaderboard import REPORTED
from scatterproof.report.threat_words import besides, known_of
from scatterproof.report.words import setting, threat_cases

KIND = ["role", "attack", "control"]
LINES = {"withheld": "-", "blocks": "--"}
WITH = {"withheld": "without the blocks", "blocks": "from the blocks"}


def taught(attacks: pd.DataFrame) -> pd.DataFrame:
    """Of the attacks what counts where something is known of the images, at the largest share held; with the key of the
    threats, whatever share and images they grant."""
    last = with_key(final(attacks), "share", "images")
    last = last[last["knows"].isin(TAUGHT) & last["role"].isin(LINES) & (last["attack"] != NOTHING)]
    return last[last["keep"] == last.groupby(CASE)["keep"].transform("max")]


def draw_curves(attacks: pd.DataFrame, victims: pd.DataFrame, svg: Path) -> Path:
    """A line for each attack with its 95 % band over victim seeds; a panel for each victim, block size, what is known
    and whatever else the threats differ in. Published figures are of another, wider victim: they are drawn at the same
    share of this one's accuracy."""
    every = taught(attacks).assign(repeat=0)
    styles = dict(_styles(every))
    titles = {_title(name, size, threat, rows): rows for name, size, threat, rows in threat_cases(every)}
    with panels(list(titles), svg, height=3.4) as axes:
        for title, axis in axes.items():
            rows = titles[title]
            name = rows["victim"].iloc[0]
            reference_lines(axis, victims, name)
            lines = curve(rows, KIND, x="images").groupby(KIND, sort=False)
            for (role, attack, control), line in lines:
                label = f"{marked(str(attack), str(control))}, {WITH[str(role)]}"
                _draw(axis, line, *styles[str(attack)], LINES[str(role)], label)
            if rows["knows"].iloc[0] == "logits":
                _draw_reported(axis, float(victims[victims["victim"] == name]["accuracy"].mean()), styles)
            axis.set_ylim(0, None)
            axis.set_ylabel(accuracy_label())
            axis.set_xscale("log")
        if axes:
            shown = {*every["images"].astype(int), *_reported_images(every)}
            whole_numbers(list(axes.values())[-1], sorted(shown))
        finish(axes, f"{inputs()} that the pirate holds")
    return svg


def _title(name: str, size: int, threat: str, rows: pd.DataFrame) -> str:
    where = setting(name, size, rows["keep"].iloc[0], threat)
    return f"{where}{besides(threat)}: {known_of(knows_of(threat))}"


def _styles(rows: pd.DataFrame) -> Iterator[tuple[str, tuple[str, str]]]:
    """(attack, (colour, marker)), those without the blocks first."""
    order = rows.sort_values(["role", "attack"], ascending=[False, True])["attack"]
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


def _reported_images(rows: pd.DataFrame) -> list[int]:
    shown = (rows["knows"] == "logits").any()
    return [each.images for each in REPORTED if each.images] if shown else []
