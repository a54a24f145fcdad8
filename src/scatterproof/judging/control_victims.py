"""Starts and victims of the attacks' controls: a leak that a search must make use of, and weights that hold nothing.

They need the answer, or a network of their own: they make puzzles and starts, and are no attacks.
"""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from scatterproof.running.seeds import torch_generator
from scatterproof.victims.models import dense_layers

Key = tuple[int | str, ...]


def with_random_layers(model: nn.Module, names: Mapping[str, object], key: Key) -> nn.Module:
    """A trained network whose scattered layers' weights are drawn anew, normal with each layer's mean and spread."""
    model = copy.deepcopy(model)
    generator = torch_generator("random layer", *key)
    for name in names:
        weight = dense_layers(model)[name].weight.data
        drawn = torch.randn(weight.shape, generator=generator)
        weight.copy_(weight.mean() + weight.std() * drawn.to(weight.device))
    return model
