"""What the traffic gave away: the report's table and sentences, computed from tables/stream.csv."""

from typing import Any

import numpy as np
import pandas as pd

from scatterproof.analysis.control_results import marked
from scatterproof.analysis.statistics import curve
from scatterproof.report.words import cases, of_case, percent, percent_interval, setting, share, side, victim_label

CASE = ["victim", "block_size"]
SERVICE = [*CASE, "obfuscation", "params", "topology", "order", "observed_share", "keep", "labelled", "requests"]
SERVICE += ["control", "hijack"]
HIDDEN = ["obfuscation", "params", "order"]  # of services by sources alone
MEASURED = ("column_ari", "row_ari", "position_accuracy", "accuracy", "known_places_accuracy")
OVERHEADS = ("bandwidth_overhead", "latency_overhead")
TABLE_HEAD = ("victim", "block size", "obfuscation", "parameters", "topology, order", "links tapped", "devices held",
              "places leaked", "requests", "hijack", "column ARI", "row ARI", "bits left", "blocks placed", "accuracy",
              "the same blocks in their places", "bandwidth", "latency", "draws")  # fmt: skip
MAIN = ("obfuscation", "requests", "hijack", "column ARI", "accuracy")


def table_rows(stream: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row for each kind of service and hijack: means over victims and layouts [95 % interval]."""
    table = repeated(stream)
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


def repeated(stream: pd.DataFrame) -> pd.DataFrame:
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
    table = repeated(stream)
    texts = []
    for case in cases(table):
        here = of_case(table, case)
        texts += [_grouped(rows) for rows in _plain(here)]
        texts += [_hidden(rows) for _, rows in most_watched(here).groupby(HIDDEN, sort=False)]
    held = table[(table["keep"] > 0) & (table["hijack"] == "adaptive") & (table["obfuscation"] == "none")]
    held = held[held["labelled"] == 0]
    of = [*CASE, "topology", "order", "keep", "observed_share", "requests", "control"]
    for (victim, size, topology, order, keep, observed, requests, control), rows in held.groupby(of, sort=False):
        texts.append(
            f"{setting(victim, size, keep)} with their devices and {share(observed)} of the links tapped ({topology}, "
            f"sent in {order} order), {requests_text(requests)}: the {marked('adaptive hijack', str(control))} puts "
            f"{percent(rows['position_accuracy'].mean())} of these blocks in their places and reaches "
            f"{percent(rows['accuracy'].mean())} accuracy; with every place known they reach "
            f"{percent(rows['known_places_accuracy'].mean())}. {_draws(rows)}"
        )
    return texts


def requests_text(count: Any) -> str:
    """`1 request`, `10 requests`."""
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
        f"{first['order']} order), every link tapped, {requests_text(first['requests'])}: by the "
        f"{marked('adaptive hijack', first['control'])} columns are grouped with an adjusted Rand index of "
        f"{rows['column_ari'].mean():.2f}, rows {rows['row_ari'].mean():.2f}. {_draws(rows)}"
    )


def _hidden(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"{setting(first['victim'], first['block_size'], 0)}, {first['obfuscation']} ({first['params']})"
        f"{ordered(first['order'])}, every link tapped, after {requests_text(first['requests'])}: the "
        f"{marked('adaptive hijack', first['control'])}, which knows of it, groups columns with an index of "
        f"{rows['column_ari'].mean():.2f}, rows "
        f"{rows['row_ari'].mean():.2f}, for "
        f"{100 * rows['bandwidth_overhead'].mean():+.0f} % bytes and {100 * rows['latency_overhead'].mean():+.0f} % "
        f"latency. {_draws(rows)}"
    )


def ordered(order: Any) -> str:
    """`, sent in forward order`; empty for the random one, which is the service's own."""
    return "" if order == "random" else f", sent in {order} order"


def _draws(rows: pd.DataFrame) -> str:
    count = rows[["victim_seed", "repeat"]].drop_duplicates().shape[0]
    return f"Mean of {count} draw{'s' if count > 1 else ''}."


def most_watched(table: pd.DataFrame, hijack: str = "adaptive") -> pd.DataFrame:
    """Each obfuscation against metadata alone, every link tapped, at the most requests watched."""
    rows = table[(table["obfuscation"] != "none") & (table["keep"] == 0) & (table["observed_share"] == 1)]
    rows = rows[(rows["hijack"] == hijack) & (rows["labelled"] == 0) & (rows["topology"] == "sources")]
    return rows[rows["requests"] == rows.groupby(HIDDEN)["requests"].transform("max")]
