"""P1 and S1: what is drawn, and that every row is the same however the cells are sliced."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from scatterproof.blocks import UNPLACED, BlockGrid, Layout, Placement
from scatterproof.config.study import PruneConfig, ShuffleConfig
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.grid_cells import Cell, prune_cells, shuffle_cells, slice_count
from scatterproof.judging.prune_shuffle import displace, draw_placement, prune, shuffle
from scatterproof.judging.victim_metrics import victim_metrics
from scatterproof.puzzle import Answer, Puzzle
from small import dataset, network, puzzle, vgg

DATA = dataset()
CONFIG = vgg()
MODEL = network(CONFIG)
CPU = torch.device("cpu")
SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.77, 1.0])


def answer_of(layout: Layout, seed: int = 0) -> Answer:
    return Answer(Placement.random(layout.positions, torch.Generator().manual_seed(seed)), layout)


EDGES = answer_of(Layout({"a": BlockGrid(10, 13, 3, 3), "b": BlockGrid(2, 9, 3, 3)}))


def cell(keep: float, moved: float, repeat: int, block_size: int = 11) -> Cell:
    return Cell(block_size, keep, moved, repeat)


@pytest.fixture(scope="module")
def evaluated() -> tuple[PlacementEvaluator, Answer]:
    found, answer = puzzle(MODEL, CONFIG, DATA, 11, images=6)
    return PlacementEvaluator(found, DATA.test.images, DATA.test.labels, CPU), answer


# Draws


@given(SHARES, SHARES, SHARES, st.integers(0, 5))
def test_a_larger_share_keeps_what_a_smaller_one_kept(less: float, more: float, moved: float, repeat: int) -> None:
    few, many = (draw_placement(EDGES, cell(k, moved, repeat), (1,)).positions for k in sorted((less, more)))
    assert bool((many[few != UNPLACED] != UNPLACED).all())


@given(SHARES, st.integers(0, 5))
def test_kept_blocks_lie_in_their_true_places(keep: float, repeat: int) -> None:
    positions = draw_placement(EDGES, cell(keep, 0.0, repeat), (1,)).positions
    placed = positions != UNPLACED
    assert int(placed.sum()) == round(keep * len(positions))
    assert torch.equal(positions[placed], EDGES.placement.positions[placed])


@given(SHARES, SHARES, st.integers(0, 20))
def test_only_the_share_moved_leaves_its_place_and_only_for_its_own_shape(keep: float, moved: float, n: int) -> None:
    true = EDGES.placement.positions
    kept = draw_placement(EDGES, cell(keep, 0.0, n), (1,)).positions != UNPLACED
    positions = draw_placement(EDGES, cell(keep, moved, n), (1,)).positions
    assert torch.equal(positions != UNPLACED, kept)
    assert int((positions != true)[kept].sum()) <= round(moved * int(kept.sum()))
    assert len(positions[kept].unique()) == int(kept.sum())
    classes = EDGES.layout.shape_classes()
    assert torch.equal(classes[positions[kept]], classes[true[kept]])


def test_exactly_the_blocks_named_are_displaced() -> None:
    layout = Layout({"a": BlockGrid(40, 40, 1, 1)})
    answer = answer_of(layout)
    blocks = torch.arange(0, 1600, 2)
    found = displace(answer.placement, blocks, layout, torch.Generator().manual_seed(0)).positions
    changed = found != answer.placement.positions
    assert not bool(changed[1::2].any())
    assert int(changed[::2].sum()) > 780  # one of 800 stays by chance, on average


def test_a_displaced_block_may_take_any_free_place_alike() -> None:
    """Four positions, one of them held: three are free to the two blocks displaced."""
    layout = Layout({"a": BlockGrid(2, 2, 1, 1)})
    start = Placement(torch.tensor([0, 1, 2]), 4)
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(4, 4)
    for _ in range(1200):
        found = displace(start, torch.tensor([0, 2]), layout, generator).positions
        counts[found[0], found[2]] += 1
    seen = counts[counts > 0]
    assert len(seen) == 6  # ordered pairs of the places 0, 2, 3
    assert counts[1].sum() == counts[:, 1].sum() == 0
    assert chisquare(seen.numpy()).pvalue > 1e-4


def test_kept_blocks_are_drawn_alike() -> None:
    answer = answer_of(Layout({"a": BlockGrid(2, 4, 1, 1)}))
    counts = torch.zeros(8)
    for repeat in range(800):
        counts += draw_placement(answer, cell(0.25, 0.0, repeat), (3,)).positions != UNPLACED
    assert int(counts.sum()) == 1600
    assert chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("other", [(cell(0.5, 1.0, 1), (1,)), (cell(0.5, 1.0, 0), (2,))])
def test_draws_depend_on_repeat_and_key(other: tuple[Cell, tuple[int]]) -> None:
    one = draw_placement(EDGES, cell(0.5, 1.0, 0), (1,)).positions
    assert torch.equal(one, draw_placement(EDGES, cell(0.5, 1.0, 0), (1,)).positions)
    assert not torch.equal(one, draw_placement(EDGES, *other).positions)


# Rows


def test_everything_kept_scores_as_the_victim_to_the_last_bit(tmp_path: Path) -> None:
    metrics = victim_metrics(*puzzle(MODEL, CONFIG, DATA, 16, images=6), DATA, CPU, 7)
    found, answer = puzzle(MODEL, CONFIG, DATA, 11, images=6)
    found.save(tmp_path / "puzzle")
    scorer = PlacementEvaluator(Puzzle.load(tmp_path / "puzzle"), DATA.test.images, DATA.test.labels, CPU, 7)
    rows = prune(scorer, answer, [cell(1.0, 0.0, r) for r in range(2)], ["none", "scale", "mean"], (5,))
    assert len(rows) == 6
    assert {row["block_size"] for row in rows} == {11}
    assert {(row["accuracy"], row["loss"]) for row in rows} == {(metrics["accuracy"], metrics["loss"])}
    assert (metrics["copies"], metrics["layer"], metrics["block_size"]) == (49, "classifier.0", 16)
    assert metrics["parameters"] == sum(value.numel() for value in MODEL.state_dict().values())


def test_nothing_kept_is_scored(evaluated: tuple[PlacementEvaluator, Answer]) -> None:
    rows = prune(*evaluated, [cell(0.0, 0.0, 0)], ["none", "scale", "mean"], (5,))
    assert len({(row["accuracy"], row["loss"]) for row in rows}) == 1
    assert shuffle(*evaluated, [cell(0.0, 1.0, 0)], (5,))[0]["loss"] == rows[0]["loss"]


def test_slicing_the_cells_changes_no_row(evaluated: tuple[PlacementEvaluator, Answer]) -> None:
    cells = [cell(k, m, r) for k in (0.3, 1.0) for m in (0.0, 0.5) for r in range(2)]
    whole = shuffle(*evaluated, cells, (5,))
    assert [row for i in range(0, 8, 3) for row in shuffle(*evaluated, cells[i : i + 3], (5,))] == whole
    kept = cells[::2]
    pruned = prune(*evaluated, kept, ["none", "mean"], (5,))
    single = [row for cell in kept for row in prune(*evaluated, [cell], ["none", "mean"], (5,))]
    order = [(row["correction"], row["keep"], row["repeat"], row["accuracy"], row["loss"]) for row in single]
    assert sorted(order) == sorted(
        (row["correction"], row["keep"], row["repeat"], row["accuracy"], row["loss"]) for row in pruned
    )


def test_nothing_moved_is_pruning(evaluated: tuple[PlacementEvaluator, Answer]) -> None:
    cells = [cell(0.4, 0.0, r) for r in range(3)]
    found, wanted = shuffle(*evaluated, cells, (5,)), prune(*evaluated, cells, ["none"], (5,))
    assert [row["loss"] for row in found] == [row["loss"] for row in wanted]


# Cells


def test_cells_are_every_combination_once() -> None:
    shuffled = shuffle_cells(ShuffleConfig(keep=[0.1, 1.0], moved=[0.5, 1.0], repeats=3), [8, 16])
    assert len(shuffled) == len(set(shuffled)) == 24
    pruned = prune_cells(PruneConfig(keep=[0.0, 0.5], repeats=2), [8, 16])
    assert pruned == [cell(k, 0.0, r, size) for size in (8, 16) for k in (0.0, 0.5) for r in range(2)]


@given(st.integers(0, 500), st.integers(1, 60))
def test_slices_hold_every_cell_and_none_is_empty(cells: int, per_job: int) -> None:
    sizes = [len(range(cells)[i * per_job : (i + 1) * per_job]) for i in range(slice_count(cells, per_job))]
    assert sum(sizes) == cells
    assert all(sizes)
