"""What the traffic gave away as a figure: leakage against what hiding costs, and by what the pirate sees and owns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from scatterproof.analysis.control_results import marked
from scatterproof.analysis.statistics import curve
from scatterproof.report.figures.base import COLOURS, GREY, LONG_LABEL, MARKERS, panels
from scatterproof.report.input_words import accuracy_label
from scatterproof.report.sections.stream import HIDDEN, most_watched, ordered, repeated, requests_text
from scatterproof.report.words import cases, cut, of_case, share

HOLDING = ["topology", "order", "observed_share", "requests", "hijack", "control"]
LEAKAGE, OVERHEAD = "leakage against overhead", "leakage against latency"
SHARE, REQUESTS, HELD = "share of the links tapped", "requests watched", "devices held"


def draw_stream(stream: pd.DataFrame, svg: Path) -> Path:
    """Leakage (mean of the two indices) against overhead, share tapped and requests; accuracy against devices held; a
    panel for each victim and block size."""
    table = repeated(stream)
    table = table.assign(leakage=(table["column_ari"] + table["row_ari"]) / 2)
    titles = {
        f"{cut(*case)}: {title}": (title, of_case(table, case))
        for case in cases(table)
        for title in _titles(of_case(table, case))
    }
    with panels(list(titles), svg, height=3.2, share_x=False) as axes:
        for shown, axis in axes.items():
            title, rows = titles[shown]
            DRAWN[title](axis, rows)
            if title == OVERHEAD:  # the points of the panel above
                continue
            longest = max(map(len, axis.get_legend_handles_labels()[1]), default=0)
            columns = 1 if longest > LONG_LABEL else 2
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=columns, fontsize=7)
    return svg


def _titles(table: pd.DataFrame) -> list[str]:
    """The panels for which the study has more than one point."""
    bare = table[(table["keep"] == 0) & (table["labelled"] == 0)]
    several = {
        LEAKAGE: len(set(bare["obfuscation"])) > 1,
        OVERHEAD: len(set(bare["obfuscation"])) > 1,
        SHARE: len(set(bare[bare["obfuscation"] == "none"]["observed_share"])) > 1,
        REQUESTS: bare.groupby(["obfuscation", "params"])["requests"].nunique().max() > 1 if len(bare) else False,
        HELD: bool((table["keep"] > 0).any()),
    }
    return [title for title, shown in several.items() if shown]


def _colour(obfuscation: str, all_of_them: list[str]) -> tuple[str, str]:
    number = all_of_them.index(obfuscation)
    turn = number // len(COLOURS)  # beyond six a colour comes back with another marker
    return COLOURS[number % len(COLOURS)], MARKERS[(number + turn) % len(MARKERS)]


def _obfuscations(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table["obfuscation"]))


def _scatter(axis: Axes, table: pd.DataFrame, column: str) -> None:
    """A point for each parameter of each obfuscation at the most requests; open: a hijack that does not know of it."""
    for hijack, filled in (("adaptive", True), ("naive", False)):
        rows, named = most_watched(table, hijack), set()
        for (obfuscation, *_), here in rows.groupby(HIDDEN, sort=False):
            colour, marker = _colour(str(obfuscation), _obfuscations(table))
            axis.plot(
                100 * here[column].mean(),
                here["leakage"].mean(),
                *(marker,),
                color=colour,
                markerfacecolor=colour if filled else "none",
                linestyle="none",
                label=None if obfuscation in named else f"{obfuscation}, {marked(hijack, here['control'].iloc[0])}",
            )
            named.add(obfuscation)
    axis.set_xscale("symlog", linthresh=10)
    axis.set_xlabel(
        "bytes beyond the plain service's (%)"
        if column.startswith("band")
        else "latency beyond it, points as above (%)"
    )
    _index_axis(axis)


def _index_axis(axis: Axes) -> None:
    axis.set_ylim(-0.05, 1.05)
    axis.set_ylabel("adjusted Rand index")


def _line(axis: Axes, line: pd.DataFrame, x: str, scale: float, colour: str, marker: str, label: str) -> None:
    at = scale * line[x].to_numpy(dtype=float)
    mean, low, high = (line[name].to_numpy(dtype=float) for name in ("mean", "ci_low", "ci_high"))
    axis.plot(at, mean, color=colour, marker=marker, label=label)
    axis.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


def _shares(axis: Axes, table: pd.DataFrame) -> None:
    """Columns and rows of the plain service by the share of links tapped, metadata alone."""
    rows = table[(table["obfuscation"] == "none") & (table["keep"] == 0) & (table["topology"] == "sources")]
    rows = rows[(rows["hijack"] == "adaptive") & (rows["labelled"] == 0) & (rows["order"] == "random")]
    rows = rows[rows["requests"] == rows["requests"].max()]
    for number, (value, label) in enumerate(
        (("column_ari", "columns, nothing hidden"), ("row_ari", "rows, nothing hidden"))
    ):
        _line(
            axis,
            curve(rows, [], "observed_share", value),
            "observed_share",
            100,
            COLOURS[number],
            MARKERS[number],
            label,
        )
    axis.set_xlabel("share of the links tapped (%)")
    axis.set_xlim(0, 103)
    _index_axis(axis)


def _requests(axis: Axes, table: pd.DataFrame) -> None:
    """Each obfuscation that was watched for several numbers of requests, by an adaptive hijack."""
    rows = table[(table["keep"] == 0) & (table["observed_share"] == 1) & (table["hijack"] == "adaptive")]
    rows = rows[(rows["labelled"] == 0) & (rows["topology"] == "sources")]
    states = sorted(set(rows["control"]))
    for number, ((obfuscation, params, order), here) in enumerate(rows.groupby(HIDDEN, sort=False)):
        if len(set(here["requests"])) > 1:
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]
            line = curve(here, [], "requests", "leakage")
            label = f"{obfuscation} {params}".strip() + ordered(
                order
            )  # long already: what all have in common stands below the axis
            label = label if len(states) == 1 else marked(label, here["control"].iloc[0])
            _line(axis, line, "requests", 1, colour, marker, label)
    axis.set_xscale("log")
    axis.set_xlabel(f"requests watched by the {marked('adaptive hijack', states[0] if len(states) == 1 else '')}")
    _index_axis(axis)


def _held(axis: Axes, table: pd.DataFrame) -> None:
    """Accuracy of what the owner of some devices puts together, beside the same blocks in their places."""
    rows = table[(table["keep"] > 0) & (table["obfuscation"] == "none") & (table["labelled"] == 0)]
    kinds = rows[rows["hijack"].isin(["adaptive", "matching"])]
    several = [column for column in HOLDING[1:4] if len(set(kinds[column])) > 1]
    for number, (_, here) in enumerate(kinds.groupby(HOLDING, sort=False)):
        style = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        label = _holder(here.iloc[0], several)
        _line(axis, _percents(curve(here, [], "keep", "accuracy")), "keep", 100, *style, label)
    known = curve(rows, [], "keep", "known_places_accuracy")
    at, mean = (100 * known[column].to_numpy(dtype=float) for column in ("keep", "mean"))
    axis.plot(at, mean, color=GREY, marker="x", label="places known")
    axis.set_xlabel("devices held (%)")
    axis.set_xlim(0, 103)
    axis.set_ylim(0, None)
    axis.set_ylabel(accuracy_label())


def _holder(row: "pd.Series[Any]", several: list[str]) -> str:
    """A hijack by who owns devices, in words; several: of what it sees, that which others see otherwise."""
    words = {
        "order": f", sent in {row['order']} order",
        "observed_share": f", {share(row['observed_share'])} of the links",
        "requests": f", {requests_text(row['requests'])}",
    }
    return f"{row['topology']}, {marked(row['hijack'], row['control'])}" + "".join(words[each] for each in several)


def _percents(line: pd.DataFrame) -> pd.DataFrame:
    return line.assign(**{name: 100 * line[name] for name in ("mean", "ci_low", "ci_high")})


DRAWN: dict[str, Callable[[Axes, pd.DataFrame], None]] = {
    LEAKAGE: lambda axis, rows: _scatter(axis, rows, "bandwidth_overhead"),
    OVERHEAD: lambda axis, rows: _scatter(axis, rows, "latency_overhead"),
    SHARE: _shares,
    REQUESTS: _requests,
    HELD: _held,
}
