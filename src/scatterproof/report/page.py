"""The report: one self-contained HTML page, made from the tables and figures of a study.

It loads nothing: its style, its figures and the few lines of script that sort tables are in it. Without the script all
is there to read. Every number on the page is computed from the tables.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from scatterproof.analysis.statistics import draw_spread, shuffled_excess
from scatterproof.cost.ledger import retraining_minutes
from scatterproof.report import glossary, references
from scatterproof.report.captions import CAPTIONS, Figure, caption_of, files_of
from scatterproof.report.figures import plateau as plateau_figure
from scatterproof.report.input_words import inputs, inputs_called
from scatterproof.report.opening import HEAD, opening
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

TEMPLATES = Path(__file__).with_name("templates")


def build_page(
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Path],
    provenance: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
) -> str:
    """The page as HTML.

    tables: `victim`, `prune`, `shuffle`, `threshold`, `theory`, `cost`, `cost_summary`, `cost_groups`, `cost_waste`, as
    their CSV files have them, `search`, `plateau`, `attacks` with `verdict` and `controls`, `defences`, `fineness`,
    `stream` and `breakeven` where the study has them; figures: a name of `captions.CAPTIONS` to its .svg, any may be
    missing; provenance: as `provenance()` gives it; files: as `addresses()` gives them, for links.
    """
    with inputs_called(provenance["inputs"]):
        return _page(controls.marked_tables(tables), figures, provenance, files or {})


def _page(
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Path],
    provenance: Mapping[str, Any],
    files: Mapping[str, str],
) -> str:
    block_size = int(provenance["block_size"])
    excess = in_order(shuffled_excess(tables["shuffle"], tables["victim"]), block_size)
    retraining = retraining_minutes(tables["victim"])
    shown = dict(
        inputs=inputs(),
        block_size=block_size,
        opening=opening(tables, block_size),
        summary_head=HEAD,
        headline=grid_words.headline(tables, block_size),
        figures=_figures(figures, files),
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
        topology=drawing("topology"),
        threat_model=drawing("threat"),
        plateau_words=plateau_figure.sentences(tables["plateau"]) if "plateau" in tables else [],
        theory_words=grid_words.theory(tables["theory"], block_size),
        cost=cost_section.summary_table(tables["cost_summary"]),
        cost_groups=cost_section.group_tables(tables["cost_groups"], tables["controls"]),
        waste=cost_section.waste_table(tables["cost_waste"]),
        attempts=cost_section.wasted_attempts(tables["cost"]),
        cost_words=cost_section.cost_words(tables["cost_summary"], tables["theory"], retraining),
        account_words=cost_section.account_words(tables, provenance["assumed"]),
        **_against_retraining(tables),
        glossary=glossary.entries(inputs()),
        references=(references.TALK, *references.PAPERS),
        study=provenance["study"],
        facts=provenance["facts"],
        config=provenance["config"],
        files=files,
        style=page_style(),
        script=_text("page.js"),
    )
    return template(TEMPLATES / "page.html.j2").render(contents=_contents(shown), **shown)


PARTS = (
    ("answer", "The answer", None, ()),
    ("threats", "Threats", None, (("verdict", "The verdict", "verdicts"), ("victim", "The victims", None))),
    ("attacks", "Attacks", "attacks", ()),
    ("defences", "Defences, and what they cost", "defences", ()),
    ("fineness", "How fine", "fineness", ()),
    ("stream", "Traffic", "stream", ()),
    (
        *("searches", "Searches", None),
        (
            *(("prune", "Prune", None), ("shuffle", "Shuffle", None), ("theory", "Theory", None)),
            *(("search", "Search by fitness", "search"), ("plateau", "The plateau", "plateau_words")),
        ),
    ),
    ("cost", "What it cost", None, (("retraining", "Against retraining", "retraining_words"),)),
    ("made", "How it was made", None, ()),
    ("glossary", "Glossary", None, ()),
    ("references", "References", None, ()),
)  # id and title of each section and of its parts, and what must be there to be shown


def _contents(shown: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Id, title and parts of each section that this study has."""
    return [
        (at, title, [(id_, name) for id_, name, needs in parts if needs is None or shown[needs]])
        for at, title, needed, parts in PARTS
        if needed is None or shown[needed]
    ]


def _figures(paths: Mapping[str, Path], files: Mapping[str, str]) -> dict[str, Figure | None]:
    """Each figure that a page may have; None where the study has none."""
    figures = {
        name: Figure(inline_svg(path, name, caption_of(name)), caption_of(name), files_of(name, files))
        for name, path in paths.items()
    }
    return dict.fromkeys(CAPTIONS) | figures


def template(path: Path) -> jinja2.Template:
    """A page's template; it may import from those beside this file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(path.name)


def page_style() -> Markup:
    """The style sheet of every page."""
    return _text("style.css")


def drawing(name: str) -> Markup:
    """A drawing that comes with the page, as an element of it."""
    return _text(f"{name}.svg")


def _text(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8").rstrip())


def inline_svg(path: Path, name: str, shows: str) -> Markup:
    """An SVG file as an element of a page: its ids start with `name`, its size is that of its container.

    shows: what it shows, for who does not see it.
    """
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    opening, rest = text.split(">", 1)
    opening = re.sub(r'\s(?:width|height)="[^"]*"', "", opening)
    return Markup(f'{opening} role="img" aria-label="{escape(shows)}">{rest}')  # matplotlib's own output, escaped by it


def _search(tables: Mapping[str, pd.DataFrame], retraining: float) -> Table | None:
    if "search" not in tables:
        return None
    caption = f"What each search had reached at its last evaluation, on {inputs()} that it never saw"
    rows = searches.table_rows(tables["search"], retraining)
    return Table(caption, searches.table_head(), rows).shown(*searches.MAIN, file="search")


def _attacks(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What the part on attacks shows; where the study has none, the verdict on hijacks if there is one."""
    shown: dict[str, Any] = {"attacks": None, "attacks_words": [], "verdict_words": [], "verdicts": None}
    shown |= {"controls": controls.table(tables["controls"])}
    shown["control_words"] = controls.sentences(tables["controls"])
    if "verdict" in tables:
        rows = verdicts.table_rows(tables["verdict"])
        shown["verdict_words"] = verdicts.sentences(tables["verdict"])
        shown["verdicts"] = Table(
            "The verdict on each threat, with all that it rests on", verdicts.TABLE_HEAD, rows
        ).shown(*verdicts.MAIN, file="verdict")
    if "attacks" not in tables:
        return shown
    on_blocks = tables["attacks"][tables["attacks"]["role"] == "blocks"]
    caption = f"What each attack made of the blocks, on test {inputs()} that it never saw [95 % interval over victims]"
    everyone = (
        "Every attack under every threat, the best first; without the blocks: the same pirate, the layer withheld"
    )
    return shown | {
        "attacks": Table(caption, attacks.TABLE_HEAD, attacks.table_rows(on_blocks)).shown(
            *attacks.MAIN, file="attacks"
        ),
        "attacks_words": attacks.sentences(on_blocks),
        "leaderboard": Table(everyone, leaderboard.HEAD, leaderboard.rows(tables["attacks"])).shown(
            *leaderboard.MAIN, file="attacks"
        ),
        "reported": Table("Reported in the literature", leaderboard.REPORTED_HEAD, leaderboard.reported_rows()),
    }


def _stream(tables: Mapping[str, pd.DataFrame]) -> Table | None:
    if "stream" not in tables:
        return None
    caption = "What each hijack made of the traffic [95 % interval over victims and layouts]"
    return Table(caption, stream.TABLE_HEAD, stream.table_rows(tables["stream"])).shown(*stream.MAIN, file="stream")


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
        "retraining": Table(caption, against.table_head(), against.table_rows(tables["breakeven"])).shown(
            *against.MAIN, file="breakeven"
        ),
        "talk_words": talk_cost.talk_sentences(talk, tables["theory"]),
        "talk": Table(
            "The talk's cost claim beside ours, in minutes of one device",
            talk_cost.talk_head(talk),
            talk_cost.talk_rows(talk, tables["theory"]),
        ),
    }
