"""Starts and victims of the attacks' controls: a leak that a search must make use of, and weights that hold nothing.

They need the answer, or a network of their own: they make starts and networks, and are no attacks.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from scatterproof.attacks.base import Attack
from scatterproof.attacks.seed_search import draw_layer
from scatterproof.blocks import Placement
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.prune_shuffle import displace
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.seeds import seed_of, torch_generator
from scatterproof.victims.models import dense_layers

Key = tuple[int | str, ...]


def displaced(answer: Answer, count: int, key: Key) -> Placement:
    """The true placement with `count` blocks at random places; a larger count displaces the same blocks and more."""
    order = torch.randperm(len(answer.placement), generator=torch_generator("control", *key))
    return displace(answer.placement, order[:count], answer.layout, torch_generator("control", count, *key))


def halving_count(evaluator: PlacementEvaluator, answer: Answer, key: Key, correction: str = "none") -> int:
    """How many blocks must be displaced until accuracy on the evaluator's images is at most half of the true one's.

    By bisection: accuracy falls with the count but for noise, so this is one such count, not the least.
    """
    half = float(evaluator.score(answer.placement.positions[None], correction).accuracy) / 2
    low, high = 0, len(answer.placement)
    while high - low > 1:
        middle = (low + high) // 2
        accuracy = float(evaluator.score(displaced(answer, middle, key).positions[None], correction).accuracy)
        low, high = (low, middle) if accuracy <= half else (middle, high)
    return high


def with_random_layers(model: nn.Module, names: Mapping[str, object], key: Key) -> nn.Module:
    """A trained network whose scattered layers' weights are drawn anew, normal with each layer's mean and spread."""
    model = copy.deepcopy(model)
    generator = torch_generator("random layer", *key)
    for name in names:
        weight = dense_layers(model)[name].weight.data
        drawn = torch.randn(weight.shape, generator=generator)
        weight.copy_(weight.mean() + weight.std() * drawn.to(weight.device))
    return model


def with_seeded_layer(model: nn.Module, puzzle: Puzzle, attack: Attack[Any], key: Key) -> nn.Module:
    """A trained network whose scattered layer is drawn by one of the seeds that this attack tries."""
    model = copy.deepcopy(model)
    (name,) = puzzle.layout.grids
    seed = attack.settings.start + seed_of("planted seed", *key) % (1 << attack.settings.bits)
    weight = dense_layers(model)[name].weight.data
    weight.copy_(draw_layer(seed, *weight.shape))
    return model
