"""What a pirate's images are worth to it: accuracy against their number, attack by attack, as a figure."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes

from scatterproof.analysis.control_results import marked
from scatterproof.analysis.statistics import curve
from scatterproof.analysis.threat_key import with_key
from scatterproof.config.attacks import NOTHING
from scatterproof.config.settings.base import TAUGHT
from scatterproof.config.threat import knows_of
from scatterproof.report.figures.base import finish, panels, reference_lines, whole_numbers
from scatterproof.report.figures.looks import look_of
from scatterproof.report.input_words import accuracy_label, inputs
from scatterproof.report.sections.attacks import CASE, final
from scatterproof.report.sections.leaderboard import REPORTED
from scatterproof.report.threat_words import besides, known_of
from scatterproof.report.words import setting, threat_cases

KIND = ["role", "attack", "control"]
NARROW = 32  # characters of a title beside names
LINES = {"withheld": "-", "blocks": "--"}
WITH = {"withheld": "without the blocks", "blocks": "from the blocks"}


def taught(attacks: pd.DataFrame) -> pd.DataFrame:
    """Of the attacks what counts where something is known of the images, at the largest share held; with the key of the
    threats, whatever share and images they grant."""
    last = with_key(final(attacks), "share", "images")
    last = last[last["knows"].isin(TAUGHT) & last["role"].isin(LINES) & (last["attack"] != NOTHING)]
    return last[last["keep"] == last.groupby(CASE)["keep"].transform("max")]


def draw_curves(attacks: pd.DataFrame, victims: pd.DataFrame, svg: Path) -> Path:
    """Accuracy of each attack by the images held, with 95 % intervals over victim seeds; a panel for each victim, block
    size, what is known and whatever else the threats differ in. Lines, or where no panel has two numbers of images a
    point an attack, named beside it."""
    every = taught(attacks).assign(repeat=0)
    titles = {_title(name, size, threat, rows): rows for name, size, threat, rows in threat_cases(every)}
    if titles and all(len(set(rows["images"])) == 1 for rows in titles.values()):
        return _draw_points(titles, victims, svg)
    return _draw_lines(titles, victims, svg)


def _draw_lines(titles: Mapping[str, pd.DataFrame], victims: pd.DataFrame, svg: Path) -> Path:
    """Published figures are of another, wider victim: they are drawn at the same share of this one's accuracy."""
    with panels(list(titles), svg, height=3.4) as axes:
        for title, axis in axes.items():
            rows = titles[title]
            name = rows["victim"].iloc[0]
            reference_lines(axis, victims, name)
            lines = curve(rows, KIND, x="images").groupby(KIND, sort=False)
            for (role, attack, control), line in lines:
                label = f"{marked(str(attack), str(control))}, {WITH[str(role)]}"
                _draw(axis, line, *look_of(str(attack)), LINES[str(role)], label)
            if rows["knows"].iloc[0] == "logits":
                _draw_reported(axis, float(victims[victims["victim"] == name]["accuracy"].mean()))
            axis.set_ylim(0, None)
            axis.set_ylabel(accuracy_label())
            axis.set_xscale("log")
        if axes:
            each = titles.values()
            shown = {count for rows in each for count in (*rows["images"].astype(int), *_reported_images(rows))}
            whole_numbers(list(axes.values())[-1], sorted(shown))
        finish(axes, f"{inputs()} that the pirate holds")
    return svg


def _draw_points(titles: Mapping[str, pd.DataFrame], victims: pd.DataFrame, svg: Path) -> Path:
    """The best at the top, filled where an attack has the blocks. Published figures are of other numbers of images."""
    kinds = {title: curve(rows, KIND, x="images").sort_values("mean") for title, rows in titles.items()}
    named = {_counted(title, titles[title]): (titles[title], kind) for title, kind in kinds.items()}
    height = 0.3 * max(map(len, kinds.values())) + 0.7
    with panels(list(named), svg, height) as axes:
        for title, axis in axes.items():
            rows, means = named[title]
            reference_lines(axis, victims, rows["victim"].iloc[0], upright=True)
            axis.set_title(fill(title, NARROW))  # names stand where a title would begin
            labels = []
            for at, row in enumerate(means.itertuples(index=False)):
                colour, marker = look_of(str(row.attack))
                labels.append(f"{marked(str(row.attack), str(row.control))}, {WITH[str(row.role)]}")
                mean, low, high = (100 * float(str(value)) for value in (row.mean, row.ci_low, row.ci_high))
                face = colour if row.role == "blocks" else "white"
                axis.plot([mean], [at], marker=marker, color=colour, markerfacecolor=face, linestyle="none")
                if not isnan(low):
                    axis.plot([low, high], [at, at], color=colour, linewidth=1.2, zorder=1)
            axis.set_yticks(range(len(labels)), labels, fontsize=8)
            axis.set_ylim(-0.6, len(labels) - 0.4)
            axis.set_xlim(0, 103)
        finish(axes, accuracy_label())
    return svg


def _counted(title: str, rows: pd.DataFrame) -> str:
    """With the number of images, which all rows have, and of victims."""
    known = known_of(str(rows["knows"].iloc[0]))
    count = rows["victim_seed"].nunique()
    return title.removesuffix(known) + f"{int(rows['images'].iloc[0]):,} {known}, {count} victim{'s' * (count > 1)}"


def _title(name: str, size: int, threat: str, rows: pd.DataFrame) -> str:
    where = setting(name, size, rows["keep"].iloc[0], threat)
    return f"{where}{besides(threat)}: {known_of(knows_of(threat))}"


def _draw(axis: Axes, line: pd.DataFrame, colour: str, marker: str, style: str, label: str) -> None:
    at = line["images"].to_numpy(dtype=float)
    mean, low, high = (100 * line[column].to_numpy(dtype=float) for column in ("mean", "ci_low", "ci_high"))
    axis.plot(at, mean, color=colour, marker=marker, linestyle=style, label=label)
    axis.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)


def _draw_reported(axis: Axes, own: float) -> None:
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
                color=look_of(kin)[0],
                label=f"{kin}, reported (No Privacy Left Outside)",
            )


def _reported_images(rows: pd.DataFrame) -> list[int]:
    shown = (rows["knows"] == "logits").any()
    return [each.images for each in REPORTED if each.images] if shown else []
