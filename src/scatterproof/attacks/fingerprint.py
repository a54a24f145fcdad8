"""Reassembly from the blocks' own weights: no labels, no placement scored, a few unlabelled images or none.

Two kinds of evidence. First each block by itself: its rows lean towards its inputs' second moment, its columns towards
the next layer's Gram matrix (evidence.py). Then the blocks together: what training added to the layer has few
directions, those in which its inputs vary and those that the next layer reads. So the layer as expected under the
beliefs held so far, filtered to those directions, predicts each block from all the others (prediction.py), and a
block's product with the prediction for a place says how likely it lies there. Beliefs and prediction are computed in
turn (mean field) until they settle. The filters' widths and the noise are chosen, in every round, by how much of the
expected layer's energy the prediction explains. What is expected at a place has no part in the prediction for it, so
that blocks don't hold themselves where they are. The layer's own biases tell rows apart as well, and are all there is
where no dense layer follows. Several layers scattered at once are first told apart (layers.py), then put together one
after the other, each seen through those before it.

The first kind follows 'I Dropped a Neural Net' (https://arxiv.org/abs/2602.19845) and balancedness (Du et al. 2018,
https://arxiv.org/abs/1806.00900), turned into likelihoods; beliefs by Sinkhorn's scaling follow Mena et al. 2018
(https://arxiv.org/abs/1802.08665).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from scatterproof.attack_grid import Known
from scatterproof.attacks.assignment import DENSE, IMPOSSIBLE, Candidates, beliefs, best_assignment
from scatterproof.attacks.direct import KEPT_CANDIDATES, DirectAttack, Placed, Run
from scatterproof.attacks.evidence import group_evidence, slices, unit_evidence
from scatterproof.attacks.layers import layers_of
from scatterproof.attacks.prediction import Filters, Prediction
from scatterproof.attacks.surroundings import Surroundings, find_surroundings, in_order
from scatterproof.blocks import UNPLACED, invert
from scatterproof.puzzle import Puzzle

CERTAIN = 1e-3  # beliefs below it are left out of the expected layer
CHUNK = 512  # blocks scored at once


@dataclass(frozen=True)
class Fingerprint(DirectAttack):
    """Mean-field reassembly of one layer, or of several scattered together.

    rounds: at most so many; candidates: blocks times positions that beliefs are held about (all, up to a few thousand
    blocks); input_widths, output_widths: of the filters, as shares of the largest direction's variance; settled: the
    relative change of what is explained at which the rounds end, as they do where no block's likeliest place changes;
    sweeps: over the layers, at most, where several are.
    """

    name: ClassVar[str] = "fingerprint"
    reads: ClassVar[tuple[Known, ...]] = ("none",)

    rounds: int = 10
    candidates: int = 6_000_000
    input_widths: tuple[float, ...] = (0.003, 0.01, 0.03)
    output_widths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    settled: float = 0.002
    sweeps: int = 4

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Placed]:
        """The placement by each block alone, then after each round."""
        device = run.machine.device
        if len(puzzle.layout.grids) > 1:
            yield from self._several(puzzle, device)
            return
        (name,) = puzzle.layout.grids
        around = find_surroundings(puzzle, name, device)
        yield from self.placements(puzzle.blocks.to(device), puzzle.shapes.to(device), around)

    def placed(self, puzzle: Puzzle, device: torch.device) -> Placed:
        """The last of these alone: to make each round a placement takes longer than the rounds."""
        (name,) = puzzle.layout.grids
        around = find_surroundings(puzzle, name, device)
        *_, found = self.placements(puzzle.blocks.to(device), puzzle.shapes.to(device), around, dense=0)
        return found

    def _several(self, puzzle: Puzzle, device: torch.device) -> Iterator[Placed]:
        """The same for several layers at once: which layer each block is of, then one after the other from the first.

        A layer's inputs are computed with the layers before it as they were put together; in the second sweep the ones
        after it are known as well.
        """
        blocks, shapes, layout = puzzle.blocks.to(device), puzzle.shapes.to(device), puzzle.layout
        layer_of, order = layers_of(blocks, shapes, layout), list(layout.grids)
        placement = torch.zeros(len(blocks), dtype=torch.int64)
        candidates = torch.zeros(len(blocks), KEPT_CANDIDATES, dtype=torch.int64)
        belief = torch.zeros(len(blocks), KEPT_CANDIDATES)
        weights: dict[str, torch.Tensor] = {}
        for _ in range(self.sweeps):
            before = placement.clone()
            for name in in_order(puzzle, device):
                mine, first = layer_of == order.index(name), layout.offsets[name]
                if not mine.any():
                    continue
                known = {other: weight for other, weight in weights.items() if other != name}
                around = find_surroundings(puzzle, name, device, known)
                (found,) = self.placements(blocks[mine], shapes[mine], around, dense=0)
                weights[name] = _put_together(blocks[mine], found.placement.to(device), around)
                rows, kept = mine.cpu(), found.beliefs.shape[1]
                placement[rows] = found.placement + first
                candidates[rows, :kept], belief[rows, :kept] = found.candidates + first, found.beliefs
            yield Placed(placement.clone(), candidates.clone(), belief.clone())
            if torch.equal(placement, before):
                break

    def placements(
        self,
        blocks: torch.Tensor,
        shapes: torch.Tensor,
        around: Surroundings,
        guide: torch.Tensor | None = None,
        dense: int = DENSE,
        told: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> Iterator[Placed]:
        """The same for blocks [held, height, width] of these shapes int64 [held, 2].

        guide [positions, height * width]: what else is known of the weight at each position, and counts throughout.
        told: what else is known of each block's column [held, columns] and row [held, rows], log-likelihoods.
        With more blocks times positions than `dense` the last round alone is made a placement: that takes long.
        """
        evidence = _Evidence(blocks, shapes, around)
        if told is not None:
            evidence.add(*told)
        for candidates, belief, last in self._believe(evidence, around, guide):
            if not last and len(blocks) * around.grid.count > dense:
                continue
            best, at = belief.topk(min(KEPT_CANDIDATES, belief.shape[1]), dim=1)
            placement = best_assignment(candidates, evidence.shape_of, evidence.shape_at)
            yield Placed(placement, candidates.positions.gather(1, at).cpu(), best.cpu())

    def _believe(
        self, evidence: "_Evidence", around: Surroundings, guide: torch.Tensor | None
    ) -> Iterator[tuple[Candidates, torch.Tensor, bool]]:
        """Candidates and beliefs about where the blocks lie, and whether they are the last, round by round."""
        slots = around.grid.count
        filters = Filters(around, self.input_widths, self.output_widths)
        count = max(1, min(slots, self.candidates // len(evidence.flat)))
        energy = float(evidence.flat.square().sum(dtype=torch.float64))
        known = None if guide is None else Prediction(guide, 1.0, float(guide.square().sum(dtype=torch.float64)))
        candidates, before = evidence.candidates(known, energy, count), 0.0
        belief = beliefs(candidates, slots)
        for _ in range(self.rounds):
            yield candidates, belief, False
            likeliest = _likeliest(candidates, belief)
            if guide is None:  # which says by itself which row is which
                candidates = evidence.relabelled(candidates, belief)
            expected = _expected(evidence.flat, candidates, belief, slots)
            prediction = filters.predict(expected) if guide is None else filters.guided(expected, guide)
            candidates = evidence.candidates(prediction, energy, count)
            belief = beliefs(candidates, slots)
            change = abs(prediction.explained - before)
            if change <= self.settled * prediction.explained or likeliest.equal(_likeliest(candidates, belief)):
                break
            before = prediction.explained
        yield candidates, belief, True


def _likeliest(candidates: Candidates, belief: torch.Tensor) -> torch.Tensor:
    """The place [blocks, 1] that each block most likely has."""
    return candidates.positions.gather(1, belief.argmax(1, keepdim=True))


def _expected(flat: torch.Tensor, candidates: Candidates, belief: torch.Tensor, slots: int) -> torch.Tensor:
    """The weight expected at each position [positions, height * width]."""
    sure = belief > CERTAIN
    block = torch.arange(len(flat), device=flat.device)[:, None].expand_as(belief)[sure]
    index = torch.stack([candidates.positions[sure], block])
    mixing = torch.sparse_coo_tensor(index, belief[sure], (slots, len(flat)), check_invariants=True)
    expected: torch.Tensor = torch.sparse.mm(mixing, flat)
    return expected


def _put_together(blocks: torch.Tensor, placement: torch.Tensor, around: Surroundings) -> torch.Tensor:
    """The weight with the blocks at these positions; where blocks are missing, scaled by the share held."""
    grid = around.grid
    lines = torch.cat([blocks, torch.zeros_like(blocks[:1])]).flatten(0, 1)
    block_at = invert(placement, grid.count)
    whole = grid.assemble(lines, torch.where(block_at == UNPLACED, len(blocks), block_at))
    return whole * (grid.count / len(blocks))


class _Evidence:
    """Each block's own evidence, to which a prediction's is added.

    flat [blocks, height * width]; shape_of int64 [blocks] and shape_at int64 [positions] number the shapes: a block may
    only lie where its shape does.
    """

    def __init__(self, blocks: torch.Tensor, shapes: torch.Tensor, around: Surroundings) -> None:
        grid = around.grid
        self.flat = blocks.flatten(1)
        places = grid.shapes().to(shapes.device)
        numbers = torch.unique(torch.cat([shapes, places]), dim=0, return_inverse=True)[1]
        self.shape_of, self.shape_at = numbers[: len(shapes)], numbers[len(shapes) :]
        inputs = slices(around.inputs, grid.width)
        self._by_column = group_evidence(blocks, inputs, shapes).log_likelihood
        self._by_row = blocks.new_zeros(len(blocks), grid.rows)
        if around.following is not None:
            moments = slices(around.following, grid.height)
            self._by_row += group_evidence(blocks.transpose(1, 2), moments, shapes.flip(1)).log_likelihood
        if around.bias is not None:
            heights = places.view(grid.rows, grid.columns, 2)[:, 0, 0]
            biases = F.pad(around.bias, (0, grid.rows * grid.height - grid.outputs)).view(grid.rows, grid.height)
            profiles = _activity(blocks, inputs, self._by_column)
            heights, tested = heights.to(biases.device), around.following is not None  # else there is nothing to spoil
            self._by_row += unit_evidence(profiles, shapes[:, 0], biases, heights, tested).log_likelihood

    def add(self, by_column: torch.Tensor, by_row: torch.Tensor) -> None:
        """Count what else is known of columns and rows as evidence of each block's own."""
        self._by_column = self._by_column + by_column
        self._by_row = self._by_row + by_row

    def relabelled(self, candidates: Candidates, belief: torch.Tensor) -> Candidates:
        """Rows exchanged as wholes where the evidence of all blocks in them together says so.

        Beliefs block by block can settle with two rows' blocks in each other's places, each row at one with itself.
        Columns are tied to each other by the inputs' covariance, and don't.
        """
        columns = self._by_column.shape[1]
        rows = candidates.positions // columns
        now = _regroup(rows, belief, self._by_row)[rows]
        return candidates._replace(positions=now * columns + candidates.positions % columns)

    def candidates(self, prediction: Prediction | None, energy: float, count: int) -> Candidates:
        """The `count` best positions of each block. energy: the blocks' sum of squares."""
        places, scores, slots = [], [], len(self.shape_at)
        for part in torch.arange(len(self.flat), device=self.flat.device).split(CHUNK):
            found = (self._by_row[part][:, :, None] + self._by_column[part][:, None, :]).flatten(1)
            if prediction is not None:
                noise = max(energy - prediction.explained, 1e-6 * energy) / self.flat.numel()
                fixed = prediction.gain**2 / (2 * noise) * prediction.weight.square().sum(1)
                found = found.addmm_(self.flat[part], prediction.weight.T, alpha=prediction.gain / noise).sub_(fixed)
            found.masked_fill_(self.shape_of[part][:, None] != self.shape_at, -torch.inf)
            if count < slots:
                found, place = found.topk(count, dim=1)
                places.append(place)
            scores.append(found)
        everywhere = torch.arange(slots, device=self.flat.device).expand(len(self.flat), -1)
        return Candidates(torch.cat(places) if places else everywhere, torch.cat(scores).nan_to_num_(neginf=IMPOSSIBLE))


def _activity(blocks: torch.Tensor, moments: torch.Tensor, by_column: torch.Tensor) -> torch.Tensor:
    """Log of how strongly each unit of a block [blocks, height] answers the inputs of the column it seems to lie in.

    Units that learned much have large weights and large biases: both came from the same gradients.
    """
    expected = (by_column.softmax(1) @ moments.flatten(1)).view(len(blocks), *moments.shape[1:])
    energy = (torch.bmm(blocks, expected) * blocks).sum(2)
    return energy.clamp(min=1e-30).log()


def _regroup(groups: torch.Tensor, belief: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """Which group [groups] the blocks of each are together likeliest to be; groups [blocks, count]: the candidates'."""
    count = evidence.shape[1]
    share = belief.new_zeros(len(belief), count).scatter_add_(1, groups, belief)
    pooled = (share.T @ (evidence - evidence.mean(1, keepdim=True))).double().cpu().numpy()
    return torch.from_numpy(linear_sum_assignment(pooled, maximize=True)[1]).to(groups.device)
