"""Placements are scored as the plain network with its weight assembled by hand would be, only faster."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scatterproof.blocks import UNPLACED, BlockGrid, Layout, Placement, input_shares
from scatterproof.config.victim import VictimConfig
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.head import Head
from scatterproof.evaluation.targets import Scores
from scatterproof.evaluation.trainable import copies
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset
from scatterproof.victims.models import dense_layers
from small import dataset, network, puzzle, vgg

CPU = torch.device("cpu")
DATA = dataset()
LAYER = "classifier.0"


class Bag(nn.Module):
    """Not to be cut: a loop over the batch's size, a layer without bias, its batch size used after it."""

    def __init__(self, traceable: bool) -> None:
        super().__init__()
        self.first, self.last, self.traceable = nn.Linear(12, 8, bias=False), nn.Linear(8, 5), traceable

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(F.adaptive_avg_pool2d(images, 2).reshape(images.shape[0], -1))
        if not self.traceable and x.sum() > 1e9:
            return x[:, :5]
        logits: torch.Tensor = self.last(F.relu(x.reshape(images.shape[0], 8)))
        return logits


def bag(traceable: bool) -> Bag:
    return Bag(traceable)


@cache
def made(input_size: int, size: int = 16, scatter: str = "layer") -> tuple[nn.Module, Puzzle, Answer]:
    config = vgg(input_size=input_size)
    model = network(config)
    return model, *puzzle(model, config, DATA, size, scatter=scatter, images=12)


def evaluator(found: Puzzle, data: Dataset = DATA, chunk: int = 2000) -> PlacementEvaluator:
    return PlacementEvaluator(found, data.test.images, data.test.labels, CPU, chunk)


@cache
def shared(input_size: int, size: int = 16, scatter: str = "layer") -> PlacementEvaluator:
    return evaluator(made(input_size, size, scatter)[1])


def by_hand(found: Puzzle, positions: torch.Tensor) -> dict[str, torch.Tensor]:
    """The weights, block by block."""
    weights = {name: torch.zeros(grid.outputs, grid.inputs) for name, grid in found.layout.grids.items()}
    for block, position in enumerate(positions.tolist()):
        for name, grid in found.layout.grids.items():
            local = position - found.layout.offsets[name]
            if position != UNPLACED and 0 <= local < grid.count:
                top, left = local // grid.columns * grid.height, local % grid.columns * grid.width
                target = weights[name][top : top + grid.height, left : left + grid.width]
                target.copy_(found.blocks[block][: target.shape[0], : target.shape[1]])
    return weights


def plain(found: Puzzle, weights: dict[str, torch.Tensor], biases: dict[str, torch.Tensor] | None = None) -> Any:
    """Logits of the whole network with these weights on the test images."""
    model = found.model()
    layers = dense_layers(model)
    with torch.inference_mode():
        for name, weight in weights.items():
            layers[name].weight.copy_(weight)
        for name, bias in (biases or {}).items():
            layers[name].bias = nn.Parameter(bias)
        return model(found.inputs(DATA.test.images))


def draw(count: int, seed: int, share: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randperm(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < share, positions, UNPLACED)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


# Against the plain network


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([28, 32]), st.sampled_from([5, 11, 16, 60]), st.integers(0, 999), st.sampled_from([0, 0.3, 1]))
def test_logits_are_those_of_the_weight_assembled_by_hand(size: int, block: int, seed: int, share: float) -> None:
    _, found, _ = made(size, block)
    positions = draw(len(found.blocks), seed, share)
    close(
        shared(size, block).logits(Placement(positions, found.layout.positions).positions),
        plain(found, by_hand(found, positions)),
    )


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([28, 32]), st.integers(0, 999), st.sampled_from([0.5, 1]))
def test_so_it_is_with_every_dense_layer_scattered(size: int, seed: int, share: float) -> None:
    _, found, _ = made(size, 16, "dense")
    assert list(found.layout.grids) == ["classifier.0", "classifier.3", "classifier.6"]
    positions = draw(len(found.blocks), seed, share)
    close(shared(size, 16, "dense").logits(positions), plain(found, by_hand(found, positions)))


@pytest.mark.parametrize("scatter", ["layer", "dense"])
@pytest.mark.parametrize("input_size", [28, 32])
def test_the_true_placement_gives_the_victims_own_logits(input_size: int, scatter: str) -> None:
    model, found, answer = made(input_size, 16, scatter)
    with torch.inference_mode():
        wanted = model(found.inputs(DATA.test.images))
    assert wanted.std(0).max() > 0.01
    close(shared(input_size, 16, scatter).logits(answer.placement.positions), wanted)


def test_channels_are_copied_49_times_at_32_pixels_and_not_at_28() -> None:
    assert (shared(32).copies, shared(28).copies) == (49, 1)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_copies_divide_every_run_of_equal_inputs(times: int, channels: int, seed: int) -> None:
    features = torch.rand(4, 1, channels, generator=torch.Generator().manual_seed(seed))
    assert copies(features.repeat_interleave(times, -1)) == times
    features[..., 1:2] = features[..., :1]  # two channels that happen to be equal
    assert copies(features.repeat_interleave(times, -1)) % times == 0


@pytest.mark.parametrize("traceable", [True, False])
def test_a_network_that_is_not_cut_is_scored_alike(traceable: bool) -> None:
    config = VictimConfig(model="test_evaluate:bag", model_args={"traceable": traceable}, layer="first")
    found, _ = puzzle(network(config), config, DATA, 3, images=12)
    scorer = evaluator(found)
    positions = draw(len(found.blocks), 3, 0.6)
    weights = by_hand(found, positions)
    close(scorer.logits(positions), plain(found, weights))
    mean = F.adaptive_avg_pool2d(found.inputs(found.images), 2).flatten(1).mean(0)
    factor = 1 / input_shares(found.layout, Placement(positions, len(positions)).blocks())["first"]
    factor = torch.where(factor.isinf(), 1, factor)
    close(scorer.logits(positions, "scale"), plain(found, {"first": weights["first"] * factor[:, None]}))
    close(scorer.logits(positions, "mean"), plain(found, weights, {"first": (factor - 1) * (weights["first"] @ mean)}))


# Corrections


@pytest.mark.parametrize("input_size", [28, 32])
def test_corrections_follow_their_formulas(input_size: int) -> None:
    model, found, _ = made(input_size, 11)
    positions = draw(len(found.blocks), 5, 0.4)
    weight = by_hand(found, positions)[LAYER]
    held = by_hand(Puzzle(**vars(found) | {"blocks": torch.ones_like(found.blocks)}), positions)[LAYER].mean(1)
    seen: list[torch.Tensor] = []
    model.get_submodule(LAYER).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(found.inputs(found.images))
    mean = seen[0].mean(0)
    factor = torch.tensor([1 / share if share > 0 else 1.0 for share in held.tolist()])
    bias = found.state[f"{LAYER}.bias"]
    assert 0 < held.min() < held.max() < 1
    close(shared(input_size, 11).logits(positions, "scale"), plain(found, {LAYER: weight * factor[:, None]}))
    corrected = bias + (factor - 1) * (weight @ mean)
    close(shared(input_size, 11).logits(positions, "mean"), plain(found, {LAYER: weight}, {LAYER: corrected}))


@pytest.mark.parametrize("input_size", [28, 32])
def test_with_every_block_held_corrections_change_nothing(input_size: int) -> None:
    _, found, _ = made(input_size, 11)
    placements = draw(len(found.blocks), 1, 1)[None]
    none = shared(input_size, 11).score(placements)
    for kind in ("scale", "mean"):
        corrected = shared(input_size, 11).score(placements, kind)
        assert torch.equal(corrected.accuracy, none.accuracy)
        assert torch.equal(corrected.loss, none.loss)


@pytest.mark.parametrize("kind", ["none", "scale", "mean"])
def test_no_block_held_is_scored_too(kind: str) -> None:
    _, found, _ = made(32)
    scores = shared(32).score(torch.full((1, len(found.blocks)), UNPLACED), kind)
    wanted = plain(found, by_hand(found, torch.full((len(found.blocks),), UNPLACED)))
    assert scores.loss.item() == pytest.approx(F.cross_entropy(wanted, DATA.test.labels).item(), abs=1e-4)


def test_shares_count_inputs_not_blocks() -> None:
    layout = Layout({"a": BlockGrid(3, 10, 2, 4)})
    block_at = torch.tensor([0, UNPLACED, 1, UNPLACED, UNPLACED, 2])
    torch.testing.assert_close(input_shares(layout, block_at)["a"], torch.tensor([0.6, 0.6, 0.2]))


def test_unknown_corrections_and_a_mean_of_nothing_are_refused() -> None:
    _, found, answer = made(32, 16, "dense")
    placements = answer.placement.only(torch.arange(len(found.blocks)) > 3).positions[None]
    with pytest.raises(ValueError, match="'mean' needs one scattered layer"):
        shared(32, 16, "dense").score(placements, "mean")
    with pytest.raises(ValueError, match="unknown correction 'median'"):
        shared(32, 16, "dense").score(placements, "median")


# Scores


def test_scores_are_accuracy_and_mean_cross_entropy() -> None:
    answer = made(32)[2]
    logits = shared(32).logits(answer.placement.positions)
    scores = shared(32).score(answer.placement.positions[None])
    assert scores.accuracy.item() == (logits.argmax(1) == DATA.test.labels).sum().item() / len(DATA.test.labels)
    assert scores.loss.item() == pytest.approx(F.cross_entropy(logits, DATA.test.labels).item(), abs=1e-5)


@pytest.mark.parametrize("input_size", [28, 32])
def test_a_score_does_not_depend_on_its_company(input_size: int) -> None:
    _, found, _ = made(input_size)
    placements = torch.stack([draw(len(found.blocks), seed, 0.8) for seed in range(4)])
    together = shared(input_size).score(placements)
    for i in range(4):
        alone = shared(input_size).score(placements[[i]])
        assert (alone.accuracy.item(), alone.loss.item()) == (together.accuracy[i].item(), together.loss[i].item())


def test_equal_weights_from_other_block_numbers_score_bit_equal() -> None:
    config, model = vgg(), network(vgg())
    scores = []
    for key in range(2):
        found, answer = puzzle(model, config, DATA, 11, key)
        scores.append(evaluator(found).score(answer.placement.positions[None]))
    assert torch.equal(scores[0].loss, scores[1].loss)


@pytest.mark.parametrize("chunk", [1, 7, 30])
def test_the_chunk_size_does_not_change_accuracy(chunk: int) -> None:
    _, found, _ = made(32)
    placements = torch.stack([draw(len(found.blocks), seed, 0.9) for seed in range(3)])
    scores, wanted = evaluator(found, chunk=chunk).score(placements), shared(32).score(placements)
    assert torch.equal(scores.accuracy, wanted.accuracy)
    torch.testing.assert_close(scores.loss, wanted.loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize("input_size", [28, 32])
def test_what_lies_before_the_layer_serves_every_puzzle_of_a_network(input_size: int) -> None:
    _, first, answer = made(input_size)
    images, labels = DATA.test.images[:40], DATA.test.labels[:40]
    one = PlacementEvaluator(first, images, labels, CPU)
    before = one.score(answer.placement.positions[None])
    _, other, answer_of_it = made(input_size, 32)
    shared, fresh = one.with_blocks(other), PlacementEvaluator(other, images, labels, CPU)
    placement = torch.randperm(other.layout.positions, generator=torch.Generator().manual_seed(1))[: len(other.blocks)]
    for at in (placement, answer_of_it.placement.positions):
        for kind in ("none", "mean"):
            assert shared.score(at[None], kind).loss.equal(fresh.score(at[None], kind).loss)
    assert shared.score_population(placement[None]).loss.equal(fresh.score_population(placement[None]).loss)
    assert one.score(answer.placement.positions[None]).loss.equal(before.loss)


def changed(puzzle: Puzzle, names: Sequence[str]) -> Puzzle:
    """The puzzle with other values in these tensors of the network."""
    generator = torch.Generator().manual_seed(3)
    drawn = {name: puzzle.state[name] + torch.rand(puzzle.state[name].shape, generator=generator) for name in names}
    return replace(puzzle, state=puzzle.state | drawn)


def from_the_layer_on(puzzle: Puzzle) -> list[str]:
    """The tensors that a defence may change: the scattered layer's bias, and all of the layers that read it."""
    return [name for name in puzzle.state if name.startswith("classifier.")]


@pytest.mark.parametrize("input_size", [28, 32])
def test_what_differs_from_the_layer_on_leaves_the_features_and_is_scored_as_by_a_fresh_evaluator(
    input_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first, _ = made(input_size)
    labels, logits = DATA.test.labels, torch.arange(150).view(30, 5) % 7.0
    one = PlacementEvaluator(first, DATA.test.images, labels, CPU, logits=logits)
    other = changed(first, from_the_layer_on(first))
    fresh = PlacementEvaluator(other, DATA.test.images, labels, CPU, logits=logits)
    monkeypatch.setattr(Head, "anew", None)  # not called
    shared = one.with_blocks(other)
    placements = torch.stack([draw(len(first.blocks), seed, 0.8) for seed in range(2)])
    before = one.score(placements)
    for kind in ("none", "scale", "mean"):
        same(shared.score(placements, kind), fresh.score(placements, kind))
    assert not torch.equal(shared.score(placements).loss, before.loss)
    same(one.score(placements), before)
    same(shared.score_population(placements), fresh.score_population(placements))


def same(one: Scores, other: Scores) -> None:
    """To the last bit."""
    for name, value in vars(one).items():
        torch.testing.assert_close(value, vars(other)[name], rtol=0, atol=0, equal_nan=True)


def test_what_differs_before_the_layer_is_computed_anew_on_the_same_images_and_targets() -> None:
    _, first, _ = made(32)
    evaluator = PlacementEvaluator(first, DATA.test.images, DATA.test.labels, CPU)
    config = vgg(input_size=32)
    other, answer = puzzle(network(config, seed=1), config, DATA, 16, images=12)
    for found in (other, changed(first, [next(iter(first.state))])):
        fresh = PlacementEvaluator(found, DATA.test.images, DATA.test.labels, CPU)
        at = answer.placement.positions[None]
        same(evaluator.with_blocks(found).score(at), fresh.score(at))
        assert not torch.equal(fresh.score(at).loss, evaluator.score(at).loss)


def test_a_puzzle_of_other_layers_is_refused() -> None:
    _, first, _ = made(32)
    evaluator = PlacementEvaluator(first, DATA.test.images, DATA.test.labels, CPU)
    both, _ = puzzle(network(vgg(input_size=32)), vgg(input_size=32), DATA, 16, scatter="dense", images=12)
    with pytest.raises(ValueError, match="a puzzle of other layers"):
        evaluator.with_blocks(both)


# Features that are not held


@pytest.mark.parametrize("images_held", [1, 7, 29])
@pytest.mark.parametrize("scatter", ["layer", "dense"])
def test_features_that_do_not_fit_are_made_part_by_part_and_scored_alike(scatter: str, images_held: int) -> None:
    _, found, _ = made(28, 16, scatter)
    held = PlacementEvaluator(found, DATA.test.images, DATA.test.labels, CPU)
    limit = images_held * 4 * 392
    parts = PlacementEvaluator(found, DATA.test.images, DATA.test.labels, CPU, limit=limit)
    assert len(parts._layers.head.parts()) == -(-30 // images_held) and parts._layers.head.held is None
    placements = torch.stack([draw(len(found.blocks), seed, 0.8) for seed in range(2)])
    for kind in ("none", "scale"):
        one, other = parts.score(placements, kind), held.score(placements, kind)
        assert torch.equal(one.accuracy, other.accuracy)
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-5, atol=0)
    close(parts.logits(placements[0]), held.logits(placements[0]))
    same(parts.score_population(placements), parts.score(placements))


def test_copies_are_folded_part_by_part() -> None:
    _, found, answer = made(32)
    parts = PlacementEvaluator(found, DATA.test.images, DATA.test.labels, CPU, limit=7 * 4 * 392)
    assert parts.copies == 49 and parts._layers.head.at(0, 7)[0].shape == (7, 8)
    close(parts.logits(answer.placement.positions), shared(32).logits(answer.placement.positions))
