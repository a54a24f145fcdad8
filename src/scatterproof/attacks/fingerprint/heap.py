"""Several feed-forward layers in one heap, nothing placed: blocks pair up before either has a place.

A feed-forward block's up- and down-projection are partners, neuron by neuron (alignment.py). So each block of one has
its partner of the other in the heap. Pairs of the same neurons are alike in how large each neuron's weights are.
neuron_groups.py says where such a group belongs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from scatterproof.attacks.fingerprint.alignment import squared_cosines
from scatterproof.attacks.fingerprint.assignment import best_pairs
from scatterproof.attacks.fingerprint.context import Surroundings
from scatterproof.attacks.fingerprint.neuron_groups import NeuronGroups
from scatterproof.blocks import BlockGrid, Layout
from scatterproof.evaluation.streams import Streams
from scatterproof.puzzle import Puzzle

MOST = 4000  # blocks: the square of them is held
ROUNDS = 10
LIKELY = 64  # times the blocks: so many of the likeliest pairs are looked at


@dataclass(frozen=True)
class Heap:
    """Blocks [held, side, side] of pairs of layers (up, down), all of one shape and all held."""

    blocks: torch.Tensor
    layout: Layout
    layers: Sequence[tuple[str, str]]

    @property
    def grid(self) -> BlockGrid:
        """Of an up-projection."""
        return self.layout.grids[self.layers[0][0]]

    def placement(self, around: Mapping[str, Surroundings]) -> torch.Tensor:
        """A position for each block: int64 [held]. around: of each layer, the scattered ones unknown."""
        pairs = self._pairs()
        groups = self._groups(*pairs)
        ups, downs = (numbers[groups] for numbers in pairs)
        layers = [(around[up], around[down]) for up, down in self.layers]
        neurons = NeuronGroups(self.blocks[ups], self.blocks[downs].transpose(2, 3), layers)
        place, columns = neurons.assigned()
        layer, row = np.divmod(place[:, None], self.grid.rows)
        first = np.array([[self.layout.offsets[name] for name in pair] for pair in self.layers])
        placement = np.empty(len(self.blocks), dtype=np.int64)
        placement[ups] = first[layer, 0] + row * self.grid.columns + columns
        placement[downs] = first[layer, 1] + columns * self.grid.rows + row
        return torch.from_numpy(placement)

    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Blocks of up-projections, and each one's partner: the likeliest pairs say which are ups, then the best
        assignment of downs to these counts."""
        score = squared_cosines(self.blocks, self.blocks.transpose(1, 2)).fill_diagonal_(0).cpu().numpy()
        used = np.zeros(len(score), dtype=bool)
        likeliest: list[int] = []
        for flat in np.argsort(-score, axis=None)[: LIKELY * len(score)]:
            up, down = divmod(int(flat), len(score))
            if not used[up] and not used[down]:
                used[[up, down]] = True
                likeliest.append(up)
        ups = np.array([*likeliest, *np.flatnonzero(~used)[: len(score) // 2 - len(likeliest)]], dtype=np.int64)
        downs = np.setdiff1d(np.arange(len(score)), ups)
        first, second = best_pairs(score[np.ix_(ups, downs)])
        return ups[first], downs[second]

    def _groups(self, ups: NDArray[np.int64], downs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pairs of the same neurons [groups, columns]: as many in each group as the stream has slices."""
        likeness = _likeness(self.blocks[ups].norm(dim=2)) + _likeness(self.blocks[downs].norm(dim=1))
        like = likeness.cpu().numpy()
        size, count = self.grid.columns, len(ups) // self.grid.columns
        from sklearn.cluster import AgglomerativeClustering  # here, as it delays each job's start

        clusters = AgglomerativeClustering(count, metric="precomputed", linkage="average")
        group_of = clusters.fit_predict(like.max() - like)
        for _ in range(ROUNDS):  # groups of equal size: each pair to the group that it is most like
            member = np.eye(count)[group_of]
            mean = like @ member / np.maximum(member.sum(0), 1)
            slot = best_pairs(np.repeat(mean, size, axis=1))[1]
            if np.array_equal(slot // size, group_of):
                break
            group_of = slot // size
        return np.argsort(slot // size, kind="stable").reshape(count, size)


def heap_of(puzzle: Puzzle, blocks: torch.Tensor) -> Heap | None:
    """Of a puzzle that scatters up- and down-projections in pairs of one shape, in whole square blocks, all held."""
    layout, (height, width) = puzzle.layout, puzzle.layout.block_shape
    if height != width or len(blocks) != layout.positions or len(blocks) > MOST or not layout.ambiguous().all():
        return None
    layers = Streams(puzzle.model()).pairs(list(layout.grids))
    shapes = {(layout.grids[up].outputs, layout.grids[up].inputs) for up, _ in layers}
    return Heap(blocks, layout, layers) if 2 * len(layers) == len(layout.grids) and len(shapes) == 1 else None


def _likeness(norms: torch.Tensor) -> torch.Tensor:
    """Correlation [n, n] of the logarithms of each block's norms [n, side]."""
    logs = norms.clamp(min=1e-30).log().double()
    z_scores = F.normalize(logs - logs.mean(1, keepdim=True), dim=1)
    return z_scores @ z_scores.T
