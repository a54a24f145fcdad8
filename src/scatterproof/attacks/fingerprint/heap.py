"""Several feed-forward layers in one heap, nothing placed: blocks pair up before either has a place.

A feed-forward block's up- and down-projection are partners, neuron by neuron (alignment.py). So each block of one finds
its partner of the other in the heap. Pairs of the same neurons know each other by how large each neuron's weights are.
Which layer and row such a group is, the biases say, which are not scattered; and which slice of the residual stream
each of its pairs is, the known readers and writers of the stream and what is known of the layer's inputs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import AgglomerativeClustering
from torch.nn import functional as F

from scatterproof.attacks.fingerprint.context import Surroundings
from scatterproof.attacks.fingerprint.evidence import NORMED, likeliest_evidence, slices, unit_evidence
from scatterproof.blocks import BlockGrid, Layout
from scatterproof.evaluation.streams import Streams
from scatterproof.puzzle import Puzzle

MOST = 4000  # blocks: the square of them is held
ROUNDS = 10


@dataclass(frozen=True)
class Heap:
    """Blocks [held, side, side] of pairs of layers (up, down), all of one shape and all held."""

    blocks: torch.Tensor
    layout: Layout
    pairs: Sequence[tuple[str, str]]

    @property
    def grid(self) -> BlockGrid:
        """Of an up-projection."""
        return self.layout.grids[self.pairs[0][0]]

    def placement(self, around: Mapping[str, Surroundings]) -> torch.Tensor:
        """A position for each block: int64 [held]. around: of each layer, the scattered ones unknown."""
        ups, downs = self._paired()
        groups = self._groups(ups, downs)
        rows, columns = self._of_layers(ups, downs, groups, around)
        grid, offsets = self.grid, self.layout.offsets
        placement = torch.empty(len(self.blocks), dtype=torch.int64)
        for group, (layer, row) in zip(groups, rows, strict=True):
            up, down = self.pairs[layer]
            for pair in group:
                column = columns[pair]
                placement[ups[pair]] = offsets[up] + row * grid.columns + column
                placement[downs[pair]] = offsets[down] + column * grid.rows + row
        return placement

    def _paired(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which block is an up-projection's, and which is its partner: the likeliest pairs first, then the best of all
        with these for ups."""
        ours = F.normalize(self.blocks, dim=2)
        theirs = F.normalize(self.blocks.transpose(1, 2), dim=2)
        squares = ours.new_zeros(len(ours), len(ours))
        for neuron in range(ours.shape[1]):
            squares += (ours[:, neuron] @ theirs[:, neuron].T).square_()
        score = squares.fill_diagonal_(0).cpu().numpy()
        used = np.zeros(len(score), dtype=bool)
        chosen: list[int] = []
        for flat in np.argsort(-score, axis=None)[: 64 * len(score)]:
            up, down = divmod(int(flat), len(score))
            if not used[up] and not used[down]:
                used[[up, down]] = True
                chosen.append(up)
        ups = np.array([*chosen, *np.flatnonzero(~used)[: len(score) // 2 - len(chosen)]], dtype=np.int64)
        downs = np.setdiff1d(np.arange(len(score)), ups)
        first, second = linear_sum_assignment(score[np.ix_(ups, downs)], maximize=True)
        return ups[first], downs[second]

    def _groups(self, ups: NDArray[np.int64], downs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Pairs of the same neurons, as many in each group as the stream has slices."""
        likeness = _likeness(self.blocks[ups].norm(dim=2)) + _likeness(self.blocks[downs].norm(dim=1))
        like = likeness.cpu().numpy()
        size, count = self.grid.columns, len(ups) // self.grid.columns
        clusters = AgglomerativeClustering(count, metric="precomputed", linkage="average")
        group_of = clusters.fit_predict(like.max() - like)
        for _ in range(ROUNDS):  # groups of equal size: each pair to the group that it is most like
            member = np.eye(count)[group_of]
            mean = like @ member / np.maximum(member.sum(0), 1)
            pair, slot = linear_sum_assignment(np.repeat(mean, size, axis=1), maximize=True)
            now = np.empty(len(ups), dtype=np.int64)
            now[pair] = slot // size
            if np.array_equal(now, group_of):
                break
            group_of = now
        return [np.flatnonzero(group_of == group) for group in range(count)]

    def _of_layers(
        self,
        ups: NDArray[np.int64],
        downs: NDArray[np.int64],
        groups: Sequence[NDArray[np.int64]],
        around: Mapping[str, Surroundings],
    ) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
        """Layer and row of each group, and the column of each pair."""
        grid, layers = self.grid, range(len(self.pairs))
        by_slice = np.stack([self._slices(ups, downs, around, layer) for layer in layers])  # [layers, pairs, columns]
        fits = np.zeros((len(groups), len(layers)))
        columns = np.zeros((len(layers), len(ups)), dtype=np.int64)
        for at, group in enumerate(groups):
            for layer in layers:
                score = by_slice[layer][group]
                pair, column = linear_sum_assignment(score, maximize=True)
                fits[at, layer] = score[pair, column].sum()
                columns[layer, group[pair]] = column
        fits = np.repeat(fits, grid.rows, axis=1)
        place = linear_sum_assignment(self._biases(ups, groups, around) + fits, maximize=True)[1]
        for _ in range(ROUNDS):
            biases = self._predicted_biases(ups, downs, groups, columns, place, around)
            now = linear_sum_assignment(biases + fits, maximize=True)[1]
            if np.array_equal(now, place):
                break
            place = now
        rows = [divmod(int(each), grid.rows) for each in place]
        chosen = np.empty(len(ups), dtype=np.int64)
        for layer in layers:
            here = [group for group, (of, _) in zip(groups, rows, strict=True) if of == layer]
            if here:
                pairs = np.concatenate(here)
                chosen[pairs] = self._alike(ups, downs, here, columns[layer], by_slice[layer])[pairs]
        return rows, chosen

    def _alike(
        self,
        ups: NDArray[np.int64],
        downs: NDArray[np.int64],
        groups: Sequence[NDArray[np.int64]],
        columns: NDArray[np.int64],
        prior: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Columns of the pairs of a layer, those of one slice of the stream taken to be alike: half of the groups says
        what each slice is like, by which the other half is placed, by turns."""
        for _ in range(ROUNDS):
            now = columns.copy()
            for part in (0, 1):
                those, mine = groups[1 - part :: 2], groups[part::2]
                if not those or not mine:
                    return columns
                known = np.concatenate(those)
                order = known[np.argsort(columns[known], kind="stable")]
                pairs = np.concatenate(mine)
                score = prior[pairs] + self._like_slices(ups, downs, order, pairs)
                for at in range(0, len(pairs), self.grid.columns):
                    of_group = slice(at, at + self.grid.columns)
                    pair, column = linear_sum_assignment(score[of_group], maximize=True)
                    now[pairs[of_group][pair]] = column
            if np.array_equal(now, columns):
                break
            columns = now
        return columns

    def _like_slices(
        self, ups: NDArray[np.int64], downs: NDArray[np.int64], known: NDArray[np.int64], pairs: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Log-likelihood [pairs, columns] under the second moments of known pairs, equally many of each column in
        order."""
        side, shapes = self.grid.width, torch.full((len(pairs), 2), self.grid.width, device=self.blocks.device)
        total = self.blocks.new_zeros(len(pairs), self.grid.columns)
        for of, turned in ((ups, False), (downs, True)):
            blocks = self.blocks.transpose(1, 2) if turned else self.blocks
            lines = blocks[of[known]].reshape(self.grid.columns, -1, side)
            moments = torch.bmm(lines.transpose(1, 2), lines)
            total += likeliest_evidence(blocks[of[pairs]], [moments], shapes, weighed=True).log_likelihood
        return total.double().cpu().numpy()

    def _predicted_biases(
        self,
        ups: NDArray[np.int64],
        downs: NDArray[np.int64],
        groups: Sequence[NDArray[np.int64]],
        columns: NDArray[np.int64],
        place: NDArray[np.int64],
        around: Mapping[str, Surroundings],
    ) -> NDArray[np.float64]:
        """Log-likelihood [groups, layers * rows] of the biases as a linear function of what each neuron's weights are
        like, fitted in each layer to the groups that now lie there."""
        grid, parts = self.grid, []
        for layer, (name, _) in enumerate(self.pairs):
            bias = around[name].bias
            if bias is None:
                return np.zeros((len(groups), len(self.pairs) * grid.rows))
            known = bias.double().view(grid.rows, grid.height)
            known = (known - known.mean()) / known.std().clamp(min=1e-12)
            mean = around[name].inputs.mean(0).view(grid.columns, -1)
            traits = torch.stack([self._traits(ups, downs, group, columns[layer], mean) for group in groups])
            here = [at for at in range(len(groups)) if place[at] // grid.rows == layer]
            there = torch.from_numpy(place[here] % grid.rows)
            centre, spread = traits[here].mean((0, 1)), traits[here].flatten(0, 1).std(0).clamp(min=1e-12)
            traits = (traits - centre) / spread
            slopes = torch.linalg.lstsq(traits[here].flatten(0, 1), known[there].flatten()[:, None]).solution
            predicted = (traits @ slopes)[:, :, 0]
            variance = float((predicted[here] - known[there]).square().mean().clamp(min=1e-6))
            apart = (predicted[:, None, :] - known[None]).square().sum(2)
            parts.append(-0.5 * apart / variance - 0.5 * grid.height * math.log(variance))
        return torch.cat(parts, 1).cpu().numpy()

    def _traits(
        self,
        ups: NDArray[np.int64],
        downs: NDArray[np.int64],
        group: NDArray[np.int64],
        columns: NDArray[np.int64],
        mean: torch.Tensor,
    ) -> torch.Tensor:
        """Of each neuron of a group [side, traits]: how large and uneven its weights are, how its two sides point, and
        what it makes of the mean input [columns, side]."""
        up, down = self.blocks[ups[group]].double(), self.blocks[downs[group]].double()
        of_mean = (up * mean[columns[group]].double()[:, None, :]).sum((0, 2))
        energy = up.square().sum((0, 2)).clamp(min=1e-30).log()
        out = down.square().sum((0, 1)).clamp(min=1e-30).log()
        uneven = up.pow(4).sum((0, 2)).clamp(min=1e-60).log()
        aligned = (up * down.transpose(1, 2)).sum((0, 2))
        return torch.stack([of_mean, energy, out, uneven, aligned, up.sum((0, 2))], 1)

    def _slices(
        self, ups: NDArray[np.int64], downs: NDArray[np.int64], around: Mapping[str, Surroundings], layer: int
    ) -> NDArray[np.float64]:
        """Log-likelihood [pairs, columns] of the slice of the stream that each pair would have in this layer."""
        up, down = (around[name] for name in self.pairs[layer])
        side = self.grid.width
        shapes = torch.full((len(ups), 2), side, device=self.blocks.device)
        score = likeliest_evidence(
            self.blocks[ups], [slices(up.inputs, side)], shapes, NORMED, weighed=True
        ).log_likelihood
        stream = [slices(each, side) for each in (down.following, down.writing) if each is not None]
        if stream:
            columns = self.blocks[downs].transpose(1, 2)
            score = score + likeliest_evidence(columns, stream, shapes, NORMED, weighed=True).log_likelihood
        return (score - score.logsumexp(1, keepdim=True)).double().cpu().numpy()

    def _biases(
        self, ups: NDArray[np.int64], groups: Sequence[NDArray[np.int64]], around: Mapping[str, Surroundings]
    ) -> NDArray[np.float64]:
        """Log-likelihood [groups, layers * rows] of the biases that each group's neurons would have."""
        grid, norms = self.grid, self.blocks[ups].square().sum(2).clamp(min=1e-30).log()
        profiles = torch.stack([norms[torch.from_numpy(group)].mean(0) for group in groups])
        known = [around[up].bias for up, _ in self.pairs]
        if any(bias is None for bias in known):
            return np.zeros((len(groups), len(known) * grid.rows))
        biases = torch.cat([bias.view(grid.rows, grid.height) for bias in known if bias is not None]).to(norms.dtype)
        heights = torch.full((len(profiles),), grid.height, device=norms.device)
        rows = torch.full((len(biases),), grid.height, device=norms.device)
        return unit_evidence(profiles, heights, biases, rows).log_likelihood.double().cpu().numpy()


def heap_of(puzzle: Puzzle, blocks: torch.Tensor) -> Heap | None:
    """Of a puzzle that scatters up- and down-projections in pairs of one shape, in whole square blocks, all held."""
    layout, (height, width) = puzzle.layout, puzzle.layout.block_shape
    if height != width or len(blocks) != layout.positions or len(blocks) > MOST or not layout.ambiguous().all():
        return None
    pairs = Streams(puzzle.model()).pairs(list(layout.grids))
    shapes = {(layout.grids[up].outputs, layout.grids[up].inputs) for up, _ in pairs}
    return Heap(blocks, layout, pairs) if 2 * len(pairs) == len(layout.grids) and len(shapes) == 1 else None


def _likeness(norms: torch.Tensor) -> torch.Tensor:
    """Correlation [n, n] of the logarithms of each block's norms [n, side]."""
    logs = norms.clamp(min=1e-30).log().double()
    z_scores = F.normalize(logs - logs.mean(1, keepdim=True), dim=1)
    return z_scores @ z_scores.T
