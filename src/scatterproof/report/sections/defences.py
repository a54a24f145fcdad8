"""What each defence costs beside its worst verdict, from tables/defences.csv and tables/verdict.csv."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scatterproof.analysis.verdict import stolen
from scatterproof.report.sections.verdicts import counted, ends_with
from scatterproof.report.table import Table
from scatterproof.report.threat_words import defence_text, defence_words, grants
from scatterproof.report.words import cases, held, in_red, number, of_case, percent, side, victim_label

SHARES = ("trusted_flops_share", "trusted_bytes_share", "trusted_seconds_share", "device_flops_share")
SECONDS = ("setup_seconds", "latency_ms", "undefended_latency_ms")
HEAD = ("victim", "block size", "defence", "trusted party's operations", "its bytes", "its seconds",
        "devices' operations", "set-up seconds", "milliseconds of a request", "the same undefended",
        "largest error of an output", "agreement with the victim", "victim seeds", "verdicts",
        "ends with at most")  # fmt: skip
MAIN = ("trusted party's operations", "milliseconds of a request", "agreement with the victim", "verdicts",
        "ends with at most")  # fmt: skip
WHOLE = 1.0  # the share at which the layer might as well stay whole
MEANING = (
    "The trusted party's operations and bytes for a request are shares of those of the cheapest exact form of the "
    "layer, its seconds of those that the undivided layer takes, both measured. A share of 1 means that the trusted "
    "party might as well compute the whole layer itself. The devices' operations are shares of those without a "
    "defence. A request is timed on 16 devices and the trusted party, processes of one machine, and again without "
    "a defence."
)


def section(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What the page's part on defences shows; nothing where the study has none."""
    if "defences" not in tables:
        return {"defences": None, "defences_words": []}
    costs, verdicts = _named(tables["defences"]), tables.get("verdict", pd.DataFrame())
    caption = "What each defence costs, means over victim seeds, and the worst that came of it under any threat"
    rows = [_row(own, _under(verdicts, own)) for own in _each(costs)]
    return {
        "defences": Table(caption, HEAD, rows).shown(*MAIN, file="defences"),
        "defences_words": [MEANING, *_no_gain(costs)],
    }


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """With `words`: a defence and its parameters as one text, which is never NaN."""
    parameters = table["defence_params"].fillna("").astype(str)
    return table.assign(words=list(map(defence_text, table["defence"], parameters)))


def _each(costs: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each victim, block size and defence, these as the study has them."""
    return [rows for case in cases(costs) for _, rows in of_case(costs, case).groupby(["layer", "words"], sort=False)]


def _under(verdicts: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """The verdicts on the threats to the layer that is defended so."""
    first = own.iloc[0]
    if verdicts.empty:
        return verdicts
    here = of_case(verdicts, (first["victim"], first["block_size"]))
    return here[[defence_words(threat) == first["words"] for threat in here["threat"]]]


def _row(own: pd.DataFrame, verdicts: pd.DataFrame) -> tuple[str, ...]:
    first = own.iloc[0]
    return (
        *(victim_label(first["victim"]), side(first["block_size"]), first["words"]),
        *(number(own[column].mean(), 3) for column in SHARES),
        *(number(own[column].mean(), 3) for column in SECONDS),
        number(own["output_error"].max(), 2),
        *(percent(own["fidelity"].mean()), str(own["victim_seed"].nunique()), *_worst(verdicts)),
    )


def _worst(verdicts: pd.DataFrame) -> tuple[str, str]:
    """How many threats got which verdict, and under which of them the pirate ends with most."""
    if verdicts.empty:
        return "not attacked", ""
    most: Any = next(verdicts.sort_values("ends_with", ascending=False, kind="stable").itertuples(index=False))
    under = f"{held(most.threat, most.keep)}, {grants(most.images, most.knows, most.threat)}"
    threats = f"{len(verdicts)} threat{'' if len(verdicts) == 1 else 's'}"
    return f"{counted(verdicts)} of {threats}", in_red(f"{ends_with(most)}: {under}", stolen(most))


def _no_gain(costs: pd.DataFrame) -> list[str]:
    """Which defences leave the trusted party with as much as the layer itself takes."""
    flops = costs.groupby("words", sort=False)["trusted_flops_share"].mean()
    names = [str(words) for words, mean in flops.items() if mean >= WHOLE]
    return [f"By operations that is so of {', '.join(names)}."] if names else []
