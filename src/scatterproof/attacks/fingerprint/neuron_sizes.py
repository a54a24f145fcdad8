"""Neurons of unknown sizes brought to sizes that do not matter.

Behind a function that lets positive scales through, such as a ReLU, every neuron of a layer may be scaled by any factor
and its reader inversely, and the network stays what it is (Neyshabur et al. 2015, https://arxiv.org/abs/1506.02617). So
sizes that differ widely say nothing of places, and hide what does. What is left is each reader's direction, each
neuron's direction within a block, and, once blocks of one row are known, its relative sizes in all of them.
"""

from dataclasses import replace

import torch

from scatterproof.attacks.fingerprint.context import Surroundings

SPREAD = 1.0  # of the logarithms of readers' sizes, beyond random weights': trained VGGs on CIFAR-100 reach 0.87
QUARTILES = 1.349  # between those of a normal distribution, in standard deviations


def may_be_rescaled(around: Surroundings) -> bool:
    """Whether neurons may be of any size, and a reader tells of it."""
    return around.homogeneous and around.following is not None


def is_rescaled(around: Surroundings) -> bool:
    """Whether the sizes of the layer's neurons were changed: the threat says so, or their readers' sizes, which change
    inversely, differ by much."""
    if not around.homogeneous or around.following is None:
        return False
    if around.rescaled:
        return True
    sizes = around.following.norm(dim=0)
    sizes = sizes[sizes > 0]
    random = (2 * len(around.following)) ** -0.5
    if len(sizes) < 2:
        return False
    low, high = sizes.log().quantile(sizes.new_tensor([0.25, 0.75])).tolist()  # a few dead neurons move a deviation
    return bool(high - low > QUARTILES * (SPREAD + random))


def with_even_readers(around: Surroundings) -> Surroundings:
    """The same network with each neuron scaled so that its readers have the size one; biases go with the neurons.

    No other sizes are looked for then: it counts as one that lets no scales through.
    """
    assert around.following is not None
    sizes = around.following.norm(dim=0)
    following = around.following / sizes.clamp_min(1e-30)
    bias = None if around.bias is None else around.bias * sizes
    return replace(around, following=following, bias=bias, homogeneous=False)


def with_even_neurons(blocks: torch.Tensor) -> torch.Tensor:
    """Blocks [held, height, width] whose neurons, their rows, are all of the size that they have on average."""
    return _divided(blocks, blocks.square().mean(2))


def with_even_rows(blocks: torch.Tensor, placement: torch.Tensor, around: Surroundings) -> torch.Tensor:
    """The same where a neuron's size is that in all blocks of its row, as they lie in a placement [held]."""
    row = placement.to(blocks.device) // around.grid.columns
    squares = blocks.square().mean(2)
    total = squares.new_zeros(around.grid.rows, squares.shape[1]).index_add_(0, row, squares)
    count = torch.bincount(row, minlength=around.grid.rows).clamp_min(1)
    return _divided(blocks, (total / count[:, None])[row])


def _divided(blocks: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """By the roots of these mean squares [held, height], at the blocks' own overall size; what is zero stays."""
    scale = torch.where(squares > 0, squares.clamp_min(1e-30).rsqrt(), 0.0)
    even = blocks * scale[:, :, None]
    size = blocks.square().mean().sqrt()
    made: torch.Tensor = even * (size / even.square().mean().sqrt().clamp_min(1e-30))
    return made
