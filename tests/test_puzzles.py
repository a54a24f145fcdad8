"""Which puzzles are cut by which job: every stage's its own, so that one more changes no other's."""

from copy import deepcopy
from typing import Any

import pytest

from scatterproof.config.puzzles import Cut, cuts_json, cuts_of_json, puzzle_parts
from scatterproof.config.study import parse_study
from scatterproof.config.threat import ThreatModel

STUDY: dict[str, Any] = {
    "study": "parts",
    "victim": {"base": "initialisation"},
    "block_sizes": [16, 64],
    "prune": {"images": 8},
    "search": {"grids": [{"images": [8], "keep": [0.1, 1.0]}]},
    "plateau": {"correct": [0.5], "images": [8]},
    "attacks": {
        "block_size": 64,
        "grids": [{"images": [8], "knows": ["none", "logits"]}, {"images": [0], "base_model": [True]}],
    },
    "fineness": {"block_sizes": [16, 32], "images": 8},
    "stream": {"images": 8, "grids": [{"held": [0.5]}]},
}


def files(study: dict[str, Any]) -> dict[str, list[str]]:
    return {part: [cut.file for cut in cuts] for part, cuts in puzzle_parts(parse_study(study, "test")).items()}


def test_every_stage_has_parts_of_its_own() -> None:
    assert files(STUDY) == {
        "grid": ["b16/layer-1-8-none.safetensors", "b64/layer-1-8-none.safetensors"],
        "layer-0.1-8-labels": ["b16/layer-0.1-8-labels.safetensors"],
        "layer-1-8-labels": ["b16/layer-1-8-labels.safetensors"],  # the plateau's as well
        "layer-0.5-8-none": ["b16/layer-0.5-8-none.safetensors"],
        "attacks.0": ["b64/layer-1-8-none.safetensors"],
        "attacks.1": ["b64/layer-1-8-logits.safetensors"],
        "attacks.2": ["b64/layer-1-0-none-base.safetensors"],
        "fineness": ["b16/layer-1-8-none.safetensors", "b32/layer-1-8-none.safetensors"],
    }
    assert files({"study": "least"}) == {"grid": ["b256/layer-1-100-none.safetensors"]}


@pytest.mark.parametrize(
    ("section", "change", "touched"),
    [
        ("search", {"grids": [{"images": [8], "keep": [0.1, 0.3, 1.0]}]}, {"layer-0.3-8-labels"}),
        ("attacks", {"grids": [*STUDY["attacks"]["grids"], {"images": [9]}]}, {"attacks.3"}),
        ("stream", {"grids": [{"held": [0.5, 0.25]}]}, {"layer-0.25-8-none"}),
        ("fineness", {"block_sizes": [16, 32, 64]}, {"fineness"}),
        ("block_sizes", [16, 64, 32], {"grid"}),
    ],
)
def test_one_more_threat_or_size_changes_no_other_part(section: str, change: Any, touched: set[str]) -> None:
    study = deepcopy(STUDY)
    study[section] = study[section] | change if isinstance(change, dict) else change
    before, after = files(STUDY), files(study)
    assert {part for part in after if after[part] != before.get(part)} == touched
    assert before.keys() <= after.keys()


def test_puzzles_survive_being_a_rules_parameter() -> None:
    cuts = [Cut(16, ThreatModel(share=0.1, images=3, knows="labels")), Cut(8, ThreatModel(base_model=True))]
    assert cuts_of_json(cuts_json(cuts)) == cuts
