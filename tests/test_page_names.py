"""What holds of the whole page and every figure: a percentage says what it is of, a failed control is never left out.

Made-up tables of two victims, each cut into blocks of two sizes; refine failed its planted control with labels.
"""

import re
from html import unescape
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import report_tables as made_up
from scatterproof.analysis.breakeven import breakeven_table, retraining_table
from scatterproof.analysis.tables import trajectory_table
from scatterproof.analysis.verdict import verdict_table
from scatterproof.config.study import Study
from scatterproof.report.figures import base as figures
from scatterproof.report.figures.curves import draw_curves
from scatterproof.report.figures.plateau import draw_plateau
from scatterproof.report.figures.retraining import draw_retraining
from scatterproof.report.figures.searches import draw_search, draw_trajectory
from scatterproof.report.figures.stream import draw_stream
from scatterproof.report.headline import headline
from scatterproof.report.page import build_page
from scatterproof.report.provenance import provenance
from scatterproof.report.sections.attacks import draw_attacks
from scatterproof.report.sections.controls import marked_tables
from scatterproof.report.sections.fineness import draw_fineness
from scatterproof.report.sections.verdicts import draw_verdict
from test_stream_report import row as stream_row

VICTIMS, SIZES, SEEDS = ("victim", "copy_free"), (16, 32), range(5)
ROLES = {"refine": "blocks", "fingerprint": "blocks", "layer": "withheld", "nothing": "withheld", "whitebox": "ceiling"}
REACHED = {"refine": 0.93, "fingerprint": 0.6, "layer": 0.92, "nothing": 0.1, "whitebox": 0.95}
STUDY = Study.model_validate({"study": "made-up", "block_sizes": [16, 32], "further_victims": {"copy_free": {}}})


def about(victim: str, seed: int, size: int, keep: float) -> dict[str, Any]:
    return {"study": "made-up", "victim_seed": seed, "layer": "fc", "block_size": size, "keep": keep, "victim": victim}


def attacks() -> pd.DataFrame:
    rows = []
    for victim, seed, size, keep, knows, name, step in product(
        VICTIMS, SEEDS, SIZES, (0.25, 1.0), ("none", "labels"), ROLES, (0, 1)
    ):
        if name in ("refine", "layer") and knows == "none":
            continue
        accuracy = REACHED[name] * (0.5 if name in ("refine", "fingerprint") and keep < 1 else 1.0) + 0.002 * seed
        rows.append(
            about(victim, seed, size, keep)
            | {"attack": name, "role": ROLES[name], "threat": f"layer-{keep:g}-100-{knows}", "images": 100}
            | {"knows": knows, "params": "", "seed": 0, "step": step, "last": step == 1}
            | {"activations": "none", "requests": 0, "defence": "none", "defence_params": "", "obfuscation": "none"}
            | {"accuracy": accuracy if step else 0.1, "withheld_accuracy": 0.92, "relative_accuracy": accuracy / 0.95}
            | {"known_places_accuracy": 0.9, "fidelity": accuracy, "position_accuracy": 0.5, "evaluations": np.nan}
            | {"device": made_up.DEVICE, "device_minutes": 0.1 * (step + 1), "cost_over_retraining": 0.2}
        )
    return pd.DataFrame(rows)


def controls() -> pd.DataFrame:
    rows = []
    for victim, (name, knows), control in product(
        VICTIMS, (("refine", "labels"), ("fingerprint", "none")), ("planted", "random")
    ):
        failed = (name, control) == ("refine", "planted")
        measured = {"value": 0.9375, "ci_low": 0.87, "ci_high": 0.97, "bound": 0.99, "passed": not failed}
        rows.append(
            about(victim, 0, 32, 1.0)
            | {"attack": name, "threat": f"layer-1-100-{knows}", "control": control, "measure": "position_accuracy"}
            | {"shuffles": 10, **measured}
        )
    return pd.DataFrame(rows)


def searches() -> pd.DataFrame:
    rows = [
        about(victim, seed, size, keep)
        | {"threat": f"layer-{keep:g}-100-labels", "attack": "annealing", "fitness": "loss", "population": np.nan}
        | {"images": 100, "budget": 50, "seed": run, "generation": step, "evaluations": 10 * (step + 1)}
        | {"best_fitness": -2.0 + step, "accuracy": 0.1 + 0.3 * step + 0.01 * run, "device": made_up.DEVICE}
        | {"device_minutes": 0.1 * (step + 1), "gpu_minutes": np.nan}
        for victim, seed, size, keep, run, step in product(VICTIMS, SEEDS, SIZES, (0.25, 1.0), range(2), range(2))
    ]
    return pd.DataFrame(rows)


def stream() -> pd.DataFrame:
    rows = []
    for victim, size, seed, requests, (obfuscation, params) in product(
        VICTIMS, SIZES, range(3), (1, 10), (("none", ""), ("relays", "relays=2"))
    ):
        mine = {"victim": victim, "block_size": size}
        rows.append(stream_row(seed, 0, obfuscation, params, 1.0, 0.0, requests, "adaptive", 0.5, None) | mine)
        if obfuscation == "none":
            rows.append(stream_row(seed, 0, "none", "", 0.0, 1.0, requests, "adaptive", 1.0, 0.6) | mine)
    return pd.DataFrame(rows)


def plateau() -> pd.DataFrame:
    rows = [
        about(victim, 0, size, 1.0)
        | {"images": images, "fitness": "loss", "correct_share": share, "draws": 100, "distinct": 50, "snr": 0.1}
        | {"auc": 0.6, "auc_low": 0.55, "auc_high": 0.65}
        for victim, size, images, share in product(VICTIMS, SIZES, (10, 30), (0.0, 0.5))
    ]
    return pd.DataFrame(rows)


def fineness() -> pd.DataFrame:
    rows = [
        about(victim, seed, size, 1.0)
        | {"width": 0.1, "blocks": 6400 // size, "whole_blocks": 6400 // size, "attack": "fingerprint"}
        | {"threat": "layer-1-100-none", "images": 100}
        | {"accuracy": 0.02 * size, "relative_accuracy": 0.02 * size, "position_accuracy": 0.02 * size}
        | {"own_evidence": 0.02 * size, "own_evidence_of_chance": 0.0}
        | {"residual_bits": 100.0, "device_minutes": 0.1}
        for victim, seed, size in product(VICTIMS, SEEDS, SIZES)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    basic = made_up.basic_tables()
    victims = basic["victim"]
    trajectory = trajectory_table(searches(), attacks())
    retraining = retraining_table(victims, basic["curve"], [], 40)
    written = {
        **basic,
        "search": searches(),
        "attacks": attacks(),
        "controls": controls(),
        "verdict": verdict_table(attacks(), controls()),
        "stream": stream(),
        "plateau": plateau(),
        "fineness": fineness(),
        "trajectory": trajectory,
        "retraining": retraining,
        "breakeven": breakeven_table(retraining, trajectory, victims),
    }
    folder = tmp_path_factory.mktemp("tables")
    for name, table in written.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return {name: pd.read_csv(folder / f"{name}.csv") for name in written}


@pytest.fixture(scope="module")
def drawn(tables: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found, folder = marked_tables(tables), tmp_path_factory.mktemp("figures")
    victims, attacked = found["victim"], found["attacks"]
    on_blocks, one = attacked[attacked["role"] == "blocks"], found["plateau"]
    retraining = found["retraining"], found["trajectory"], victims, found["controls"]
    return {
        "prune": figures.draw_prune(found["prune"], victims, found["threshold"], 16, folder / "prune.svg"),
        "shuffle": figures.draw_shuffle(found["shuffle"], victims, 16, folder / "shuffle.svg"),
        "theory": figures.draw_theory(found["theory"], 16, folder / "theory.svg"),
        "search": draw_search(found["search"], folder / "search.svg"),
        "trajectory": draw_trajectory(found["search"], victims, 2.0, folder / "trajectory.svg"),
        "attacks": draw_attacks(on_blocks, victims, folder / "attacks.svg"),
        "verdict": draw_verdict(found["verdict"], folder / "verdict.svg"),
        "retrain": draw_curves(attacked, victims, folder / "retrain.svg"),
        "fineness": draw_fineness(found["fineness"], victims, folder / "fineness.svg"),
        "stream": draw_stream(found["stream"], folder / "stream.svg"),
        "plateau": draw_plateau(one[(one["victim"] == "victim") & (one["block_size"] == 16)], folder / "plateau.svg"),
        "retraining": draw_retraining(*retraining, folder / "retraining.svg"),
    }


@pytest.fixture(scope="module")
def page(tables: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Without the figures and the configuration."""
    made = provenance(STUDY, tables, "x", tmp_path_factory.mktemp("repository"))
    return build_page(tables, {}, made).partition("<pre>")[0]


def paragraphs(page: str) -> list[str]:
    texts = re.findall("<p(?: [^>]*)?>(.*?)</p>", page, re.S)
    return [" ".join(unescape(re.sub("<[^>]+>", "", text)).split()) for text in texts]


ACCURACY = re.compile(r"\d\.\d %")  # shares that a study sets have no decimals
WHOSE = re.compile(r"\b(victim|copy free)\b.*?, blocks of \d+ x \d+|\b(victim|copy free)'s \d+ x \d+ blocks")
OF_SHARE = re.compile(r"\d %( of them held|\)| of the )|this share of the blocks")


def test_every_sentence_with_an_accuracy_names_victim_block_size_and_share(page: str) -> None:
    sentences = [text for text in paragraphs(page) if ACCURACY.search(text)]
    assert len(sentences) > 40
    for text in sentences:
        assert WHOSE.search(text) and OF_SHARE.search(text), text


def test_each_victim_and_size_that_was_measured_has_sentences_of_its_own(page: str) -> None:
    texts = paragraphs(page)
    for victim, size, part in product(("victim", "copy free"), SIZES, ("ends with", "reaches", "index", "coin")):
        mine = [text for text in texts if text.startswith(f"{victim}, blocks of {size} x {size}")]
        assert any(part in text for text in mine), (victim, size, part)


def test_every_row_of_a_table_with_accuracies_names_victim_block_size_and_share(page: str) -> None:
    for table in re.findall("<table>(.*?)</table>", page, re.S):
        head, caption = (
            re.findall('<th scope="col">(.*?)</th>', table),
            re.findall("<caption>(.*?)</caption>", table)[0],
        )
        measured = any("accuracy" in cell or "placed" in cell for cell in head) or "accuracy" in caption
        if measured and "Reported" not in caption and "victims:" not in caption:
            named = {*head, *(head[0].split(", ") if head else ())}
            assert "victim" in named or "blocks of" in table or WHOSE.search(caption), caption
            assert "block size" in named or "size" in "".join(head) or "blocks of" in table, caption
            shares = {"blocks held", "devices held", "blocks needed", "threat: blocks held; what the pirate has"}
            assert shares & named or "Every block held" in caption, caption


def test_every_panel_that_holds_accuracies_names_its_victim_and_blocks(drawn: dict[str, Path]) -> None:
    for name, path in drawn.items():
        text = made_up.words_of(path)
        for victim in ("victim", "copy free") if name not in ("plateau", "theory") else ("",):
            expected = rf"{victim}, (blocks of 16 x 16|100 % of the blocks held)" if victim else "blocks of 16 x 16"
            assert re.search(expected, text), (name, victim)
        if name in ("search", "trajectory", "retrain", "retraining", "plateau", "theory"):
            assert "% of them held" in text, name


FAILED = re.compile(r"\brefine\b(?! \(control failed: planted)")
NO_CONTROL = re.compile(r"\bsimulated annealing\b(?! \(no control\))")


def test_a_failed_control_stands_wherever_the_attack_is_named(
    page: str, drawn: dict[str, Path], tables: dict[str, pd.DataFrame]
) -> None:
    text = re.sub("<[^>]+>", "", page)
    assert text.count("refine (control failed: planted") > 20
    shown = {"page": text, "headline.md": headline(tables)} | {k: made_up.words_of(path) for k, path in drawn.items()}
    for name, words in shown.items():
        assert not FAILED.search(words) and not NO_CONTROL.search(words), name
    for name in ("attacks", "retrain", "retraining"):
        assert "refine (control failed: planted)" in shown[name], name


def test_an_attack_whose_control_failed_is_chosen_nowhere(page: str, tables: dict[str, pd.DataFrame]) -> None:
    assert "refine" not in set(tables["verdict"]["attack"]) | set(tables["verdict"]["ends_with_attack"])
    labels = tables["verdict"][tables["verdict"]["knows"] == "labels"]
    assert labels["controls"].str.startswith("passed; left out: refine (control failed: planted;").all()
    head = re.findall('<section id="answer">(.*?)</section>', page, re.S)[0]
    assert (
        "passed" not in head
        and "refine (control failed: planted): blocks placed rightly 93.8 %, needed more than 99 %"
        in " ".join(paragraphs(head))
    )
    rows = re.findall("<tr>(.*?)</tr>", page, re.S)
    placed = [re.findall("<td>(.*?)</td>", row)[2:4] for row in rows if "with the blocks</td>" in row]
    assert {place for place, name in placed if name.startswith("refine")} == {"-"}
    cheapest = [re.findall("<td>(.*?)</td>", row) for row in rows if "not tried</td>" in row]
    assert cheapest and not any(row[2].startswith("refine") for row in cheapest)


def test_no_verdict_is_called_protected_or_safe(page: str, drawn: dict[str, Path]) -> None:
    for text in (page, *(made_up.words_of(path) for path in drawn.values())):
        assert not re.search(r"\b(protect(ed|s)|safe)\b", text, re.I)
    assert "#009e73" not in drawn["verdict"].read_text().lower(), "green"


def test_the_page_says_in_red_whether_the_pirate_ends_with_the_model(page: str) -> None:
    first = paragraphs(page)[0]
    expected = "No: holding 25 % of the victim's 16 x 16 blocks, or none, and 100 labelled images, a pirate ends with"
    assert first.startswith(expected) and '<p class="sentence alarm">' in page, first
    counted = "victim, blocks of 16 x 16: under 2 of 4 threats the pirate ends with 95 %"
    assert any(text.startswith(counted) for text in paragraphs(page))
    red = [re.sub("<[^>]+>", "", text) for text in re.findall('<b class="alarm">(.*?)</b>', page)]
    assert "the pirate ends with 92.4 of 95.4 % (layer, without the blocks)" in red
