"""Several layers scattered at once: their blocks told apart, each layer put together; nothing where nothing is."""

from typing import Any

import pytest
import torch

import small
from scatterproof.attacks.base import AttackError, Machine, Placed, Run
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import find_surroundings, in_order
from scatterproof.attacks.fingerprint.layer_sorting import layers_of, shared_out
from scatterproof.blocks import Layout
from scatterproof.judging.control_victims import with_random_layers
from scatterproof.judging.controls import planted, right_places, wilson
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.models import dense_layers

CPU = torch.device("cpu")
DATA = small.dataset(pirate=100)


def puzzle(model: torch.nn.Module, key: int = 0, **threat: Any) -> tuple[Puzzle, Answer]:
    return small.puzzle(model, small.WIDE, DATA, 16, key, scatter="dense", images=100, **threat)


def reached(puzzle: Puzzle) -> Placed:
    found = Fingerprint().run(puzzle, Run(Machine(CPU, 1)))[-1].reached
    assert isinstance(found, Placed)
    return found


@pytest.mark.parametrize(("share", "least"), [(1.0, 0.95), (0.6, 0.6)])
def test_a_leak_planted_in_every_layer_is_found(share: float, least: float) -> None:
    right = total = 0
    for seed in range(3):
        model = small.network(small.WIDE, seed=seed)
        leaking = planted(model, puzzle(model)[0], (seed,))
        held, answer = puzzle(leaking, seed, share=share)
        found = reached(held)
        assert len(found.placement.unique()) == len(held.blocks)
        assert torch.equal(held.layout.shapes()[found.placement], held.shapes)
        one, whole = right_places(found, held, answer)
        right, total = right + one, total + whole
    assert right / total > least


def test_random_layers_give_nothing_away() -> None:
    right = total = 0
    model = small.network(small.WIDE)
    for seed in range(5):
        held, answer = puzzle(with_random_layers(model, held_names(model), (seed,)), seed)
        one, whole = right_places(reached(held), held, answer)
        right, total = right + one, total + whole
    assert wilson(right, total)[1] < 3 / 128, "chance where the layer is told by its spread: one in its positions"


def held_names(model: torch.nn.Module) -> dict[str, object]:
    return dict.fromkeys(dense_layers(model))


def test_blocks_are_told_apart_by_their_layers_size() -> None:
    """Two layers' whole blocks, of spreads that overlap; an edge's shape needs no guess."""
    layout = Layout.square({"first": (64, 256), "second": (64, 128), "third": (10, 64)}, 16)
    generator = torch.Generator().manual_seed(0)
    spread = {"first": 1.0, "second": 1.3, "third": 1.0}
    weights = {
        name: spread[name] * torch.randn(grid.outputs, grid.inputs, generator=generator)
        for name, grid in layout.grids.items()
    }
    order = torch.randperm(layout.positions, generator=generator)
    found = layers_of(layout.cut(weights)[order], layout.shapes()[order], layout)
    truth = (order[:, None] >= torch.tensor([layout.offsets[name] for name in layout.grids])).sum(1) - 1
    assert (found == truth).double().mean() > 0.97
    assert torch.equal(found[truth == 2], truth[truth == 2])
    assert found.bincount().tolist() == truth.bincount().tolist()


def test_more_layers_than_can_be_told_apart_are_refused() -> None:
    layout = Layout.square({f"layer{n}": (16, 16) for n in range(7)}, 16)
    with pytest.raises(AttackError, match="tells at most 6 layers apart, 7 are scattered"):
        layers_of(torch.randn(7, 16, 16), layout.shapes(), layout)


@pytest.mark.parametrize(
    ("held", "places", "expected"), [(10, [6, 4], [6, 4]), (5, [6, 4], [3, 2]), (1, [6, 4], [1, 0])]
)
def test_blocks_held_are_shared_out_by_places(held: int, places: list[int], expected: list[int]) -> None:
    assert shared_out(held, places) == expected


def test_a_layer_is_seen_through_those_already_put_together() -> None:
    model = small.network(small.WIDE)
    held, _ = puzzle(model)
    assert in_order(held, CPU) == ["1", "3", "5"]
    blind = find_surroundings(held, "3", CPU)
    assert blind.following is None and not blind.inputs.std(0).any()
    weights = {name: layer.weight.detach() for name, layer in dense_layers(model).items()}
    seen = find_surroundings(held, "3", CPU, weights)
    assert seen.following is not None and torch.equal(seen.following, weights["5"])
    assert seen.inputs.std(0).all()
