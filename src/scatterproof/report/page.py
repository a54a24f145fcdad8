"""The report: one self-contained HTML page, made from the tables and figures of a study.

No external resource and no JavaScript. Every number on the page is computed from the tables.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from scatterproof.analysis.statistics import draw_spread, shuffled_excess
from scatterproof.cost.ledger import retraining_minutes
from scatterproof.report.figures import plateau as plateau_figure
from scatterproof.report.input_words import inputs, inputs_called
from scatterproof.report.sections import (
    attacks,
    controls,
    cost_section,
    defences,
    fineness,
    grid_tables,
    grid_words,
    leaderboard,
    searches,
    stream,
    talk_cost,
    verdicts,
)
from scatterproof.report.sections import retraining as against
from scatterproof.report.table import Table
from scatterproof.report.words import in_order


def build_page(tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Path], provenance: Mapping[str, Any]) -> str:
    """The page as HTML.

    tables: `victim`, `prune`, `shuffle`, `threshold`, `theory`, `cost`, `cost_summary`, `cost_groups`, `cost_waste`, as
    their CSV files have them, `search`, `plateau`, `attacks` with `verdict` and `controls`, `defences`, `fineness`,
    `stream` and `breakeven` where the study has them; figures: name of the section's figure (`curve`, `prune`,
    `threshold`, `shuffle`, `theory`, `search`, `trajectory`, `plateau`, `attacks`, `verdict`, `retrain`, `frontier`,
    `fineness`, `stream`, `retraining`, `cost`) to its .svg, any may be missing; provenance: as `provenance()` gives it.
    """
    with inputs_called(provenance["inputs"]):
        return _page(controls.marked_tables(tables), figures, provenance)


def _page(tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Path], provenance: Mapping[str, Any]) -> str:
    block_size = int(provenance["block_size"])
    excess = in_order(shuffled_excess(tables["shuffle"], tables["victim"]), block_size)
    retraining = retraining_minutes(tables["victim"])
    return template(Path(__file__).with_name("page.html.j2")).render(
        style=page_style(),
        study=provenance["study"],
        inputs=inputs(),
        block_size=block_size,
        headline=grid_words.headline(tables, block_size),
        figures={name: inline_svg(path, name) for name, path in figures.items()},
        victims=grid_tables.victim_table(tables["victim"]),
        epochs_words=grid_words.epochs(tables["victim"]),
        prune=grid_tables.prune_tables(tables["prune"], block_size),
        thresholds=grid_tables.threshold_table(tables, block_size),
        threshold_words=grid_words.thresholds(tables, block_size),
        shuffle=grid_tables.shuffle_tables(tables["shuffle"], block_size),
        excess=grid_tables.excess_table(excess),
        excess_words=grid_words.excess(excess, draw_spread(tables["shuffle"])),
        theory=grid_tables.theory_tables(tables["theory"], block_size),
        search=_search(tables, retraining),
        search_words=searches.sentences(tables["search"], tables["victim"], retraining) if "search" in tables else [],
        **_attacks(tables),
        **defences.section(tables),
        **fineness.section(tables.get("fineness"), tables["controls"]),
        stream=_stream(tables),
        stream_words=stream.sentences(tables["stream"]) if "stream" in tables else [],
        topology=Markup(Path(__file__).with_name("topology.svg").read_text(encoding="utf-8")),
        plateau_words=plateau_figure.sentences(tables["plateau"]) if "plateau" in tables else [],
        theory_words=grid_words.theory(tables["theory"], block_size),
        cost=cost_section.summary_table(tables["cost_summary"]),
        cost_groups=cost_section.group_tables(tables["cost_groups"], tables["controls"]),
        waste=cost_section.waste_table(tables["cost_waste"]),
        attempts=cost_section.wasted_attempts(tables["cost"]),
        cost_words=cost_section.cost_words(tables["cost_summary"], tables["theory"], retraining),
        account_words=cost_section.account_words(tables, provenance["assumed"]),
        **_against_retraining(tables),
        facts=provenance["facts"],
        config=provenance["config"],
    )


def template(path: Path) -> jinja2.Template:
    """A page's template; it may import from those beside this file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(path.name)


def page_style() -> Markup:
    """The style sheet of every page."""
    return Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8").rstrip())


def inline_svg(path: Path, name: str) -> Markup:
    """An SVG file as an element of a page: its ids start with `name`, its size is that of its container."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    opening, rest = text.split(">", 1)
    opening = re.sub(r'\s(?:width|height)="[^"]*"', "", opening)
    return Markup(f'{opening} role="img" aria-label="figure: {name}">{rest}')  # matplotlib's own output, escaped by it


def _search(tables: Mapping[str, pd.DataFrame], retraining: float) -> Table | None:
    if "search" not in tables:
        return None
    caption = f"What each search had reached at its last evaluation, on {inputs()} that it never saw"
    return Table(caption, searches.table_head(), searches.table_rows(tables["search"], retraining)).shown()


def _attacks(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What the part on attacks shows; where the study has none, the verdict on hijacks if there is one."""
    shown: dict[str, Any] = {"attacks": None, "attacks_words": [], "verdict_words": [], "verdicts": None}
    shown |= {"controls": controls.table(tables["controls"]).shown()}
    shown["control_words"] = controls.sentences(tables["controls"])
    if "verdict" in tables:
        rows = verdicts.table_rows(tables["verdict"])
        shown["verdict_words"] = verdicts.sentences(tables["verdict"])
        shown["verdicts"] = Table("The verdict on each threat", verdicts.TABLE_HEAD, rows).shown()
    if "attacks" not in tables:
        return shown
    on_blocks = tables["attacks"][tables["attacks"]["role"] == "blocks"]
    caption = f"What each attack made of the blocks, on test {inputs()} that it never saw [95 % interval over victims]"
    everyone = (
        "Every attack under every threat, the best first; without the blocks: the same pirate, the layer withheld"
    )
    return shown | {
        "attacks": Table(caption, attacks.TABLE_HEAD, attacks.table_rows(on_blocks)).shown(),
        "attacks_words": attacks.sentences(on_blocks),
        "leaderboard": Table(everyone, leaderboard.HEAD, leaderboard.rows(tables["attacks"])).shown(),
        "reported": Table("Reported in the literature", leaderboard.REPORTED_HEAD, leaderboard.reported_rows()),
    }


def _stream(tables: Mapping[str, pd.DataFrame]) -> Table | None:
    if "stream" not in tables:
        return None
    caption = "What each hijack made of the traffic [95 % interval over victims and layouts]"
    return Table(caption, stream.TABLE_HEAD, stream.table_rows(tables["stream"]))


def _against_retraining(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What the part on retraining shows; no words where the study has no such table."""
    if "breakeven" not in tables:
        return {"retraining_words": []}
    talk = talk_cost.talk_costs(tables.get("search"), tables["victim"])
    caption = (
        "Minutes [95 % interval] until an attack, and training from nothing, reach a share of the victim's accuracy"
    )
    return {
        "retraining_words": against.sentences(tables["breakeven"]),
        "retraining": Table(caption, against.table_head(), against.table_rows(tables["breakeven"])).shown(),
        "talk_words": talk_cost.talk_sentences(talk, tables["theory"]),
        "talk": Table(
            "The talk's cost claim beside ours, in minutes of one device",
            talk_cost.talk_head(talk),
            talk_cost.talk_rows(talk, tables["theory"]),
        ),
    }
