"""The plateau: what is drawn, and signal, noise and auc where the truth is known."""

import math
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scatterproof.blocks import UNPLACED, BlockGrid, Layout, Placement
from scatterproof.config.victim import VictimConfig
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.plateau import Moves, draw_moves, plateau
from scatterproof.puzzle import Answer
from scatterproof.report.figures.plateau import draw_plateau
from small import dataset, network, puzzle

CPU = torch.device("cpu")
IMAGES = 240
DATA = dataset()
LAYOUT = Layout({"a": BlockGrid(13, 17, 3, 3), "b": BlockGrid(6, 9, 3, 3)})  # 20 + 6 whole blocks among 30 + 6
WHOLE = LAYOUT.ambiguous()


def linear() -> nn.Module:
    """Linear all through: a scattered layer of 4 x 24 blocks and a row of edges, and one that reads it."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 37, bias=False), nn.Linear(37, 5, bias=False))


CONFIG = VictimConfig(model="test_plateau:linear", input_size=8, layer="1")
MODEL = network(CONFIG)


def answer_of(share: float = 1.0) -> Answer:
    placement = Placement.random(LAYOUT.positions, torch.Generator().manual_seed(0))
    return Answer(Placement(placement.positions[: round(share * len(placement))], LAYOUT.positions), LAYOUT)


def drawn(answer: Answer, correct: int, draws: int, seed: int) -> Moves:
    return draw_moves(answer, correct, draws, torch.Generator().manual_seed(seed))


def right(answer: Answer, block_at: torch.Tensor) -> torch.Tensor:
    """Whole blocks that lie where they belong: int64 [draws]."""
    true = answer.placement.blocks()
    return ((block_at == true) & (true != UNPLACED))[:, WHOLE].sum(1)


@cache
def made(planted: bool) -> tuple[PlacementEvaluator, Answer]:
    """Noise images with the network's own classes as labels, or with random ones."""
    found, answer = puzzle(MODEL, CONFIG, DATA, 8)
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (IMAGES, 1, 8, 8), generator=generator).to(torch.uint8)
    labels = torch.randint(5, (IMAGES,), generator=generator)
    if planted:
        with torch.inference_mode():
            labels = MODEL(found.inputs(images)).argmax(1)
    return PlacementEvaluator(found, images, labels, CPU), answer


@cache
def rows(planted: bool, draws: int = 60) -> list[dict[str, Any]]:
    return plateau(*made(planted), [0.0, 0.5, 0.9], [8, 40, IMAGES], draws, ("test",))


# Draws


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0.4, 0.7, 1.0]), st.floats(0, 1), st.integers(0, 99))
def test_exactly_the_share_claimed_is_right_and_a_right_move_adds_one(share: float, part: float, seed: int) -> None:
    answer = answer_of(share)
    true = answer.placement.blocks()
    correct = int(part * (int((true[WHOLE] != UNPLACED).sum()) - 4))
    start, good, bad = moves = drawn(answer, correct, 20, seed)
    assert right(answer, start).tolist() == [correct] * 20
    assert right(answer, good).tolist() == [correct + 1] * 20
    assert right(answer, bad).tolist() == [correct] * 20
    for block_at in moves:
        assert torch.equal(block_at[:, ~WHOLE], true[~WHOLE].expand(20, -1))
        assert torch.equal(block_at.sort(1)[0], true.sort()[0].expand(20, -1))
    assert ((start != good).sum(1) == 2).all()
    assert ((start != bad).sum(1) == 2).all()


def test_four_misplaced_blocks_are_enough_and_blocks_and_places_are_drawn_alike() -> None:
    answer = answer_of()
    start, good, bad = drawn(answer, 22, 1300, 0)
    true = answer.placement.blocks()
    for changed in (start != true, good != start, bad != start):
        counts = changed.sum(0)[WHOLE].double()
        assert float(((counts - counts.mean()) ** 2).sum() / counts.mean()) < 60  # chi-squared of 25 degrees


# Rows


def test_rows_are_one_for_each_share_images_and_fitness() -> None:
    found = [(row["correct"], row["images"], row["fitness"]) for row in rows(True)]
    assert sorted(found) == sorted(product([0, 48, 86], [8, 40, IMAGES], ["accuracy", "loss"]))
    assert {row["correct_share"] for row in rows(True)} == {0, 0.5, 86 / 96}
    for row in rows(True):
        assert 1 <= row["distinct"] <= (row["images"] + 1 if row["fitness"] == "accuracy" else row["draws"])
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
        assert 0 <= row["raising"] <= 1
        if row["noise"] == 0:
            assert all(math.isnan(row[name]) for name in ("snr", "snr_low", "snr_high"))
        else:
            assert row["snr"] == pytest.approx(row["signal"] / row["noise"])


@pytest.mark.parametrize("correct", [0, 48, 86])
def test_a_planted_signal_is_found_and_grows_with_images(correct: int) -> None:
    loss = {row["images"]: row for row in rows(True) if row["fitness"] == "loss" and row["correct"] == correct}
    assert loss[8]["snr"] < loss[40]["snr"] < loss[IMAGES]["snr"]
    assert loss[IMAGES]["snr_low"] > 0
    assert loss[IMAGES]["auc_low"] > 0.5


def test_random_labels_give_no_signal() -> None:
    found = [row for row in rows(False) if row["fitness"] == "loss" and row["images"] == IMAGES]
    assert all(row["snr_low"] <= 0 <= row["snr_high"] and row["auc_low"] <= 0.5 <= row["auc_high"] for row in found)


def test_draws_come_from_the_key_and_images_are_nested() -> None:
    def run(images: list[int], key: int = 0, shares: tuple[float, ...] = (0.25,)) -> list[dict[str, Any]]:
        return plateau(*made(True), shares, images, 5, (key,))

    whole = run([8, 40])
    assert run([40, 8]) == whole
    assert run([40, 8], shares=(0.25, 0.5))[:4] == whole
    assert run([40]) == [row for row in whole if row["images"] == 40]
    assert run([8, 40], 1) != whole


def test_a_network_scored_one_placement_at_a_time_gives_the_same() -> None:
    evaluator, answer = made(True)
    alone = PlacementEvaluator.__new__(PlacementEvaluator)
    alone.__dict__.update(evaluator.__dict__, engine=None)
    one, other = (plateau(scorer, answer, [0.5], [40], 6, (0,)) for scorer in (evaluator, alone))
    assert one[0] == other[0]
    assert one[1]["signal"] == pytest.approx(other[1]["signal"], abs=2e-6)


def test_so_little_misplaced_that_no_move_is_wrong_is_left_out() -> None:
    assert {row["correct"] for row in plateau(*made(True), [0.5, 0.99, 1], [8], 3, (0,))} == {48}


@pytest.mark.parametrize(
    "bad", [{"correct": [1.1]}, {"correct": []}, {"images": []}, {"images": [0]}, {"images": [241]}, {"draws": 1}]
)
def test_bad_input_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad)).replace("correct", "shares")):
        plateau(*made(True), **{"correct": [0.5], "images": [8], "draws": 3, "key": (0,), **bad})


def test_logits_alone_are_no_labels() -> None:
    found, answer = puzzle(MODEL, CONFIG, DATA, 8, images=6)
    scorer = PlacementEvaluator(found, found.images, None, CPU, logits=torch.zeros(6, 5))
    with pytest.raises(ValueError, match="labelled"):
        plateau(scorer, answer, [0.5], [3], 3, (0,))


# Summary


def test_the_figure_is_drawn_from_any_rows(tmp_path: Path) -> None:
    table = pd.DataFrame(rows(True)).assign(victim="victim", block_size=16, keep=1.0)
    seeds = pd.concat([table.assign(victim_seed=seed) for seed in range(2)])
    for part in (table, seeds, table[table["fitness"] == "loss"].assign(snr=np.nan), table[:0]):
        svg = draw_plateau(part, tmp_path / "plateau.svg")
        assert svg.stat().st_size > 0
        assert svg.with_suffix(".png").stat().st_size > 0
