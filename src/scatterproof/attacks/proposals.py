"""Moves that promise to lower the loss, by its first-order changes: what refinement and hill climbing score truly."""

import torch

from scatterproof.blocks import invert
from scatterproof.evaluation.evaluator import PlacementEvaluator


def best_swaps(scorer: PlacementEvaluator, placement: torch.Tensor, count: int) -> torch.Tensor:
    """Up to `count` exchanges of two positions [n, 2] that promise the most to first order, the best first.

    Holds two matrices of positions x positions. Raises: ValueError as `move_changes`, and where no block has another
    place.
    """
    changes, empty = scorer.swap_changes(placement), _empty(scorer, placement)
    positions = torch.arange(len(changes), device=changes.device)
    values, moves = [], []
    for rows in positions.split(256):
        useless = (positions <= rows[:, None]) | (empty[rows][:, None] & empty)
        part = changes[rows].masked_fill(useless, torch.inf).flatten()
        value, at = part.topk(min(count, len(part)), largest=False)
        values.append(value)
        moves.append(torch.stack([rows[0] + at // len(positions), at % len(positions)], 1))
    value, order = torch.cat(values).sort(stable=True)
    swaps = torch.cat(moves)[order[value.isfinite()]][:count]
    if len(swaps) == 0:
        raise ValueError("no block has another position of its own shape")
    return swaps


def best_cycles(scorer: PlacementEvaluator, placement: torch.Tensor, count: int) -> torch.Tensor:
    """Up to `count` moves of three positions around [n, 3] that promise the most to first order, the best first:
    for each of the `count` best replacements of one by another the third that closes it best.

    May be none. Raises: ValueError as `move_changes`.
    """
    changes, empty = scorer.move_changes(placement).fill_diagonal_(torch.inf), _empty(scorer, placement)
    changes.masked_fill_(empty[:, None] & empty, torch.inf)
    value, at = changes.flatten().topk(min(count, changes.numel()), largest=False)
    first, second = at // len(changes), at % len(changes)
    closing, third = (changes[second] + changes[:, first].T).min(1)
    value, order = (value + closing).sort(stable=True)
    moves = torch.stack([first, second, third], 1)[order[value.isfinite()]]
    turned = moves.gather(1, (moves.argmin(1, keepdim=True) + torch.arange(3, device=moves.device)) % 3)
    key = (turned[:, 0] * len(changes) + turned[:, 1]) * len(changes) + turned[:, 2]
    again = (key[:, None] == key).tril(-1).any(1)
    return turned[~again]


def _empty(scorer: PlacementEvaluator, placement: torch.Tensor) -> torch.Tensor:
    """Which positions hold no block."""
    return invert(placement.to(scorer.device), scorer.layout.positions) < 0
