"""What the traffic gave away: the report's table, sentences and figure, computed from tables/stream.csv."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scatterproof.analysis.control_results import marked
from scatterproof.analysis.statistics import curve
from scatterproof.report.figures.base import COLOURS, GREY, LONG_LABEL, MARKERS, panels
from scatterproof.report.words import cases, cut, of_case, percent, percent_interval, setting, share, side, victim_label

CASE = ["victim", "block_size"]
SERVICE = [*CASE, "obfuscation", "params", "topology", "order", "observed_share", "keep", "labelled", "requests"]
SERVICE += ["control", "hijack"]
MEASURED = ("column_ari", "row_ari", "position_accuracy", "accuracy", "known_places_accuracy")
OVERHEADS = ("bandwidth_overhead", "latency_overhead")
TABLE_HEAD = ("victim", "block size", "obfuscation", "parameters", "topology, order", "links tapped", "devices held",
              "places leaked", "requests", "hijack", "column ARI", "row ARI", "bits left", "blocks placed", "accuracy",
              "the same blocks in their places", "bandwidth", "latency", "draws")  # fmt: skip
LEAKAGE, OVERHEAD = "leakage against overhead", "leakage against latency"
SHARE, REQUESTS, HELD = "share of the links tapped", "requests watched", "devices held"


def table_rows(stream: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row for each kind of service and hijack: means over victims and layouts [95 % interval]."""
    table = _repeated(stream)
    by_value = {value: _means(table, value) for value in (*MEASURED, "anonymity_bits", *OVERHEADS)}
    return [
        _row({value: rows[number] for value, rows in by_value.items()}) for number in range(len(by_value["accuracy"]))
    ]


def _row(means: dict[str, Any]) -> tuple[str, ...]:
    about = means["column_ari"]
    shares = ["" if np.isnan(means[value].mean) else percent_interval(means[value], "mean") for value in MEASURED[2:]]
    return (
        *(victim_label(about.victim), side(about.block_size), about.obfuscation, about.params),
        *(f"{about.topology}, {about.order}", share(about.observed_share), share(about.keep), str(about.labelled)),
        *(str(about.requests), marked(about.hijack, about.control), _index(about), _index(means["row_ari"])),
        *(f"{means['anonymity_bits'].mean:.2f}", *shares),
        *(f"{100 * means[value].mean:+.0f} %" for value in OVERHEADS),
        f"{about.seeds} x {about.repeats}",
    )


def _repeated(stream: pd.DataFrame) -> pd.DataFrame:
    """Layouts are the repeats of each victim seed."""
    return stream.assign(params=stream["params"].fillna("")).rename(columns={"seed": "repeat"})


def _means(table: pd.DataFrame, value: str) -> list[Any]:
    """Of each kind of service the mean of a value, NaN where it was not measured."""
    kinds = table.drop_duplicates(SERVICE)[SERVICE]
    measured = table[table[value].notna()]
    means = curve(measured, SERVICE[:-1], SERVICE[-1], value)
    return list(kinds.merge(means.astype(kinds.dtypes), on=SERVICE, how="left").itertuples(index=False))


def _index(row: Any) -> str:
    bounds = "" if np.isnan(row.ci_low) else f" [{row.ci_low:.2f}, {row.ci_high:.2f}]"
    return f"{row.mean:.2f}{bounds}"


def sentences(stream: pd.DataFrame) -> list[str]:
    """What the plain service gives away, what hiding it leaves, and what a pirate with blocks makes of it; for each
    victim and block size.

    stream: `tables/stream.csv` with `control`, the state of each row's hijack.
    """
    table = _repeated(stream)
    texts = []
    for case in cases(table):
        here = of_case(table, case)
        texts += [_grouped(rows) for rows in _plain(here)]
        texts += [_hidden(rows) for _, rows in _most_watched(here).groupby(["obfuscation", "params"], sort=False)]
    held = table[(table["keep"] > 0) & (table["hijack"] == "adaptive") & (table["obfuscation"] == "none")]
    held = held[held["labelled"] == 0]
    of = [*CASE, "topology", "order", "keep", "observed_share", "requests", "control"]
    for (victim, size, topology, order, keep, observed, requests, control), rows in held.groupby(of, sort=False):
        texts.append(
            f"{setting(victim, size, keep)} with their devices and {share(observed)} of the links tapped ({topology}, "
            f"sent in {order} order), {_requests_text(requests)}: the {marked('adaptive hijack', str(control))} puts "
            f"{percent(rows['position_accuracy'].mean())} of these blocks in their places and reaches "
            f"{percent(rows['accuracy'].mean())} accuracy; with every place known they reach "
            f"{percent(rows['known_places_accuracy'].mean())}. {_draws(rows)}"
        )
    return texts


def _requests_text(count: Any) -> str:
    return f"{count} request{'' if int(count) == 1 else 's'}"


def _plain(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The plain service seen whole, metadata alone, from the fewest requests: once for each topology and order."""
    rows = table[(table["obfuscation"] == "none") & (table["keep"] == 0) & (table["observed_share"] == 1)]
    rows = rows[(rows["hijack"] == "adaptive") & (rows["labelled"] == 0)]
    groups = [here for _, here in rows.groupby(["topology", "order"], sort=False)]
    return [here[here["requests"] == here["requests"].min()] for here in groups]


def _grouped(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"{setting(first['victim'], first['block_size'], 0)}, nothing hidden ({first['topology']}, sent in "
        f"{first['order']} order), every link tapped, {_requests_text(first['requests'])}: by the "
        f"{marked('adaptive hijack', first['control'])} columns are grouped with an adjusted Rand index of "
        f"{rows['column_ari'].mean():.2f}, rows {rows['row_ari'].mean():.2f}. {_draws(rows)}"
    )


def _hidden(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"{setting(first['victim'], first['block_size'], 0)}, {first['obfuscation']} ({first['params']}), every link "
        f"tapped, after {_requests_text(first['requests'])}: the {marked('adaptive hijack', first['control'])}, which "
        f"knows of it, groups columns with an index of {rows['column_ari'].mean():.2f}, rows "
        f"{rows['row_ari'].mean():.2f}, for "
        f"{100 * rows['bandwidth_overhead'].mean():+.0f} % bytes and {100 * rows['latency_overhead'].mean():+.0f} % "
        f"latency. {_draws(rows)}"
    )


def _draws(rows: pd.DataFrame) -> str:
    count = rows[["victim_seed", "repeat"]].drop_duplicates().shape[0]
    return f"Mean of {count} draw{'s' if count > 1 else ''}."


def _most_watched(table: pd.DataFrame, hijack: str = "adaptive") -> pd.DataFrame:
    """Each obfuscation against metadata alone, every link tapped, at the most requests watched."""
    rows = table[(table["obfuscation"] != "none") & (table["keep"] == 0) & (table["observed_share"] == 1)]
    rows = rows[(rows["hijack"] == hijack) & (rows["labelled"] == 0) & (rows["topology"] == "sources")]
    return rows[rows["requests"] == rows.groupby(["obfuscation", "params"])["requests"].transform("max")]


def draw_stream(stream: pd.DataFrame, svg: Path) -> Path:
    """Leakage (mean of the two indices) against overhead, share tapped and requests; accuracy against devices held; a
    panel for each victim and block size."""
    table = _repeated(stream)
    table = table.assign(leakage=(table["column_ari"] + table["row_ari"]) / 2)
    titles = {
        f"{cut(*case)}: {title}": (title, of_case(table, case))
        for case in cases(table)
        for title in _titles(of_case(table, case))
    }
    with panels(list(titles), svg, height=4.2, share_x=False) as axes:
        for shown, axis in axes.items():
            title, rows = titles[shown]
            DRAWN[title](axis, rows)
            longest = max(map(len, axis.get_legend_handles_labels()[1]), default=0)
            columns = 1 if longest > LONG_LABEL else 2
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=columns, fontsize=7)
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
        rows, named = _most_watched(table, hijack), set()
        for (obfuscation, _), here in rows.groupby(["obfuscation", "params"], sort=False):
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
    axis.set_xlabel("bytes beyond the plain service's (%)" if column.startswith("band") else "latency beyond it (%)")
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
    for number, ((obfuscation, params), here) in enumerate(rows.groupby(["obfuscation", "params"], sort=False)):
        if len(set(here["requests"])) > 1:
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]
            line = curve(here, [], "requests", "leakage")
            label = f"{obfuscation} {params}".strip()  # long already: what all have in common stands below the axis
            label = label if len(states) == 1 else marked(label, here["control"].iloc[0])
            _line(axis, line, "requests", 1, colour, marker, label)
    axis.set_xscale("log")
    axis.set_xlabel(f"requests watched by the {marked('adaptive hijack', states[0] if len(states) == 1 else '')}")
    _index_axis(axis)


def _held(axis: Axes, table: pd.DataFrame) -> None:
    """Accuracy of what the owner of some devices puts together, beside the same blocks in their places."""
    rows = table[(table["keep"] > 0) & (table["obfuscation"] == "none") & (table["labelled"] == 0)]
    kinds = rows[rows["hijack"].isin(["adaptive", "matching"])].groupby(["topology", "hijack", "control"], sort=False)
    for number, ((topology, hijack, control), here) in enumerate(kinds):
        style = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        label = f"{topology}, {marked(str(hijack), str(control))}"
        _line(axis, _percents(curve(here, [], "keep", "accuracy")), "keep", 100, *style, label)
    known = curve(rows, [], "keep", "known_places_accuracy")
    at, mean = (100 * known[column].to_numpy(dtype=float) for column in ("keep", "mean"))
    axis.plot(at, mean, color=GREY, marker="x", label="places known")
    axis.set_xlabel("devices held (%)")
    axis.set_xlim(0, 103)
    axis.set_ylim(0, None)
    axis.set_ylabel("accuracy on test images (%)")


def _percents(line: pd.DataFrame) -> pd.DataFrame:
    return line.assign(**{name: 100 * line[name] for name in ("mean", "ci_low", "ci_high")})


DRAWN: dict[str, Callable[[Axes, pd.DataFrame], None]] = {
    LEAKAGE: lambda axis, rows: _scatter(axis, rows, "bandwidth_overhead"),
    OVERHEAD: lambda axis, rows: _scatter(axis, rows, "latency_overhead"),
    SHARE: _shares,
    REQUESTS: _requests,
    HELD: _held,
}
