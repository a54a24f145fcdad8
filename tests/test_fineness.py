"""F: sizes that make enough blocks, puzzles without the answer, and thresholds read off the curve."""

from itertools import product
from math import lgamma, log
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import report_tables as made_up
import small
from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.tables import fineness_table
from scatterproof.attacks.base import Machine, Run
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.check import CheckError, check_study
from scatterproof.config.fineness import FinenessConfig
from scatterproof.config.puzzles import Cut
from scatterproof.config.study import PruneConfig, Study, StudyError, parse_study
from scatterproof.config.threat import ThreatModel
from scatterproof.judging.fineness import fine_enough, in_folder, placement_bits, row, sizes_of
from scatterproof.judging.judge import Judge
from scatterproof.judging.own_evidence import evidence
from scatterproof.report.sections.fineness import THRESHOLD_HEAD, draw_fineness, section, sentences, thresholds

DATA = small.dataset(pirate=20)
SIZES = (4, 8, 16, 32, 512)
SEEDS, RISE = range(5), {16: 0.1, 32: 0.4, 64: 0.9, 128: 1.0}


def test_only_sizes_that_make_64_blocks_are_cut() -> None:
    """The layer is 128 x 256: 16 makes 128 blocks, 32 makes 32."""
    model = small.network(small.WIDE)
    assert sizes_of(model, small.WIDE, SIZES) == [4, 8, 16]
    cuts = [Cut(size, ThreatModel(images=8)) for size in SIZES]
    assert fine_enough(model, small.WIDE, cuts) == cuts[:3]
    for size in (4, 8, 16):
        puzzle, answer = small.puzzle(model, small.WIDE, DATA, size, images=8)
        assert len(puzzle.blocks) == 128 * 256 // size**2
        assert puzzle.labels is None and puzzle.logits is None
        cut = answer.layout.cut({"3": model.get_submodule("3").weight.detach()})  # type: ignore[dict-item]
        assert torch.equal(puzzle.blocks, cut[answer.placement.positions])


def test_a_row_counts_bits_over_the_same_blocks(tmp_path: Path) -> None:
    model = small.network(small.WIDE, seed=1)  # right by luck on some test images
    puzzle, answer = small.puzzle(model, small.WIDE, DATA, images=8)
    steps = Fingerprint(rounds=1).run(puzzle, Run(Machine(torch.device("cpu"), 1)))
    judge = Judge(puzzle, answer, model, DATA, torch.device("cpu"))
    found = row(judge, steps) | evidence(judge, Fingerprint(), (0,))
    assert found["blocks"] == found["whole_blocks"] == 128
    assert found["bits_whole"] == pytest.approx(lgamma(129) / log(2))
    assert 0 < found["residual_bits"] < 128 * log(128 / 0.01) / log(2)
    assert found["known_places_accuracy"] >= found["accuracy"] * 0.5
    assert found["minutes"] == steps[-1].minutes
    table = fineness_table([{"victim": "victim", "victim_seed": 0, **found}], "made-up", "cpu")
    assert list(table.columns) == COLUMNS["fineness"]
    for size in (16, 8):
        puzzle.save(tmp_path / Cut(size, puzzle.threat).file)
    assert list(in_folder(tmp_path).items()) == [
        (size, tmp_path / f"b{size}" / "layer-1-8-none.safetensors") for size in (8, 16)
    ]


def test_edge_blocks_are_no_secret() -> None:
    model = small.network(small.vgg())  # 64 x 392
    puzzle, _ = small.puzzle(model, small.vgg(), DATA, 10)
    assert puzzle.layout.positions == 7 * 40
    assert placement_bits(puzzle.layout) == pytest.approx(lgamma(6 * 39 + 1) / log(2))


CONTROLS = pd.DataFrame(
    [
        {"victim": "victim", "attack": "fingerprint", "threat": "layer-1-100-none", "block_size": 64}
        | {"control": "planted", "passed": True}
    ]
)


def recovered(rise: dict[int, float], victim: str = "victim", spread: float = 0.02) -> Any:
    rows = []
    for seed, (size, share) in product(SEEDS, rise.items()):
        blocks = 3136 * 512 // size**2
        share += spread * (seed - 2)
        rows.append(
            {"victim": victim, "victim_seed": seed, "layer": "classifier.0", "block_size": size, "keep": 1.0}
            | {"width": 0.125, "blocks": blocks, "whole_blocks": blocks, "attack": "fingerprint"}
            | {"threat": "layer-1-100-none", "images": 100}
            | {"accuracy": 0.3 * share, "relative_accuracy": share, "known_places_accuracy": 0.3}
            | {"position_accuracy": share, "row_accuracy": share, "column_accuracy": share}
            | {"own_evidence": share, "own_evidence_of_chance": 0.0}
            | {"residual_bits": blocks * (1 - share), "bits_whole": blocks * 9.0, "minutes": 0.1}
        )
    return made_up.marked("fineness", fineness_table(rows, "made-up", made_up.DEVICE), CONTROLS)


def test_the_threshold_is_where_the_curve_crosses() -> None:
    found = thresholds(recovered(RISE)).set_index("level")
    assert found.loc[0.5, "block_size"] == pytest.approx(32 * 2**0.2)
    assert found.loc[0.5, "ci_low"] < 32 * 2**0.2 < found.loc[0.5, "ci_high"]
    assert found.loc[0.5, "seeds"] == 5
    assert found.loc[0.95, "block_size"] == pytest.approx(64 * 2**0.5)


def test_a_threshold_outside_what_was_measured_is_said_to_be() -> None:
    never = thresholds(recovered({16: 0.1, 32: 0.2}))
    assert never["block_size"].isna().all() and never["ci_high"].isna().all()
    always = thresholds(recovered({16: 0.99, 32: 1.0}, spread=0.0))
    assert (always["block_size"] == 16).all()
    shown = section(recovered({16: 0.1, 32: 0.2}), CONTROLS)["fineness_threshold"]
    needed = list(shown.head).index("block size needed")
    assert [row[needed] for row in shown.rows] == ["not reached at 32"] * 2
    one_seed = recovered(RISE)
    one_seed = one_seed[one_seed["victim_seed"] == 0]
    assert thresholds(one_seed)["ci_low"].isna().all()


def test_the_page_shows_each_victim_and_size(tmp_path: Path) -> None:
    shown = section(recovered(RISE), CONTROLS)
    sizes = [row[0].split(", ")[1] for row in shown["fineness"].rows]
    assert sizes == ["16 x 16", "32 x 32", "64 x 64", "128 x 128"]
    assert shown["fineness_words"][-1] == "The controls of fingerprint ran on blocks of 64 x 64 alone."
    thresholds = shown["fineness_threshold"]
    assert thresholds.head[0] == "victim, blocks held", "no defence, so none is named"
    assert {*thresholds.head[1:]} == {*THRESHOLD_HEAD} - {"victim", "blocks held", "defence"}
    assert len(thresholds.rows[0]) == len(thresholds.head)
    (text,) = sentences(recovered(RISE))
    assert text.startswith("victim, blocks of 16 x 16, 100 % of them held in an unknown order (6,272 blocks), 100")
    assert "the fingerprint recovers 10.0 % of the victim's accuracy; in blocks of 128 x 128 (98)" in text
    assert "50 % from 36.8 [" in text
    svg = draw_fineness(recovered(RISE), made_up.victim_table(), tmp_path / "fineness.svg")
    assert "side of the blocks" in svg.read_text() and svg.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("fineness", "named"),
    [
        ({"block_sizes": [16, 16]}, "fineness.block_sizes"),
        ({"block_sizes": [16], "victims": ["other"]}, "fineness.victims: 'other' is no victim of this study"),
        ({"block_sizes": [0]}, "fineness.block_sizes.0"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(fineness: dict[str, Any], named: str) -> None:
    with pytest.raises(StudyError, match=named):
        parse_study({"study": "x", "fineness": fineness}, "x.yaml")


def test_sizes_that_fit_no_victim_and_images_that_are_not_there_are_refused() -> None:
    prune = PruneConfig(corrections=["none"])
    study = Study(study="x", victim=small.vgg(), block_sizes=[16], prune=prune)
    with pytest.raises(
        CheckError, match=r"^fineness.block_sizes \[32\]: none cuts the layer of victim into at least 64"
    ):
        check_study(study.model_copy(update={"fineness": FinenessConfig(block_sizes=[32], images=8)}), DATA)
    with pytest.raises(CheckError, match=r"^fineness.images is 21, but the pirate has 20 images"):
        check_study(study.model_copy(update={"fineness": FinenessConfig(block_sizes=[8], images=21)}), DATA)
