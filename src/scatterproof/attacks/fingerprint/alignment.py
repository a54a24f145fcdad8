"""Neuron alignment: which position a block has, by what its neurons do besides.

A trained neuron's weights to the stream that it reads and from the stream that it writes point along or against each
other. Within a block, the cosine of a neuron's weights with its partner's at the right position spreads more widely
than elsewhere, where it is that of random directions, one over the block's side. How much more is chosen by how likely
it makes the blocks, whatever their places: nothing of the truth is needed. Cosines know no scale, so that neurons which
were rescaled, their partners inversely, give up as much.
"""

from math import log

import torch
from torch.nn import functional as F

from scatterproof.attacks.fingerprint.context import Surroundings

SPREADS = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 9.0, 14.0)  # of a cosine, over a random one's
MOST = 70_000_000  # blocks times positions that are compared
SAMPLED = 6_000_000  # up to which all of them choose the spread, else some of the blocks
TRIED = 512


def alignment_evidence(blocks: torch.Tensor, around: Surroundings) -> torch.Tensor | None:
    """Log-likelihood ratios [blocks, positions] of blocks [held, height, width]; None without a partner, or where it
    says nothing."""
    grid, partner = around.grid, around.partner
    if partner is None or len(blocks) * grid.count > MOST:
        return None
    known = grid.cut(partner.weight.to(blocks.dtype))
    if partner.neurons == "columns":
        blocks, known = blocks.transpose(1, 2), known.transpose(1, 2)
    squares = squared_cosines(blocks, known)
    neurons, side = blocks.shape[1], blocks.shape[2]
    tried = squares
    if squares.numel() > SAMPLED:
        tried = squares[torch.linspace(0, len(squares) - 1, TRIED, device=squares.device).long()]
    best, chosen = -torch.inf, 1.0
    for spread in SPREADS:
        mean = float(torch.logsumexp(_ratio(tried, spread, neurons, side), 1).double().mean())
        if mean > best:
            best, chosen = mean, spread
    return None if chosen == 1.0 else _ratio(squares, chosen, neurons, side)


def squared_cosines(blocks: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The sum over neurons of their squared cosines [blocks, positions]; blocks, known [n, neurons, side]."""
    ours, theirs = F.normalize(blocks, dim=2), F.normalize(known, dim=2)
    total = blocks.new_zeros(len(ours), len(theirs))
    for neuron in range(ours.shape[1]):
        total += (ours[:, neuron] @ theirs[:, neuron].T).square_()
    return total


def _ratio(squares: torch.Tensor, spread: float, neurons: int, side: int) -> torch.Tensor:
    """Of normal cosines whose variance is `spread` over the side, over normal ones of one over the side."""
    return 0.5 * side * (1 - 1 / spread) * squares - 0.5 * neurons * log(spread)
