"""What a reader is told of: images where there are images, else texts or inputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from report_tables import words_of
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.study import Study
from scatterproof.report.figures.curves import draw_curves
from scatterproof.report.figures.retraining import draw_retraining
from scatterproof.report.figures.searches import draw_search, draw_trajectory
from scatterproof.report.headline import headline
from scatterproof.report.input_words import inputs_called
from scatterproof.report.page import build_page
from scatterproof.report.provenance import provenance
from scatterproof.report.sections.attacks import draw_attacks
from scatterproof.report.sections.controls import marked_tables
from scatterproof.report.sections.fineness import draw_fineness
from scatterproof.report.threat_words import granted
from test_grouping import made_tables

ARRAYS = {"kind": "arrays", "path": "own.npz"}
TEXT = {"kind": "text", "path": "own.txt", "tokenizer": "own"}


@pytest.mark.parametrize(
    ("dataset", "noun"),
    [
        ({}, "images"),
        ({"kind": "npz", "path": "own.npz"}, "images"),
        (ARRAYS, "inputs"),
        ({**ARRAYS, "inputs": "tokens"}, "inputs"),
        ({**ARRAYS, "inputs": "images"}, "images"),
        (TEXT, "texts"),
    ],
)
def test_inputs_are_called_by_their_kind(dataset: dict[str, Any], noun: str) -> None:
    assert DatasetConfig.model_validate(dataset).noun == noun


def test_words_are_of_images_again_where_another_study_ends() -> None:
    with inputs_called("texts"):
        assert granted(100, "none") == "100 unlabelled texts" and granted(0, "none") == "no texts"
    assert granted(100, "logits") == "100 images with the victim's logits"


def test_a_study_of_token_ids_speaks_of_no_image(tmp_path: Path) -> None:
    """Neither on its page, but for its configuration, nor in its headline and figures."""
    tables = {name: table.reset_index(drop=True) for name, table in made_tables("images").items()}
    study = Study.model_validate({"study": "made-up", "block_sizes": [16], "dataset": ARRAYS})
    page = build_page(tables, {}, provenance(study, tables, "x", tmp_path)).partition("<pre>")[0]
    assert "image" not in page and "100 labelled inputs" in page and "test inputs" in page
    marked = marked_tables(tables)
    victims, attacked = marked["victim"], marked["attacks"]
    drawn: dict[Callable[..., Path], tuple[Any, ...]] = {
        draw_attacks: (attacked[attacked["role"] == "blocks"], victims),
        draw_curves: (attacked, victims),
        draw_fineness: (marked["fineness"], victims),
        draw_search: (marked["search"],),
        draw_trajectory: (marked["search"], victims, 2.0),
        draw_retraining: (marked["retraining"], marked["trajectory"], victims, marked["controls"]),
    }
    with inputs_called("inputs"):
        assert "image" not in headline(tables)
        for draw, arguments in drawn.items():
            words = words_of(draw(*arguments, tmp_path / "figure.svg")).replace("image/svg+xml", "")
            assert "inputs" in words and "image" not in words, draw.__name__
