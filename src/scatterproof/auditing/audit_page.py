"""The page of an audit: the answer, a figure and a table."""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import pandas as pd

from scatterproof.auditing.audit_words import CAUTION, facts, percent, score_words
from scatterproof.auditing.audited import Victim
from scatterproof.auditing.estimate import LayerEstimate
from scatterproof.report.figures.base import COLOURS, GREY, finish, panels
from scatterproof.report.page import inline_svg, page_style, template
from scatterproof.report.table import Table
from scatterproof.running.files import write_text

if TYPE_CHECKING:
    from scatterproof.auditing.audit import Audit

FIGURE = "audit.svg"
PLACED = (
    "The share of blocks put at their place in each layer, and the scores of the copy and of the network without it"
)
LONG_NAME = 32  # characters of a layer's path in a line
HEAD = ("layer", "outputs x inputs", "blocks", "placed", "chance", "score of the copy", "without the layer", "seconds")
VERDICT_HEAD = ("layer", "verdict", "ends with", "gain in points", "headroom in points", "told ceiling")


def write_page(audit: "Audit", victim: Victim, about: dict[str, Any]) -> None:
    """Write the page and its figure beside each other. Raises: WriteError."""
    title = f"blocks of {about['blocks']}, {about['inputs']} {victim.noun}, one shuffle"
    figure = draw_placed(audit.estimates, title, audit.page.with_name(FIGURE))
    page = template(Path(__file__).with_name("audit.html.j2")).render(
        style=page_style(),
        audit=audit,
        caution=None if audit.verdicts is not None else CAUTION,
        score=score_words(victim),
        figure=inline_svg(figure, "audit", PLACED),
        layers=_table(audit.estimates),
        verdicts=None if audit.verdicts is None else _verdicts(audit.verdicts),
        notes=[f"Not tried: {each.layer}: {each.note}" for each in audit.estimates if each.note]
        + [f"No verdict: {layer}: {why}" for layer, why in audit.unjudged.items()],
        facts=facts(victim, about),
    )
    write_text(audit.page, page)


def draw_placed(estimates: list[LayerEstimate], title: str, svg: Path) -> Path:
    """Of each layer the share of blocks placed, and the copy's share of the model's score."""
    tried = [each for each in estimates if not each.note]
    titles = [title] if tried else []
    with panels(titles, svg, 1.2 + 0.4 * len(tried)) as axes:
        for axis in axes.values():
            rows = range(len(tried))
            placed = [100 * (each.placed or 0) for each in tried]
            axis.barh(rows, placed, height=0.5, color=COLOURS[5], label="blocks placed")
            axis.plot(
                [_of_own(each.copy, each) for each in tried], rows, "D", color=COLOURS[1], label="score of the copy"
            )
            without = [_of_own(each.without, each) for each in tried]
            axis.plot(without, rows, "s", color=GREY, markerfacecolor="white", label="score without the layer")
            axis.set_yticks(rows, [_in_lines(each.layer) for each in tried])
            axis.invert_yaxis()
            axis.set_xlim(-2, 104)
        finish(axes, "% of the whole blocks, % of the model's score")
    return svg


def _in_lines(name: str) -> str:
    """A layer's path, broken at its dots where it is long."""
    return fill(name.replace(".", ". "), LONG_NAME).replace(". ", ".")


def _of_own(score: float | None, each: LayerEstimate) -> float:
    """A score in percent of the model's own."""
    return 100 * (score or 0.0) / max(each.own or 0.0, 1e-9)


def _table(estimates: list[LayerEstimate]) -> Table:
    rows = [
        [
            each.layer, each.shape, str(each.blocks), percent(each.placed), percent(each.chance),
            f"{percent(each.copy)} of {percent(each.own)}", percent(each.without), f"{each.seconds:.1f}",
        ]
        for each in estimates
        if not each.note
    ]  # fmt: skip
    return Table("Each layer, scattered once and attacked by its blocks alone", HEAD, rows)


def verdict_rows(verdicts: pd.DataFrame) -> list[list[str]]:
    """One row of text for each layer."""
    rows = []
    for row in verdicts.to_dict("records"):
        gain = (
            "-"
            if pd.isna(row["gain"])
            else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * row[key] for key in ("gain", "ci_low", "ci_high")))
        )
        ceiling = str(row["told"]) if pd.isna(row["told_accuracy"]) else percent(row["told_accuracy"])
        ends = f"{percent(row['ends_with'])} of {percent(row['victim_accuracy'])}"
        rows.append([row["victim"], row["verdict"], ends, gain, f"{100 * row['headroom']:.1f}", ceiling])
    return rows


def _verdicts(verdicts: pd.DataFrame) -> Table:
    return Table("The verdict for this model, of ten shuffles, with controls", VERDICT_HEAD, verdict_rows(verdicts))
