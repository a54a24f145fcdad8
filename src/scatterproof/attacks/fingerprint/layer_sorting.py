"""Which layer each block is of, where several are scattered together: told by the block's own numbers.

Layers differ in how large their weights are, in how unevenly, and in how few directions hold them. Sorted by their mean
square, blocks fall into one run for each layer; from there each layer's blocks are taken as draws from a normal
distribution of four such numbers, and every layer gets as many blocks as the threat says it has (quadratic discriminant
analysis under counts, by turns).
"""

from itertools import permutations

import numpy as np
import torch

from scatterproof.attacks.base import AttackError
from scatterproof.attacks.fingerprint.assignment import best_pairs
from scatterproof.blocks import Layout

MOST_LAYERS = 6  # every order of their sizes is tried
ROUNDS = 20


def layers_of(blocks: torch.Tensor, shapes: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The layer of each block, by its place in the layout: int64 [blocks].

    blocks [blocks, height, width], padded; shapes int64 [blocks, 2]. A shape that a single layer has needs no guess.
    Raises: AttackError where more layers are scattered together than can be told apart so.
    """
    if len(layout.grids) > MOST_LAYERS:
        raise AttackError(f"fingerprint tells at most {MOST_LAYERS} layers apart, {len(layout.grids)} are scattered")
    layer_of = torch.zeros(len(blocks), dtype=torch.int64, device=blocks.device)
    for shape in shapes.unique(dim=0):
        mine = (shapes == shape).all(1).nonzero().flatten()
        places = [int((grid.shapes() == shape.cpu()).all(1).sum()) for grid in layout.grids.values()]
        having = [layer for layer, count in enumerate(places) if count]
        counts = shared_out(len(mine), [places[layer] for layer in having])
        numbers = _told_apart(_numbers(blocks[mine], shape), counts)
        layer_of[mine] = torch.tensor(having, device=blocks.device)[numbers]
    return layer_of


def shared_out(held: int, places: list[int]) -> list[int]:
    """How many of the blocks held are expected of each layer, in whole blocks (largest remainders)."""
    exact = np.array(places) * held / sum(places)
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: held - counts.sum()]:
        counts[index] += 1
    return [int(count) for count in counts]


def _numbers(blocks: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Log mean square first, then the largest direction's share, the fourth moment, the directions' mean: [n, 4]."""
    real = blocks[:, : int(shape[0]), : int(shape[1])].double()
    square = real.square().mean((1, 2)).clamp(min=1e-30)
    values = torch.linalg.svdvals(real).clamp(min=1e-15)
    share = values[:, 0].square() / values.square().sum(1)
    fourth = real.pow(4).mean((1, 2)).clamp(min=1e-60) / square.square()
    return torch.stack([square.log(), share.log(), fourth.log(), values.log().mean(1)], 1).cpu()


def _told_apart(numbers: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """A group for each block, of these counts: int64 [n]."""
    groups = _runs(numbers[:, 0], counts)
    if min(counts) <= 2 * numbers.shape[1]:  # too few for a covariance
        return groups
    numbers = (numbers - numbers.mean(0)) / numbers.std(0).clamp(min=1e-12)
    slots = np.repeat(np.arange(len(counts)), counts)
    for _ in range(ROUNDS):
        fits = torch.stack([_log_likelihood(numbers, numbers[groups == group]) for group in range(len(counts))], 1)
        chosen = torch.from_numpy(slots[best_pairs(fits.numpy()[:, slots])[1]])
        if torch.equal(chosen, groups):
            break
        groups = chosen
    return groups


def _runs(sizes: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """The sorted sizes cut into runs of these counts, in the order in which they are most alike."""
    values, order = sizes.sort()

    def spread(layers: tuple[int, ...]) -> float:
        parts = values.split([counts[layer] for layer in layers])
        return sum(len(part) * float((part.var(correction=0) + 1e-9).log()) for part in parts if len(part))

    best = min(permutations(range(len(counts))), key=spread)
    layer_of = torch.empty(len(sizes), dtype=torch.int64)
    layer_of[order] = torch.tensor(best).repeat_interleave(torch.tensor([counts[layer] for layer in best]))
    return layer_of


def _log_likelihood(numbers: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Of all under the normal distribution of a group."""
    covariance = torch.cov(group.T) + 1e-3 * torch.eye(numbers.shape[1], dtype=numbers.dtype)
    away = numbers - group.mean(0)
    distance: torch.Tensor = (away @ torch.linalg.inv(covariance) * away).sum(1)
    return -0.5 * distance - 0.5 * torch.logdet(covariance)
