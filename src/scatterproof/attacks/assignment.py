"""From scores to places: beliefs over candidates by Sinkhorn's scaling, and the best assignment by linear programming.

Each block keeps its `count` best positions, its candidates: with a few thousand blocks that may be all of them, with
25,000 it keeps memory and time from growing with the square of the blocks.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import maximum_bipartite_matching, min_weight_full_bipartite_matching

DENSE = 3 * 10**7  # entries up to which scipy's dense solver is quicker, and its matrix small
IMPOSSIBLE = -1e9


class Candidates(NamedTuple):
    """The positions that each block may have, int64 [blocks, count], and their scores float32, log-likelihoods."""

    positions: torch.Tensor
    scores: torch.Tensor


def beliefs(candidates: Candidates, slots: int, rounds: int = 30) -> torch.Tensor:
    """The probability of each candidate [blocks, count], no position expected to hold more than one block.

    Where there are as many blocks as positions, each is expected to hold one. Source: Sinkhorn and Knopp 1967,
    https://doi.org/10.2140/pjm.1967.21.343.
    """
    places, scores = candidates
    full = len(places) == slots
    kernel = (scores - scores.max(1, keepdim=True).values).clamp(min=-80).exp()
    columns = kernel.new_ones(slots)
    rows = kernel.new_ones(len(places))
    for _ in range(rounds):
        rows = 1 / (kernel * columns[places]).sum(1).clamp(min=1e-30)
        expected = kernel.new_zeros(slots).index_add_(0, places.flatten(), (kernel * rows[:, None]).flatten())
        columns = 1 / expected.clamp(min=1e-6)
        if not full:
            columns = columns.clamp(max=1.0)
    found = kernel * rows[:, None] * columns[places]
    return found / found.sum(1, keepdim=True).clamp(min=1.0)


def best_assignment(candidates: Candidates, slots: int) -> torch.Tensor:
    """The placement int64 [blocks] of the greatest total score."""
    places, scores = candidates.positions.cpu().numpy(), candidates.scores.double().cpu().numpy()
    if len(places) * slots <= DENSE:
        matrix = np.full((len(places), slots), IMPOSSIBLE)
        np.put_along_axis(matrix, places, scores, 1)
        return torch.from_numpy(linear_sum_assignment(matrix, maximize=True)[1]).long()
    return torch.from_numpy(_sparse_assignment(places, scores, slots)).long()


def _sparse_assignment(places: NDArray[Any], scores: NDArray[Any], slots: int) -> NDArray[Any]:
    """The same over the candidates alone; blocks for which they don't suffice get what is left over."""
    blocks = np.repeat(np.arange(len(places)), places.shape[1])
    cost = scores.max() - scores + 1.0  # the solver takes a stored zero for no edge
    edges = sparse.csr_matrix((cost.ravel(), (blocks, places.ravel())), shape=(len(places), slots))
    spare = maximum_bipartite_matching(edges, perm_type="column")
    free = np.setdiff1d(np.arange(slots), spare[spare >= 0])
    without = np.flatnonzero(spare < 0)
    dear = np.full(len(without), cost.max() * 2 + 1)
    more = sparse.csr_matrix((dear, (without, free[: len(without)])), shape=edges.shape)
    found: NDArray[Any] = min_weight_full_bipartite_matching(edges.maximum(more))[1]
    return found
