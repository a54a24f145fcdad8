"""From scores to places: beliefs over candidates by Sinkhorn's scaling, and the best assignment by linear programming.

Each block keeps its `count` best positions, its candidates: with a few thousand blocks that may be all of them, with
25,000 it keeps memory and time from growing with the square of the blocks.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

DENSE = 3 * 10**7  # entries up to which scipy's dense solver is quicker, and its matrix small
IMPOSSIBLE = -1e9
UNLIKELY = 1e4  # a position that is no candidate is so much worse than the worst that is


class Candidates(NamedTuple):
    """The positions that each block may have, int64 [blocks, count], and their scores float32, log-likelihoods."""

    positions: torch.Tensor
    scores: torch.Tensor


def beliefs(candidates: Candidates, slots: int, rounds: int = 30) -> torch.Tensor:
    """The probability of each candidate [blocks, count], no position expected to hold much more than one block.

    Where there are as many blocks as positions, each is expected to hold one. So many rounds leave both a little off
    where scores are sharp: a block's beliefs then sum to less than one. Source: Sinkhorn and Knopp 1967,
    https://doi.org/10.2140/pjm.1967.21.343.
    """
    places, scores = candidates
    full = len(places) == slots
    kernel = (scores - scores.max(1, keepdim=True).values).clamp(min=-60).exp()
    everywhere = places.shape[1] == slots  # each position of each block: plain products instead of sums by index
    if everywhere:
        kernel = torch.empty_like(kernel).scatter_(1, places, kernel)
    columns = kernel.new_ones(slots)
    rows = kernel.new_ones(len(places))
    for _ in range(rounds):
        if everywhere:
            rows = 1 / (kernel @ columns).clamp(min=1e-30)
            expected = rows @ kernel
        else:
            rows = 1 / (kernel * columns[places]).sum(1).clamp(min=1e-30)
            expected = kernel.new_zeros(slots).index_add_(0, places.flatten(), (kernel * rows[:, None]).flatten())
        columns = 1 / expected.clamp(min=1e-30)
        if not full:
            columns = columns.clamp(max=1.0)
    belief = kernel * rows[:, None] * (columns if everywhere else columns[places])
    if everywhere:
        belief = belief.gather(1, places)
    return belief / belief.sum(1, keepdim=True).clamp(min=1.0)


def best_assignment(candidates: Candidates, shape_of: torch.Tensor, shape_at: torch.Tensor) -> torch.Tensor:
    """The placement int64 [blocks] of the greatest total score, every block at a position of its own shape.

    shape_of int64 [blocks], shape_at int64 [positions]: numbers of shapes. A block whose candidates are all taken by
    others gets another position of its shape.
    """
    places, scores = candidates.positions.cpu().numpy(), candidates.scores.double().cpu().numpy()
    of, at = shape_of.cpu().numpy(), shape_at.cpu().numpy()
    placement = np.empty(len(places), dtype=np.int64)
    for shape in np.unique(of):
        blocks, positions = np.flatnonzero(of == shape), np.flatnonzero(at == shape)
        number = np.full(len(at), -1)
        number[positions] = np.arange(len(positions))
        mine = number[places[blocks]]
        mine[scores[blocks] <= IMPOSSIBLE / 2] = -1
        solve = _dense if len(blocks) * len(positions) <= DENSE else _sparse
        placement[blocks] = positions[solve(mine, scores[blocks], len(positions))]
    return torch.from_numpy(placement)


def best_pairs(scores: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of scores [n, m] in pairs of the highest sum, each in one pair at most."""
    from scipy.optimize import linear_sum_assignment  # here, as it delays each job's start

    rows, columns = linear_sum_assignment(scores, maximize=True)
    return rows, columns


def _dense(places: NDArray[Any], scores: NDArray[Any], slots: int) -> NDArray[Any]:
    """Places -1 are none."""
    real = places >= 0
    matrix = np.full((len(places), slots + 1), scores[real].min(initial=0.0) - UNLIKELY)
    np.put_along_axis(matrix, np.where(real, places, slots), scores, 1)
    assigned: NDArray[Any] = best_pairs(matrix[:, :slots])[1]
    return assigned


def _sparse(places: NDArray[Any], scores: NDArray[Any], slots: int) -> NDArray[Any]:
    """The same over the candidates alone; blocks for which they don't suffice get what is left over."""
    from scipy import sparse
    from scipy.sparse.csgraph import maximum_bipartite_matching, min_weight_full_bipartite_matching

    real = places >= 0
    blocks = np.repeat(np.arange(len(places))[:, None], places.shape[1], axis=1)[real]
    cost = scores[real].max(initial=0.0) - scores[real] + 1.0  # the solver takes a stored zero for no edge
    edges = sparse.csr_matrix((cost, (blocks, places[real])), shape=(len(places), slots))
    spare = maximum_bipartite_matching(edges, perm_type="column")
    free = np.setdiff1d(np.arange(slots), spare[spare >= 0])
    without = np.flatnonzero(spare < 0)
    dear = np.full(len(without), cost.max(initial=1.0) + UNLIKELY)
    more = sparse.csr_matrix((dear, (without, free[: len(without)])), shape=edges.shape)
    assigned: NDArray[Any] = min_weight_full_bipartite_matching(edges.maximum(more))[1]
    return assigned
