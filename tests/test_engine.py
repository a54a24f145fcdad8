"""PlacementEvaluator's batched half: populations, moves and first-order changes agree with the network itself."""

from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from scatterproof.blocks import BlockGrid, Placement, invert, placements_of
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.moves import CurrentPlacement, PlainPlacement, moved
from scatterproof.evaluation.products import Products
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.models import dense_layers
from small import dataset, network, puzzle, vgg

CPU = torch.device("cpu")
DATA = dataset()
# Copied 49 times and copy-free; blocks that divide the layer and blocks that leave edges; products held and made anew
SIZES = [16, 8, 60]
CASES = [(32, 16, 1.0), (32, 60, 1.0), (32, 8, 0.4), (28, 16, 1.0), (28, 60, 0.4)]
PROPERTY = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def case(side: int, size: int, share: float) -> tuple[nn.Module, Puzzle, Answer]:
    config = vgg(input_size=side)
    model = network(config)
    return model, *puzzle(model, config, DATA, size, share=share)


@cache
def evaluator(side: int, size: int, share: float, memory_mb: int = 2000, precision: str = "fp32") -> PlacementEvaluator:
    _, found, _ = case(side, size, share)
    test = DATA.test
    return PlacementEvaluator(found, test.images, test.labels, CPU, precision=precision, memory_mb=memory_mb)


def by_the_network(model: nn.Module, found: Puzzle, placement: torch.Tensor) -> torch.Tensor:
    """Logits of the whole network with its weight assembled block by block."""
    (name,) = found.layout.grids
    lines = torch.cat([found.blocks, found.blocks.new_zeros(1, *found.layout.block_shape)]).flatten(0, 1)
    block_at = invert(placement, found.layout.positions)
    weight = found.layout.assemble(lines, block_at.where(block_at >= 0, len(found.blocks)))[name]
    kept = dense_layers(model)[name].weight.data
    dense_layers(model)[name].weight.data = weight
    logits: torch.Tensor = model(found.inputs(DATA.test.images)).detach()
    dense_layers(model)[name].weight.data = kept
    return logits


def draw(found: Puzzle, seed: int, missing: float) -> torch.Tensor:
    """A random placement, some of the blocks nowhere."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randperm(found.layout.positions, generator=generator)[: len(found.blocks)]
    return positions.where(torch.rand(len(positions), generator=generator) >= missing, -1)


@pytest.mark.parametrize("memory_mb", [2000, 1])
@pytest.mark.parametrize(("side", "size", "share"), CASES)
@given(seed=st.integers(0, 2**31), missing=st.sampled_from([0.0, 0.3, 1.0]))
@PROPERTY
def test_population_logits_are_the_networks(
    side: int, size: int, share: float, memory_mb: int, seed: int, missing: float
) -> None:
    model, found, _ = case(side, size, share)
    scorer = evaluator(side, size, share, memory_mb)
    placements = torch.stack([draw(found, seed + i, missing) for i in range(3)])
    assert scorer.engine is not None
    logits = torch.cat(list(scorer.engine.logits(invert(placements, found.layout.positions))))
    expected = torch.stack([by_the_network(model, found, placement) for placement in placements])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@given(
    sides=st.tuples(st.integers(1, 300), st.integers(1, 400)),
    images=st.integers(1, 5),
    held=st.floats(0.1, 1.0),
    seed=st.integers(0, 2**31),
)
@PROPERTY
def test_large_blocks_are_summed_column_by_column(sides: tuple[int, int], images: int, held: float, seed: int) -> None:
    """Placements that share blocks of a column, and ones with empty places."""
    torch.manual_seed(seed)
    grid = BlockGrid(*sides, 96, 112)
    weight, inputs = torch.randn(sides), torch.randn(images, sides[1])
    kept = torch.randperm(grid.count)[: max(1, int(held * grid.count))]
    made = Products(grid, grid.cut(weight)[kept], inputs, 1, torch.float32, 0)
    assert made.by_column
    block_at = torch.full((5, grid.count), -1)
    block_at[:, kept] = torch.arange(len(kept))
    outputs = made.outputs(block_at).transpose(1, 2).flatten(2)[..., : sides[0]]
    lines = torch.cat([grid.cut(weight)[kept], torch.zeros(1, 96, 112)]).flatten(0, 1)
    expected = inputs @ grid.assemble(lines, block_at[0].where(block_at[0] >= 0, len(kept))).T
    torch.testing.assert_close(outputs, expected.expand(5, -1, -1), rtol=0, atol=1e-3)
    block_at[1:, kept] = block_at[1:, kept].gather(1, torch.rand(4, len(kept)).argsort(1))
    outputs = made.outputs(block_at)
    for one, alone in zip(block_at, outputs, strict=True):
        torch.testing.assert_close(made.outputs(one[None])[0], alone, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("side", "size", "share"), CASES)
@given(seed=st.integers(0, 2**31), cycle=st.sampled_from([2, 3]), missing=st.sampled_from([0.0, 0.3]))
@PROPERTY
def test_moves_score_as_the_placements_they_lead_to(
    side: int, size: int, share: float, seed: int, cycle: int, missing: float
) -> None:
    _, found, _ = case(side, size, share)
    scorer, slots = evaluator(side, size, share), found.layout.positions
    at = scorer.at(draw(found, seed, missing))
    assert isinstance(at, CurrentPlacement)
    generator = torch.Generator().manual_seed(seed)
    moves = torch.stack([torch.randperm(slots, generator=generator)[:cycle] for _ in range(6)])
    moves = torch.cat([moves, torch.arange(cycle)[None]])  # and one within a row
    for made in moves[:3]:
        at.apply(made)
    placements = placements_of(moved(at.block_at, moves), len(found.blocks))
    expected, scores = scorer.score(placements), at.score(moves)
    torch.testing.assert_close(scores.loss, expected.loss, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.accuracy, expected.accuracy, rtol=0, atol=1.01 / len(DATA.test))


@pytest.mark.parametrize(("side", "size", "share"), CASES)
def test_first_order_changes_are_the_gradients_along_each_exchange(side: int, size: int, share: float) -> None:
    model, found, _ = case(side, size, share)
    placement = draw(found, 5, 0.2)
    changes = evaluator(side, size, share).swap_changes(placement)
    gradient = weight_gradient(model, found, placement)
    (grid,) = found.layout.grids.values()
    block_at = invert(placement, grid.count)
    blocks = torch.cat([found.blocks, found.blocks.new_zeros(1, *found.layout.block_shape)])[block_at]
    slopes = grid.cut(gradient)
    shapes = found.layout.shape_classes()
    for first, second in [(0, 1), (3, grid.count // 2), (4, 4), (2, grid.count - 1), (grid.columns - 1, grid.columns)]:
        expected = ((blocks[second] - blocks[first]) * (slopes[first] - slopes[second])).sum()
        if shapes[first] != shapes[second]:
            expected = torch.tensor(torch.inf)
        torch.testing.assert_close(changes[first, second], expected, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(changes[first, second], changes[second, first])


def weight_gradient(model: nn.Module, found: Puzzle, placement: torch.Tensor) -> torch.Tensor:
    """Of the mean cross-entropy, by the assembled weight."""
    (name,) = found.layout.grids
    lines = torch.cat([found.blocks, found.blocks.new_zeros(1, *found.layout.block_shape)]).flatten(0, 1)
    block_at = invert(placement, found.layout.positions)
    weight = found.layout.assemble(lines, block_at.where(block_at >= 0, len(found.blocks)))[name].requires_grad_()
    logits = torch.func.functional_call(model, {f"{name}.weight": weight}, found.inputs(DATA.test.images))
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, DATA.test.labels), weight)
    return gradient


def test_small_exchanges_change_the_loss_as_first_order_says() -> None:
    """Blocks that differ little: there the first order is nearly all."""
    config = vgg()
    model = network(config)
    (name,) = case(32, 16, 1.0)[1].layout.grids
    weight = dense_layers(model)[name].weight.data
    weight.copy_(0.2 * weight)
    found, answer = puzzle(model, config, DATA, 16)
    scorer = PlacementEvaluator(found, DATA.test.images, DATA.test.labels, CPU)
    at, changes = scorer.at(answer.placement.positions), scorer.swap_changes(answer.placement.positions)
    moves = torch.triu_indices(*changes.shape, 1).T[::29]
    moves = moves[changes[moves[:, 0], moves[:, 1]].isfinite()]
    before = float(scorer.score(answer.placement.positions[None]).loss)
    exact = at.score(moves).loss - before
    promised = changes[moves[:, 0], moves[:, 1]].double()
    assert float(torch.corrcoef(torch.stack([exact, promised]))[0, 1]) > 0.99


def test_products_are_held_only_where_the_memory_allows() -> None:
    roomy, tight = evaluator(28, 16, 1.0).engine, evaluator(28, 16, 1.0, 1).engine
    assert roomy is not None and tight is not None
    assert roomy.products.cached and not tight.products.cached


def test_bf16_is_near() -> None:
    _, found, _ = case(28, 16, 1.0)
    placements = torch.stack([draw(found, i, 0.0) for i in range(4)])
    exact = evaluator(28, 16, 1.0).score_population(placements)
    near = evaluator(28, 16, 1.0, precision="bf16").score_population(placements)
    torch.testing.assert_close(near.loss, exact.loss, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("precision", ["tf32", "fp64"])
def test_a_precision_that_the_device_has_not_is_refused(precision: str) -> None:
    _, found, _ = case(32, 16, 1.0)
    with pytest.raises(ValueError, match=f"precision '{precision}' on cpu: expected fp32, bf16, or tf32 on cuda"):
        PlacementEvaluator(found, DATA.test.images, DATA.test.labels, CPU, precision=precision)


def test_agreement_with_given_logits() -> None:
    model, found, answer = case(32, 16, 1.0)
    own = by_the_network(model, found, answer.placement.positions)
    scorer = PlacementEvaluator(found, DATA.test.images, None, CPU, logits=own)
    shuffled = Placement.random(found.layout.positions, torch.Generator().manual_seed(0)).positions
    scores = scorer.score_population(torch.stack([answer.placement.positions, shuffled]))
    assert float(scores.agreement[0]) == 1 and scores.accuracy.isnan().all()
    other = by_the_network(model, found, shuffled)
    assert float(scores.agreement[1]) == pytest.approx(float((own.argmax(1) == other.argmax(1)).double().mean()))
    entropy = -(own.softmax(1) * own.log_softmax(1)).sum(1).mean()
    assert float(scores.loss[0]) == pytest.approx(float(entropy), abs=1e-5)
    assert float(scores.loss[1]) > float(scores.loss[0])


def test_nothing_to_score_against_is_refused() -> None:
    _, found, _ = case(32, 16, 1.0)
    with pytest.raises(ValueError, match="labels or logits"):
        PlacementEvaluator(found, DATA.test.images, None, CPU)


def test_several_scattered_layers_are_scored_one_by_one() -> None:
    config = vgg()
    found, _ = puzzle(network(config), config, DATA, 16, scatter="dense")
    scorer = PlacementEvaluator(found, DATA.test.images, DATA.test.labels, CPU)
    placement = draw(found, 1, 0.0)
    at = scorer.at(placement)
    assert scorer.engine is None and isinstance(at, PlainPlacement)
    move = torch.tensor([[0, 9]])
    after = placements_of(moved(at.block_at, move), len(found.blocks))
    assert at.score(move).loss.equal(scorer.score(after).loss)
    at.apply(move[0])
    assert at.block_at.equal(invert(after[0], found.layout.positions))
    assert scorer.score_population(after).loss.equal(scorer.score(after).loss)
    with pytest.raises(ValueError, match="one scattered layer"):
        scorer.swap_changes(placement)
