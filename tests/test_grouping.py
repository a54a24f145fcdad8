"""Threats that differ in any one part are never averaged: not in a table, a sentence, the headline or a line drawn.

Of two threats that differ in one part alone, every attack on the blocks reaches a tenth under the first and nine tenths
under the second, which is all that the victim has. Whatever lies between is a mean over both.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from html import unescape
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import report_tables as made_up
from scatterproof.analysis import statistics
from scatterproof.analysis.breakeven import breakeven_table, retraining_table
from scatterproof.analysis.choice import with_withheld
from scatterproof.analysis.crossing import crossing_table
from scatterproof.analysis.tables import trajectory_table
from scatterproof.analysis.verdict import verdict_table
from scatterproof.command.main import main
from scatterproof.config.study import Study
from scatterproof.config.threat import ThreatModel
from scatterproof.report.figures.curves import draw_curves
from scatterproof.report.figures.retraining import draw_retraining
from scatterproof.report.figures.searches import draw_search, draw_trajectory
from scatterproof.report.figures.stream import draw_stream
from scatterproof.report.page import build_page
from scatterproof.report.provenance import provenance
from scatterproof.report.sections.attacks import draw_attacks
from scatterproof.report.sections.controls import marked_tables
from scatterproof.report.sections.fineness import draw_fineness, thresholds
from scatterproof.report.sections.stream import sentences, table_rows
from scatterproof.report.sections.verdicts import draw_verdict
from test_stream_report import row as stream_row

LOW, HIGH, WITHHELD = 0.1, 0.9, 0.01
SIZES, SEEDS = (16, 32), range(5)
PLAIN: dict[str, Any] = {"share": 0.25, "images": 100, "knows": "labels"}
RESCALE: dict[str, Any] = {"defence": {"name": "rescale", "factor": 10.0}}
SEES: dict[str, Any] = {"activations": "inputs", "requests": 25}
# What the first and the second threat have beside PLAIN, and what follows in their names
PARTS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "scatter": ({}, {"scatter": "dense"}, "", ""),
    "share": ({}, {"share": 0.5}, "", ""),
    "images": ({}, {"images": 1000}, "", ""),
    "knows": ({}, {"knows": "logits"}, "", ""),
    "base": ({}, {"base_model": True}, "", ""),
    "defence": ({}, RESCALE, "", ""),
    "parameter": (RESCALE, {"defence": {"name": "rescale", "factor": 100.0}}, "", ""),
    "activations": (SEES, {"activations": "both", "requests": 25}, "", ""),
    "requests": (SEES, {"activations": "inputs", "requests": 100}, "", ""),
    "stream": ({}, {}, "", "+stream-1-10"),
    "service": ({}, {}, "+stream-1-10", "+stream-1-10+relays=2"),
}
OF_IMAGES = ("images", "knows", "base")  # of these a panel may choose that with which an attack gets furthest
OF_BLOCKS = ("scatter", "share", "defence", "parameter")  # these change what blocks in their places are worth
ROLES = {"fingerprint": "blocks", "blocks": "blocks", "nothing": "withheld", "layer": "withheld", "whitebox": "ceiling"}
STUDY = "study: made-up\nblock_sizes: [16, 32]\nvictim: {width: 0.0625, seeds: [0, 1, 2, 3, 4]}\n"
ONE = "victim == 'victim'"
VICTIMS = made_up.victim_table().query(ONE).assign(accuracy=HIGH)
CURVES = made_up.curve_table().query(f"{ONE} and epoch < 3").assign(accuracy=HIGH)
PRUNE = made_up.prune_table().query(f"{ONE} and block_size == 16 and keep > 0.1 and repeat == 0").assign(accuracy=HIGH)
SHUFFLE = made_up.shuffle_table().query(f"{ONE} and block_size == 16 and repeat == 0").assign(accuracy=LOW)


def pair(part: str) -> list[tuple[ThreatModel, str, float]]:
    """Two threats that differ in a part: each with its name and the accuracy that is reached under it."""
    *keys, first, second = PARTS[part]
    threats = [ThreatModel(**{**PLAIN, **each}) for each in keys]
    names = [threat.name + stream for threat, stream in zip(threats, (first, second), strict=True)]
    return list(zip(threats, names, (LOW, HIGH), strict=True))


def head(seed: int, size: int, threat: ThreatModel) -> dict[str, Any]:
    place = {"study": "made-up", "victim_seed": seed, "layer": "fc", "block_size": size}
    return place | {"keep": threat.share, "victim": "victim"}


def attacks(part: str) -> pd.DataFrame:
    rows = []
    for (threat, name, accuracy), seed, attack, step in product(pair(part), SEEDS, ROLES, (0, 1)):
        reached = {"blocks": accuracy, "withheld": WITHHELD, "ceiling": HIGH}[ROLES[attack]]
        rows.append(
            head(seed, 16, threat)
            | {"attack": attack, "role": ROLES[attack], "threat": name, "images": threat.images}
            | {"knows": threat.granted, "activations": threat.activations, "requests": threat.requests}
            | {"defence": threat.defence.name, "defence_params": threat.defence.words or np.nan}
            | {"obfuscation": "none", "params": "", "seed": 0, "step": step, "last": step == 1}
            | {"accuracy": reached, "known_places_accuracy": accuracy if part in OF_BLOCKS else HIGH}
            | {"relative_accuracy": reached, "fidelity": reached, "position_accuracy": reached}
            | {"evaluations": np.nan, "device": made_up.DEVICE, "device_minutes": 0.1 * (step + 1)}
            | {"cost_over_retraining": 0.2}
        )
    return with_withheld(pd.DataFrame(rows))


def controls(part: str) -> pd.DataFrame:
    rows = [
        head(0, 16, threat)
        | {"attack": attack, "threat": name, "control": control, "measure": "position_accuracy", "shuffles": 10}
        | {"value": reached, "ci_low": reached, "ci_high": reached, "bound": bound, "passed": True}
        for (threat, name, _), attack, (control, reached, bound) in product(
            pair(part), ("fingerprint", "blocks"), (("planted", 1.0, 0.99), ("random", 0.0, 0.1))
        )
    ]
    return pd.DataFrame(rows)


def searches(part: str) -> pd.DataFrame:
    rows = [
        head(seed, 16, threat)
        | {"threat": name, "attack": attack, "fitness": "accuracy", "images": threat.images, "budget": 10_000}
        | {"population": 100.0 if attack == "genetic" else np.nan, "seed": run, "generation": step}
        | {"evaluations": 5_000 * (step + 1), "best_fitness": accuracy, "accuracy": accuracy}
        | {"device": made_up.DEVICE, "device_minutes": 0.1 * (step + 1), "gpu_minutes": np.nan}
        for (threat, name, accuracy), seed, attack, run, step in product(
            pair(part), range(3), ("genetic", "annealing"), range(2), range(2)
        )
    ]
    return pd.DataFrame(rows)


def fineness(part: str) -> pd.DataFrame:
    rows = [
        head(seed, size, threat)
        | {"width": 0.1, "blocks": 100, "whole_blocks": 100, "attack": "fingerprint", "threat": name}
        | {"images": threat.images, "accuracy": accuracy, "relative_accuracy": accuracy, "position_accuracy": accuracy}
        | {"own_evidence": accuracy, "own_evidence_of_chance": accuracy}
        | {"residual_bits": 100 * 100 * accuracy, "device_minutes": 0.1}
        for (threat, name, accuracy), seed, size in product(pair(part), SEEDS, SIZES)
    ]
    return pd.DataFrame(rows)


def stream(part: str) -> pd.DataFrame:
    """Blocks held: of these parts the table knows the share alone, so that there is one threat for the others."""
    held = pair(part) if part == "share" else pair(part)[:1]
    rows = [
        stream_row(seed, 0, "none", "", 1.0, threat.share, 1, "adaptive", accuracy, accuracy)
        | {"known_places_accuracy": accuracy, "position_accuracy": accuracy, "victim": "victim"}
        for (threat, _, accuracy), seed in product(held, range(3))
    ]
    return pd.DataFrame(rows)


def defences(part: str) -> pd.DataFrame:
    costs = ("trusted_flops_share", "trusted_bytes_share", "trusted_seconds_share", "device_flops_share")
    rows = [
        head(seed, 16, ThreatModel())
        | {"defence": threat.defence.name, "defence_params": threat.defence.words, **dict.fromkeys(costs, cost)}
        | {
            "setup_seconds": cost,
            "latency_ms": cost,
            "undefended_latency_ms": cost,
            "output_error": cost,
            "fidelity": cost,
            "device": made_up.DEVICE,
        }
        for seed, (threat, _, cost) in product(SEEDS, pair(part))
        if threat.defended
    ]
    return pd.DataFrame(rows)


@cache
def without_threats() -> dict[str, pd.DataFrame]:
    grids = {"victim": VICTIMS, "prune": PRUNE, "shuffle": SHUFFLE, "threshold": statistics.threshold(PRUNE, VICTIMS)}
    return grids | {"theory": made_up.theory(), **made_up.cost_tables(0.64)}


def made_tables(part: str) -> dict[str, pd.DataFrame]:
    attacked, controlled, searched = attacks(part), controls(part), searches(part)
    retraining = retraining_table(VICTIMS, CURVES, [], 40)
    trajectory = trajectory_table(searched, attacked)
    defended = defences(part)
    return {
        **without_threats(),
        "search": searched,
        "attacks": attacked,
        "controls": controlled,
        "verdict": verdict_table(attacked, controlled),
        "fineness": fineness(part),
        "fineness_threshold": thresholds(fineness(part)),
        "stream": stream(part),
        "trajectory": trajectory,
        "retraining": retraining,
        "breakeven": breakeven_table(retraining, trajectory, VICTIMS),
        "crossing": crossing_table(retraining, trajectory, VICTIMS),
        **({"defences": defended} if len(defended) else {}),
    }


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a finished study of two threats that differ in a part."""
    made: dict[str, Path] = {}

    def study(part: str) -> Path:
        if part not in made:
            root = made[part] = tmp_path_factory.mktemp(part)
            (root / "study.yaml").write_text(STUDY)
            for name in ("tables", "figures", "report"):
                (root / "results/made-up" / name).mkdir(parents=True)
            for name, table in made_tables(part).items():
                table.to_csv(root / f"results/made-up/tables/{name}.csv", index=False)
            (root / "results/made-up/report/index.html").write_text("<html></html>")
        return made[part]

    return study


def read(root: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_csv(path) for path in sorted(root.glob("results/made-up/tables/*.csv"))}


def between(values: Any, scale: float = 100) -> list[float]:
    """Of these accuracies those that neither threat's attacks reach."""
    return [value for value in np.ravel(np.asarray(values, dtype=float)) if 0.12 * scale < value < 0.88 * scale]


# Accuracies have a decimal, and so have the ends of their intervals; shares that a study sets have none
PERCENT = re.compile(r"(\d+\.\d)(?= %| of \d+\.\d %)|(?<= % \[)(\d+\.\d)|(?<=\d, )(\d+\.\d)(?=\])")


def accuracies(text: str) -> list[float]:
    return [float(next(filter(None, each))) for each in PERCENT.findall(text)]


def plain(html: str) -> str:
    return " ".join(unescape(re.sub("<[^>]+>", " ", html)).split())


CELL = re.compile(r'<(?:td|th scope="row")(?: [^>]*)?>(.*?)</t[dh]>', re.S)
GROUP = re.compile(r'<th scope="rowgroup"[^>]*>(.*?)</th>', re.S)


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """The rows of each table of a page by its caption, but of what the literature reports; after what they are grouped
    by."""
    found: dict[str, list[list[str]]] = {}
    for table in re.findall("<table>(.*?)</table>", page, re.S):
        rows, group = found.setdefault(plain(re.findall("<caption>(.*?)</caption>", table)[0]), []), []
        for row in re.findall("<tr>(.*?)</tr>", table, re.S):
            group = GROUP.findall(row) or group
            rows += [[*group, *map(plain, CELL.findall(row))]] if CELL.search(row) else []
    return {caption: rows for caption, rows in found.items() if "Reported" not in caption}


# Each has a row for each threat, in its words; what it was made of decides what it says
OF_THREATS = ("What each search", "What each attack made", "The verdict", "Every attack under", "What the fingerprint")


@pytest.mark.parametrize("part", PARTS)
def test_no_table_and_no_sentence_of_the_page_mixes_threats(part: str, studies: Callable[[str], Path]) -> None:
    tables = read(studies(part))
    made = provenance(Study.model_validate({"study": "made-up", "block_sizes": [16, 32]}), tables, "x", Path("/"))
    page = build_page(tables, {}, made).partition("<pre>")[0]
    paragraphs = list(map(plain, re.findall("<p>(.*?)</p>", page, re.S)))
    shown = {**tables_of(page), "sentences": [[text] for text in paragraphs if accuracies(text)]}
    for caption, rows in shown.items():
        for row in rows:
            assert not between(accuracies("; ".join(row))), (caption, row)
    for caption in (each for each in shown if each.startswith(OF_THREATS)):
        text = " ".join(cell for row in shown[caption] for cell in row)
        assert {100 * LOW, 100 * HIGH} <= set(accuracies(text)), f"{caption}: both threats are shown"
        measured = [tuple(re.sub(r"\d+\.\d+", "#", cell) for cell in row) for row in shown[caption]]
        assert len(set(measured)) == len(measured), f"{caption}: a row says which threat it is of"
    (minutes,) = (rows for caption, rows in shown.items() if caption.startswith("Minutes"))
    assert part in OF_IMAGES or {"none"} < {cell for row in minutes for cell in row[2:4]}, "one reaches no level"
    for start in ("victim, blocks of 16 x 16, 25 % of", "victim, all dense layers in blocks of 16 x 16, 25 % of"):
        texts = [re.sub(r"\d+\.\d+", "#", text) for text in paragraphs if text.startswith(start)]
        assert len(set(texts)) == len(texts), "no two sentences differ in what was reached alone"


@pytest.mark.parametrize("part", PARTS)
def test_no_cell_of_what_is_published_mixes_threats(
    part: str, studies: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = studies(part)
    monkeypatch.chdir(root)
    assert main(["publish", "--configfile", "study.yaml", "kept"]) == 0
    text = (root / "kept/headline.md").read_text()
    reached = [float(value) for value in re.findall(r"\d+\.\d", text)]
    assert not between(reached), text
    assert {100 * LOW, 100 * HIGH} <= set(reached), text
    made = text.split("\n\n### ")
    heads = ["\n".join(table.splitlines()[:3]) for table in made]
    assert len(set(heads)) == len(heads) == (1 if part in ("share", "images") else 2), "a table says what it is of"
    at_random = [row for table in made for row in re.findall(r"^\| 25 % \| (?:[^|]* \| )?- \|", table, re.M)]
    defended = {"scatter": 1, "defence": 1, "parameter": 2}.get(part, 0)  # of all layers none were drawn either
    assert len(at_random) == defended, text


def lines_of(figure: Figure) -> Iterator[tuple[str, str, list[float]]]:
    """Panel, label and heights of every line and band of a figure; of what lies along accuracy or gain, its ends."""
    along = any(axis.get_xlabel().startswith(("accuracy", "gain")) for axis in figure.axes)
    for axis in figure.axes:
        title = axis.get_title(loc="left").replace("\n", " ")
        for line in axis.lines:
            yield title, str(line.get_label()), [float(value) for value in line.get_data()[0 if along else 1]]
        for band in axis.collections:
            for path in band.get_paths():
                yield title, "band", [float(value) for value in np.asarray(path.vertices)[:, 0 if along else 1]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Figure]:
    """Draws by a function and its arguments; nothing is written."""
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: saved.append(figure))

    def draw(by: Callable[..., Path], *arguments: Any) -> Figure:
        by(*arguments, tmp_path / "figure.svg")
        return saved[-1]

    return draw


@pytest.mark.parametrize("part", PARTS)
def test_no_line_that_is_drawn_mixes_threats(
    part: str, studies: Callable[[str], Path], drawn: Callable[..., Figure]
) -> None:
    tables = marked_tables(read(studies(part)))
    victims, attacked = tables["victim"], tables["attacks"]
    figures = {
        "attacks": drawn(draw_attacks, attacked[attacked["role"] == "blocks"], victims),
        "verdict": drawn(draw_verdict, tables["verdict"]),
        "retrain": drawn(draw_curves, attacked, victims),
        "fineness": drawn(draw_fineness, tables["fineness"], victims),
        "search": drawn(draw_search, tables["search"]),
        "trajectory": drawn(draw_trajectory, tables["search"], victims, 2.0),
        "retraining": drawn(draw_retraining, tables["retraining"], tables["trajectory"], victims, tables["controls"]),
        "stream": drawn(draw_stream, tables["stream"]),
    }
    for name, figure in figures.items():
        lines = [each for each in lines_of(figure) if "reported" not in each[1]]
        for title, label, heights in lines:
            assert not between(heights), (name, title, label, heights)
        both = [height for _, label, heights in lines for height in heights if not REFERENCES.search(label)]
        if part not in (*OF_IMAGES, *SHOWN_BUT_ONCE.get(name, ())):
            assert min(both) < 20 and max(both) > 80, f"{name}: both threats are drawn"
        words = [axis.get_title(loc="left") for axis in figure.axes]
        words += [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()]
        if part in ("defence", "parameter") and name != "stream":
            assert any("defended by rescale" in text.replace("\n", " ") for text in words), name
        if part in ("activations", "requests") and name != "stream":
            assert any("sees the" in text.replace("\n", " ") for text in words), name


SHOWN_BUT_ONCE = {  # parts of which a figure shows one alone, or that its table has not
    "retrain": ("share",),
    "stream": tuple(set(PARTS) - {"share"}),
}


REFERENCES = re.compile("the victim itself|chance|in their places|places known|margin|training|recipe|images alone")
SERVICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "topology": ({"topology": "sources"}, {"topology": "coordinator"}),
    "order": ({"order": "random"}, {"order": "forward"}),
    "observed": ({"observed_share": 1.0}, {"observed_share": 0.5}),
    "requests": ({"requests": 1}, {"requests": 10}),
    "leaked": ({"labelled": 0}, {"labelled": 5}),
    "parameter": ({"obfuscation": "relays", "params": "relays=2"}, {"obfuscation": "relays", "params": "relays=4"}),
}


@pytest.mark.parametrize("part", SERVICES)
@pytest.mark.parametrize("held", [0.0, 0.5])
def test_no_two_services_and_no_two_that_watch_one_are_mixed(
    part: str, held: float, drawn: Callable[..., Figure]
) -> None:
    rows = []
    for (changed, reached), hiding, requests in product(
        zip(SERVICES[part], (LOW, HIGH), strict=True), (("none", ""), ("relays", "relays=2")), (1, 10)
    ):
        about = stream_row(0, 0, *hiding, 1.0, held, requests, "adaptive", reached, reached if held else None)
        rows.append(about | {"known_places_accuracy": HIGH, "position_accuracy": reached, "victim": "victim"} | changed)
    table = made_up.marked("stream", pd.DataFrame(rows).drop_duplicates())
    for text in (*sentences(table), *map("; ".join, table_rows(table))):
        assert not between(accuracies(text)), text
        assert not between(re.findall(r"(?<![\d.])[01]\.\d\d(?![\d.])", text), 1), text
    for title, label, heights in lines_of(drawn(draw_stream, table)):
        assert not between(heights, 100 if "devices held" in title else 1), (title, label, heights)
