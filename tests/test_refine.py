"""Refinement, relaxation and the base model: each does what it says, and never leaves less than it started from."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import small
from planted import planted_puzzle
from scatterproof.attacks.base import Machine, Placed, Run
from scatterproof.attacks.held_out import clearly_lower, image_losses, scorers, supported
from scatterproof.attacks.prior import Prior, matched
from scatterproof.attacks.proposals import best_cycles
from scatterproof.attacks.refine import Refine
from scatterproof.attacks.relax import Relax, sinkhorn
from scatterproof.blocks import invert, placements_of
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import make_puzzle
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.moves import moved
from scatterproof.judging.controls import planted as plant
from scatterproof.judging.controls import right_places
from scatterproof.judging.prune_shuffle import displace
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.models import dense_layers

HERE = Run(Machine(torch.device("cpu"), 1), ("test",))
CPU = torch.device("cpu")


def held(share: float, size: int = 16, images: int = 20) -> Puzzle:
    config = small.vgg()
    return small.puzzle(
        small.network(config), config, small.dataset(pirate=images), size, images=images, knows="labels", share=share
    )[0]


def scorer(puzzle: Puzzle) -> PlacementEvaluator:
    return PlacementEvaluator(puzzle, puzzle.images, puzzle.labels, CPU, correction="scale")


def anywhere(puzzle: Puzzle, seed: int) -> torch.Tensor:
    """Whole blocks at random places of the whole ones, no others placed."""
    generator = torch.Generator().manual_seed(seed)
    whole = puzzle.layout.ambiguous().nonzero().flatten()
    placement = torch.full((len(puzzle.blocks),), -1)
    mine = (puzzle.shapes == torch.tensor(puzzle.layout.block_shape)).all(1).nonzero().flatten()
    placement[mine] = whole[torch.randperm(len(whole), generator=generator)[: len(mine)]]
    return placement


@pytest.mark.parametrize("size", [16, 24])
def test_batches_correct_for_missing_blocks_as_the_judge_does(size: int) -> None:
    puzzle = held(0.3, size)
    batched, placement = scorer(puzzle), anywhere(puzzle, 0)
    expected = batched.score(placement[None], "scale")
    assert batched.score_population(placement[None]).loss.tolist() == pytest.approx(expected.loss.tolist(), rel=1e-4)
    plain = batched.score(placement[None], "none")
    assert plain.loss.tolist() != pytest.approx(expected.loss.tolist(), rel=1e-3)


def test_moves_into_empty_places_change_their_rows_correction() -> None:
    puzzle = held(0.3)
    batched, placement = scorer(puzzle), anywhere(puzzle, 1)
    block_at = invert(placement, puzzle.layout.positions)
    empty, full = ((block_at < 0).nonzero().flatten(), (block_at >= 0).nonzero().flatten())
    moves = torch.stack([full[:12], empty[-12:]], 1)
    assert int((moves[:, 0] // 25 != moves[:, 1] // 25).sum()) > 0, "some change their row"
    after = placements_of(moved(block_at, moves), len(placement))
    at = batched.at(placement)
    assert at.score(moves).loss.tolist() == pytest.approx(batched.score(after, "scale").loss.tolist(), rel=1e-4)
    at.apply(moves[0])
    block_at = moved(block_at, moves[:1])[0]
    after = placements_of(moved(block_at, moves[1:]), len(placement))
    assert at.score(moves[1:]).loss.tolist() == pytest.approx(batched.score(after, "scale").loss.tolist(), rel=1e-4)


def test_a_mixture_of_one_block_each_is_a_placement() -> None:
    puzzle = held(0.5)
    batched, placement = scorer(puzzle), anywhere(puzzle, 2)
    assert batched.engine is not None
    placed = placement >= 0
    shares = torch.zeros(1, len(placement), puzzle.layout.positions)
    shares[0, placed.nonzero().flatten(), placement[placed]] = 1
    losses, gradient = batched.engine.mixed(shares)
    assert losses.tolist() == pytest.approx(batched.score(placement[None], "scale").loss.tolist(), rel=1e-4)
    step = gradient - gradient.mean(1, keepdim=True)  # what each place holds in all, and the correction with it, stays
    step *= 1e-2 / step.norm()
    found = (batched.engine.mixed(shares + step)[0] - batched.engine.mixed(shares - step)[0]) / 2
    assert found.tolist() == pytest.approx([float((gradient * step).sum())], rel=0.02)


def test_the_best_cycles_are_those_that_first_order_promises() -> None:
    puzzle = held(0.5)
    batched, placement = scorer(puzzle), anywhere(puzzle, 3)
    changes = batched.move_changes(placement)
    cycles = best_cycles(batched, placement, 40)
    values = sum(changes[cycles[:, i], cycles[:, (i + 1) % 3]] for i in range(3))
    assert torch.equal(values, values.sort().values)
    assert len({tuple(cycle) for cycle in cycles.tolist()}) == len(cycles)
    assert all(len(set(cycle)) == 3 for cycle in cycles.tolist())
    lone = changes.clone().fill_diagonal_(torch.inf)
    empty = invert(placement, puzzle.layout.positions) < 0
    lone[empty[:, None] & empty] = torch.inf
    triple = lone[:, :, None] + lone[None] + lone.T[:, None, :]
    assert float(values[0]) == pytest.approx(float(triple.min()), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(0, 3), st.integers(0, 10**6))
def test_sinkhorn_uses_each_block_once_and_fills_no_place_twice(blocks: int, empty: int, seed: int) -> None:
    logits = torch.randn(2, blocks, blocks + empty, generator=torch.Generator().manual_seed(seed))
    found = sinkhorn(logits, torch.ones(blocks, blocks + empty, dtype=torch.bool))
    assert bool(((found.sum(2) - 1).abs() < 0.1).all())
    assert bool((found.sum(1) < 1.1).all())


def starting(answer: Answer, moves: int, seed: int) -> Placed:
    """The truth with some blocks displaced."""
    order = torch.randperm(len(answer.placement), generator=torch.Generator().manual_seed(seed))
    placement = displace(
        answer.placement, order[:moves], answer.layout, torch.Generator().manual_seed(seed + 1)
    ).positions
    return Placed(placement, placement[:, None], torch.full((len(placement), 1), 0.5))


def test_moves_mend_a_placement_and_never_leave_it_worse() -> None:
    """Of 16 blocks 6 displaced: over 5 victims most of the accuracy comes back; from the truth nothing is lost."""
    lost, left, attack = 0.0, 0.0, Refine(proposals=64)
    for seed in range(5):
        puzzle, answer, data = planted_puzzle(seed)
        learn, kept = scorers(puzzle, HERE, "refine", 0.3)
        test = PlacementEvaluator(puzzle, data.test.images, data.test.labels, CPU)
        for moves in (0, 6):
            start = starting(answer, moves, seed)
            *_, last = attack._refined(learn, kept, start, image_losses(kept, start.placement))
            tried = torch.stack([answer.placement.positions, start.placement, last.placement])
            right, before, after = test.score(tried).accuracy.tolist()
            assert after >= before - 0.02
            lost, left = lost + right - before, left + right - after
    assert lost > 0.2
    assert left < 0.2 * lost


def test_a_surer_network_is_seldom_kept_over_the_one_that_the_labels_were_drawn_from() -> None:
    _, scorer = scorers(held(1.0), HERE, "refine", 0.3)
    assert scorer.targets.labels is not None
    drawn, right, surer = torch.Generator().manual_seed(0), torch.tensor([0.05, 0.95]), torch.tensor([0.01, 0.99])
    lower = kept = 0
    for _ in range(1000):
        labels = torch.multinomial(right, 30, replacement=True, generator=drawn)
        first, losses = -right.log()[labels], -surer.log()[labels]
        lower, kept = lower + clearly_lower(losses, first), kept + supported(scorer, losses, first, first)
    assert lower > 150, "in a fifth of the draws no label is the unlikely one, and the surer network looks better"
    assert kept <= 10


def test_what_many_labels_say_is_kept() -> None:
    _, scorer = scorers(held(1.0), HERE, "refine", 0.3)
    first = torch.linspace(0.5, 1.5, 100)
    for gain, expected in ((0.04, False), (0.05, True)):
        assert supported(scorer, first - gain, first, first) == expected, "a hundred to one is 4.6 nats"
    better = first - 0.1
    assert supported(scorer, better - 0.001, better, first), (
        "the odds are against the start, not against the best so far"
    )
    assert not supported(scorer, better + 0.001, better, first)


def test_relaxation_finds_a_small_placement_from_nothing() -> None:
    """16 blocks, labelled images, nothing of the weights' own evidence: over 5 victims, far above the start."""
    gains = []
    for seed in range(5):
        puzzle, _, data = planted_puzzle(seed)
        found = Relax(start="nothing", steps_taken=100, rate=0.2).run(puzzle, HERE)
        placements = torch.stack([found[i].reached.placement for i in (0, -1)])  # type: ignore[union-attr]
        test = PlacementEvaluator(puzzle, data.test.images, data.test.labels, CPU)
        before, after = test.score(placements).accuracy.tolist()
        gains.append(after - before)
    assert min(gains) > -0.02
    assert sum(gains) / len(gains) > 0.3


def test_a_base_model_gives_the_places_away_and_a_foreign_one_does_not() -> None:
    model = small.network(small.WIDE)
    data = small.dataset()
    near, other = small.network(small.WIDE), small.network(small.WIDE, seed=9)
    weight = dense_layers(near)["3"].weight.data
    weight += weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    right = {}
    for name, base in {"near": near, "other": other}.items():
        threat = ThreatModel(images=12, base_model=True, share=0.8)
        puzzle, answer = make_puzzle(model, small.WIDE, data, threat, 16, (0,), base)
        found = Prior().run(puzzle, HERE)[-1].reached
        assert isinstance(found, Placed)
        right[name] = right_places(found, puzzle, answer)
    assert right["near"][0] == right["near"][1]
    assert right["other"][0] < 0.1 * right["other"][1]


def test_cosines_ignore_how_large_a_block_is() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(12, 20, generator=generator)
    order = torch.randperm(12, generator=generator)
    flat = base[order] * torch.rand(12, 1, generator=generator) * 100
    shapes = torch.tensor([[4, 5]]).expand(12, 2)
    found = matched(flat, base, shapes, shapes)
    assert torch.equal(found.placement, order)
    assert float(found.beliefs[:, 0].min()) > 0.9


@pytest.mark.parametrize("attack", [Refine(sweeps=3, rates=[0.01]), Relax(steps_taken=10)], ids=["refine", "relax"])
def test_a_planted_leak_is_found(attack: Refine | Relax) -> None:
    data = small.dataset(pirate=100)
    model = small.network(small.WIDE)
    empty, _ = small.puzzle(model, small.WIDE, data, 16, images=100, knows="logits")
    puzzle, answer = small.puzzle(plant(model, empty, (0,)), small.WIDE, data, 16, images=100, knows="logits")
    found = attack.run(puzzle, HERE)[-1].reached
    assert isinstance(found, Placed)
    right, total = right_places(found, puzzle, answer)
    assert right / total > 0.99
    assert replace(puzzle).base is None, "no base where none is granted"
