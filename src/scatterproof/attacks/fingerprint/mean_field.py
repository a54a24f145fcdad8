"""Beliefs about where the blocks of a layer lie and the prediction of each from all others, by turns (mean field)."""

from collections.abc import Iterator
from math import log
from typing import NamedTuple

import torch

from scatterproof.attacks.base import KEPT_CANDIDATES, Placed
from scatterproof.attacks.fingerprint.assignment import Candidates, beliefs, best_assignment
from scatterproof.attacks.fingerprint.context import Surroundings
from scatterproof.attacks.fingerprint.evidence import PositionEvidence
from scatterproof.attacks.fingerprint.prediction import Filters, Prediction

CERTAIN = 1e-3  # beliefs below it are left out of the expected layer


class Round(NamedTuple):
    """Candidates and beliefs [blocks, count] about them after a round.

    converged: the next one would change nothing; explained: the energy of the layer that the prediction explains.
    """

    candidates: Candidates
    belief: torch.Tensor
    converged: bool = False
    explained: float = 0.0


class MeanField:
    """One layer's blocks [held, height, width] of shapes int64 [held, 2].

    candidates: blocks times positions that beliefs are held about; tolerance: the relative change of what is explained
    at which rounds end; prior_weight, extra_evidence: as for `Fingerprint.placements`.
    """

    def __init__(
        self,
        blocks: torch.Tensor,
        shapes: torch.Tensor,
        around: Surroundings,
        filters: Filters,
        candidates: int,
        tolerance: float,
        prior_weight: torch.Tensor | None,
        extra_evidence: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> None:
        self.blocks, self.shapes, self.around = blocks, shapes, around
        self.filters, self._tolerance, self._prior_weight = filters, tolerance, prior_weight
        self._evidence = PositionEvidence(blocks, shapes, around)
        if extra_evidence is not None:
            self._evidence.add(*extra_evidence)
        self._slots = around.grid.count
        self._count = max(1, min(self._slots, candidates // len(blocks)))
        self.energy = float(blocks.square().sum(dtype=torch.float64))

    def rounds(self, most: int, temperature: float = 1.0, start: Round | None = None) -> Iterator[Round]:
        """Round by round until they converge, at most so many: from each block's own evidence, which comes first, or on
        from a round of this layer. temperature: divides log-likelihoods, against being too sure too soon: the
        prediction is made of blocks that may lie elsewhere, and is taken as if they did not.
        """
        if start is None:
            candidates = self._evidence.candidates(self._prior(), self.energy, self._count)
            start = Round(candidates, self._believed(candidates, temperature))
            yield start
        candidates, belief, before = start.candidates, start.belief, 0.0
        for _ in range(most):
            likeliest = _likeliest(candidates, belief)
            if self._prior_weight is None:  # which says by itself which row is which
                candidates = self._evidence.relabelled(candidates, belief)
            prediction = self._predicted(_expected(self._evidence.flat, candidates, belief, self._slots))
            candidates = self._evidence.candidates(prediction, self.energy, self._count)
            belief = self._believed(candidates, temperature)
            change = abs(prediction.explained - before)
            converged = change <= self._tolerance * prediction.explained
            converged = converged or likeliest.equal(_likeliest(candidates, belief))
            yield Round(candidates, belief, converged, prediction.explained)
            if converged:
                break
            before = prediction.explained

    def placed(self, iterate: Round) -> Placed:
        """The best placement by a round's scores, and its beliefs."""
        best, at = iterate.belief.topk(min(KEPT_CANDIDATES, iterate.belief.shape[1]), dim=1)
        placement = best_assignment(iterate.candidates, self._evidence.shape_of, self._evidence.shape_at)
        return Placed(placement, iterate.candidates.positions.gather(1, at).cpu(), best.cpu())

    def explained(self, placement: torch.Tensor) -> float:
        """The energy (sum of squares) of the layer put together so that the filters explain, each block by the others:
        what tells good placements from bad ones without knowing the truth."""
        flat = self._evidence.flat
        whole = flat.new_zeros(self._slots, flat.shape[1])
        whole[placement.to(flat.device)] = flat
        return self.filters.predict(whole).explained

    def tells(self, explained: float) -> float:
        """What explaining so much energy says of each block, in multiples of what its place takes: log(positions).

        As if weights were normal: half the logarithm of what the energy is smaller by, times a block's weights.
        """
        rest = max(1 - explained / max(self.energy, 1e-30), 1e-12)
        return -0.5 * log(rest) * self._evidence.flat.shape[1] / log(max(self._slots, 2))

    def _believed(self, candidates: Candidates, temperature: float) -> torch.Tensor:
        if temperature != 1:
            candidates = candidates._replace(scores=candidates.scores / temperature)
        return beliefs(candidates, self._slots)

    def _prior(self) -> Prediction | None:
        if self._prior_weight is None:
            return None
        return Prediction(self._prior_weight, 1.0, float(self._prior_weight.square().sum(dtype=torch.float64)))

    def _predicted(self, expected: torch.Tensor) -> Prediction:
        if self._prior_weight is None:
            return self.filters.predict(expected)
        return self.filters.with_prior(expected, self._prior_weight)


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
