"""The report: one self-contained HTML page, made from the tables and figures of a study.

No external resource and no JavaScript. Every number on the page is computed from the tables.
"""

import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from scatterproof.cost.ledger import retraining_minutes
from scatterproof.report import (
    attacks,
    cost_section,
    fineness,
    leaderboard,
    searches,
    stream,
    talk_cost,
    verdicts,
    words,
)
from scatterproof.report import retraining as against
from scatterproof.report.statistics import curve, draw_spread, half_is_chance, shuffled_excess
from scatterproof.report.table import Table
from scatterproof.report.words import (
    interval,
    minutes,
    number,
    percent,
    percent_interval,
    points,
    threshold_text,
    victim_label,
)
from scatterproof.study import Study

PACKAGES = [
    "scatterproof",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "matplotlib",
    "snakemake",
]


def provenance(study: Study, tables: Mapping[str, pd.DataFrame], command: str, repository: Path) -> dict[str, Any]:
    """How a study was made: its config, versions, commit, devices, seeds, command and the date now (UTC).

    `repository` is a folder of the checkout that ran; outside git, or without git, the commit says so.
    """
    devices = {str(d) for table in tables.values() if "device" in table for d in table["device"].dropna()}
    return {
        "study": study.study,
        "block_size": study.block_sizes[0],
        "assumed": study.cost,
        "config": yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "facts": {
            "command": command,
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": _commit(repository),
            "devices": "; ".join(sorted(d for d in devices if "; " not in d)) or "unknown",
            "victim seeds": ", ".join(f"{name} {seed}" for name, seed in study.victims),
            "study seed": str(study.seed),
            "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "versions": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        },
    }


def build_page(tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Path], provenance: Mapping[str, Any]) -> str:
    """The page as HTML.

    tables: `victim`, `prune`, `shuffle`, `threshold`, `theory`, `cost`, `cost_summary`, `cost_groups`, `cost_waste`, as
    their CSV files have them, `search`, `plateau`, `attacks` with `verdict`, `fineness`, `stream` and `breakeven` where
    the study has them; figures: name of the section's figure (`curve`, `prune`, `threshold`, `shuffle`, `theory`,
    `search`, `trajectory`, `plateau`, `attacks`, `verdict`, `retrain`, `fineness`, `stream`, `retraining`, `cost`) to
    its .svg, any may be missing; provenance: as `provenance()` gives it.
    """
    block_size = int(provenance["block_size"])
    excess = words.in_order(shuffled_excess(tables["shuffle"], tables["victim"]), block_size)
    retraining = retraining_minutes(tables["victim"])
    source = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(source).render(
        study=provenance["study"],
        block_size=block_size,
        headline=words.headline(tables, block_size),
        figures={name: inline_svg(path, name) for name, path in figures.items()},
        victims=_victims(tables["victim"]),
        epochs_words=words.epochs(tables["victim"]),
        prune=_by_block_size(tables["prune"], _prune, block_size),
        thresholds=_thresholds(tables, block_size),
        threshold_words=words.thresholds(tables, block_size),
        shuffle=_by_block_size(tables["shuffle"], _shuffle, block_size),
        excess=_excess(excess),
        excess_words=words.excess(excess, draw_spread(tables["shuffle"])),
        theory=_theory(tables["theory"], block_size),
        search=_search(tables, retraining),
        search_words=searches.sentences(tables["search"], tables["victim"], retraining) if "search" in tables else [],
        **_attacks(tables),
        **fineness.section(tables.get("fineness")),
        stream=_stream(tables),
        stream_words=stream.sentences(tables["stream"]) if "stream" in tables else [],
        topology=Markup(Path(__file__).with_name("topology.svg").read_text(encoding="utf-8")),
        plateau_words=words.plateau(tables["plateau"]) if "plateau" in tables else [],
        theory_words=words.theory(tables["theory"], block_size),
        cost=cost_section.summary_table(tables["cost_summary"]),
        cost_groups=cost_section.group_tables(tables["cost_groups"]),
        waste=cost_section.waste_table(tables["cost_waste"]),
        attempts=cost_section.wasted_attempts(tables["cost"]),
        cost_words=words.cost(tables["cost_summary"], tables["theory"], retraining),
        account_words=cost_section.account_words(tables, provenance["assumed"]),
        **_against_retraining(tables),
        facts=provenance["facts"],
        config=provenance["config"],
    )


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


def _victims(victims: pd.DataFrame) -> Table:
    head = (
        "victim",
        "seed",
        "model",
        "width",
        "input",
        "parameters",
        "accuracy",
        "loss",
        "epochs",
        "minutes",
        "device",
    )
    rows = [
        (
            *(
                victim_label(row.victim),
                str(row.victim_seed),
                str(row.model),
                number(row.width),
                number(row.input_size),
            ),
            *(number(row.parameters), percent(row.accuracy), number(row.loss), number(row.epochs)),
            *(minutes(row.device_minutes), str(row.device)),
        )
        for row in _rows(victims.drop_duplicates(["victim", "victim_seed"]))
    ]
    return Table("The victims: accuracy on test images, minutes of training", head, rows)


def _by_block_size(frame: pd.DataFrame, build: Any, first: int) -> dict[str, list[Table]]:
    """The tables of the study's main block size, and those of all others."""
    sizes = sorted({int(size) for size in frame["block_size"]})
    tables = {size: [build(frame, size, name) for name in words.names(frame)] for size in sizes}
    return {"main": tables.get(first, []), "others": [t for size in sizes if size != first for t in tables[size]]}


def _prune(prune: pd.DataFrame, size: int, victim: str) -> Table:
    return _grid(prune, size, victim, "correction", lambda key: words.CORRECTIONS.get(key, key))


def _shuffle(shuffle: pd.DataFrame, size: int, victim: str) -> Table:
    return _grid(shuffle, size, victim, "moved", lambda key: f"{100 * float(key):g} % displaced")


def _grid(frame: pd.DataFrame, size: int, victim: str, across: str, name: Any) -> Table:
    """Accuracies of one victim and block size: a row for each kept share, a column for each value of `across`."""
    frame = frame[(frame["block_size"] == size) & (frame["victim"] == victim)]
    means = curve(frame, [across])
    cells = {(row.keep, getattr(row, across)): row for row in _rows(means)}
    columns = list(dict.fromkeys(frame[across]))
    rows = [
        (f"{100 * keep:g} %", *(percent_interval(cells.get((keep, c)), "mean") for c in columns))
        for keep in sorted(set(frame["keep"]))
    ]
    seeds, repeats = int(means["seeds"].max()), int(means["repeats"].max())
    caption = f"{victim_label(victim)}, blocks of {size} x {size}: accuracy [95 % interval], victim seeds: {seeds}"
    return Table(f"{caption}, draws for each: {repeats}", ("blocks held", *(name(c) for c in columns)), rows)


def _thresholds(tables: Mapping[str, pd.DataFrame], block_size: int) -> Table:
    keeps = tables["prune"]["keep"]
    chance = {name: half_is_chance(tables["victim"], name) for name in words.names(tables["threshold"])}
    rows = [
        (
            *(victim_label(row.victim), str(row.block_size), words.CORRECTIONS.get(row.correction, row.correction)),
            *(threshold_text(row, keeps.min(), keeps.max(), chance[row.victim]), str(row.seeds)),
        )
        for row in _rows(words.in_order(tables["threshold"], block_size))
    ]
    head = ("victim", "block size", "correction", "blocks needed", "victim seeds")
    return Table("Threshold: the share of blocks at which accuracy first reaches half of the victim's", head, rows)


def _excess(excess: pd.DataFrame) -> Table:
    head = ("victim", "block size", "seed", "accuracy", "chance", "excess in points", "draws", "within 2 points")
    rows = [
        (
            *(victim_label(row.victim), str(row.block_size), str(row.victim_seed), percent(row.accuracy)),
            *(percent(row.chance), interval(row.excess, row.ci_low, row.ci_high, points)),
            *(f"{row.seeds} x {row.repeats}", "yes" if row.within else "no"),
        )
        for row in _rows(excess)
    ]
    return Table("Every block held, every one displaced: excess over chance", head, rows)


def _theory(theory: pd.DataFrame, block_size: int) -> dict[str, list[Table]]:
    head = ("quantity", "blocks held", "population", "talk's formula", "exact", "Monte Carlo", "reported", "source")
    asked = theory.drop_duplicates([c for c in theory.columns if c not in ("study", "victim_seed")])
    caption = "The talk's figures (reported) beside what was computed here"
    first = asked["block_size"].fillna(block_size) == block_size
    main, others = ([_clue(row) for row in _rows(asked[here])] for here in (first, ~first))
    return {"main": [Table(caption, head, main)], "others": [Table(caption, head, others)] if others else []}


def _search(tables: Mapping[str, pd.DataFrame], retraining: float) -> Table | None:
    if "search" not in tables:
        return None
    caption = "What each search had reached at its last evaluation, on images that it never saw"
    return Table(caption, searches.TABLE_HEAD, searches.table_rows(tables["search"], retraining))


def _attacks(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What the part on attacks shows; where the study has none, the verdict on hijacks if there is one."""
    found: dict[str, Any] = {"attacks": None, "attacks_words": [], "verdict_words": [], "verdicts": None}
    if "verdict" in tables:
        rows = verdicts.table_rows(tables["verdict"])
        found["verdict_words"] = verdicts.sentences(tables["verdict"])
        found["verdicts"] = Table("The verdict on each threat", verdicts.TABLE_HEAD, rows)
    if "attacks" not in tables:
        return found
    on_blocks = tables["attacks"][tables["attacks"]["role"] == "blocks"]
    caption = "What each attack made of the blocks, on test images that it never saw [95 % interval over victims]"
    everyone = (
        "Every attack under every threat, the best first; without the blocks: the same pirate, the layer withheld"
    )
    return found | {
        "attacks": Table(caption, attacks.TABLE_HEAD, attacks.table_rows(on_blocks)),
        "attacks_words": attacks.sentences(on_blocks),
        "leaderboard": Table(everyone, leaderboard.HEAD, leaderboard.rows(tables["attacks"])),
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
        "retraining": Table(caption, against.TABLE_HEAD, against.table_rows(tables["breakeven"])),
        "talk_words": talk_cost.talk_sentences(talk, tables["theory"]),
        "talk": Table(
            "The talk's cost claim beside ours, in minutes of one device",
            talk_cost.talk_head(talk),
            talk_cost.talk_rows(talk, tables["theory"]),
        ),
    }


def _clue(row: Any) -> tuple[str, ...]:
    layer = "" if pd.isna(row.layer) else f" ({row.layer}, blocks of {number(row.block_size)})"
    held = "" if pd.isna(row.keep) else f"{100 * row.keep:g} %"
    simulated = interval(row.monte_carlo, row.ci_low, row.ci_high)
    source = "" if pd.isna(row.source) else str(row.source)
    quantity = str(row.quantity).replace("_", " ") + layer
    return (
        quantity,
        held,
        *map(number, (row.population, row.value, row.exact)),
        simulated,
        number(row.reported),
        source,
    )


def _rows(frame: pd.DataFrame) -> Iterable[Any]:
    return frame.itertuples(index=False)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit(repository: Path) -> str:
    """The commit of a checkout, and whether the tree differs from it."""
    commit, status = _git(repository, "rev-parse", "HEAD"), _git(repository, "status", "--porcelain")
    if commit is None or status is None:
        return "not in a git checkout"
    return f"{commit}, with uncommitted changes" if status else commit


def _git(repository: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
