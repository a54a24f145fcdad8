"""A scattered layer as a task to train: its inputs, folded over their copies, and what follows it."""

from math import gcd
from typing import NamedTuple

import torch
from torch import nn


class Trainable(NamedTuple):
    """A layer to be trained, everything else frozen: `tail(linear(features[0], weight, bias), *features[1:])`.

    weight [outputs, channels], folded over the copies, already times `scale` [outputs], the correction.
    """

    features: tuple[torch.Tensor, ...]
    weight: torch.Tensor
    bias: torch.Tensor
    scale: torch.Tensor
    tail: nn.Module


def copies(features: torch.Tensor) -> int:
    """How often each input stands in the layer's input [..., inputs], copies side by side: 1 if it does not."""
    flat = features.reshape(-1, features.shape[-1])
    boundaries = (flat[:, 1:] != flat[:, :-1]).any(0).nonzero().flatten() + 1
    return gcd(flat.shape[1], *boundaries.tolist())
