"""Where groups of neurons belong: which layer and block row, and which slice of the stream each block of a group has.

The biases, which are not scattered, say which layer and row a group is: at first by how large the neurons' weights are,
then by a linear function of several traits, fitted to the groups as they lie. The known readers and writers of the
stream, and what is known of the layer's inputs, say which slice each block has; so do other groups, whose blocks of the
same slice are alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from scatterproof.attacks.fingerprint.assignment import best_pairs
from scatterproof.attacks.fingerprint.context import Surroundings
from scatterproof.attacks.fingerprint.evidence import EXPONENTS, NORMED, likeliest_evidence, slices, unit_evidence

ROUNDS = 10
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class NeuronGroups:
    """ups, downs [groups, columns, neurons, side]: what the neurons of a group read of each slice of the stream, in an
    unknown order, and what they write to it; around: of each layer's up- and down-projection."""

    ups: torch.Tensor
    downs: torch.Tensor
    around: Sequence[tuple[Surroundings, Surroundings]]

    def assigned(self) -> tuple[Integers, Integers]:
        """The place of each group, layer * rows + row, and the column of each of its blocks [groups, columns]."""
        by_slice = [self._slices(layer) for layer in range(len(self.around))]
        best = [_assigned(scores) for scores in by_slice]  # of each layer
        fits = np.stack([total for _, total in best], 1).repeat(self._rows, axis=1)
        columns = np.stack([column for column, _ in best])
        place = best_pairs(self._sizes_for_biases() + fits)[1]
        for _ in range(ROUNDS if self._biases is not None else 0):
            now = best_pairs(self._traits_for_biases(columns, place) + fits)[1]
            if np.array_equal(now, place):
                break
            place = now
        layers = place // self._rows
        chosen = columns[layers, np.arange(len(place))]
        for layer, scores in enumerate(by_slice):
            here = np.flatnonzero(layers == layer)
            chosen[here] = self._alike(here, chosen[here], scores[here])
        return place, chosen

    @property
    def _rows(self) -> int:
        return self.around[0][0].grid.rows

    @cached_property
    def _biases(self) -> torch.Tensor | None:
        """[layers, rows, neurons]; None where a layer has none."""
        known = [up.bias for up, _ in self.around]
        if any(bias is None for bias in known):
            return None
        return torch.stack([bias for bias in known if bias is not None]).view(len(known), self._rows, -1)

    def _slices(self, layer: int) -> Floats:
        """Log-likelihood [groups, columns, columns] of each slice for each block, as in this layer."""
        up, down = self.around[layer]
        side = self.ups.shape[-1]
        score = self._likelihood(self.ups, [slices(up.inputs, side)], NORMED)
        stream = [slices(each, side) for each in (down.following, down.writing) if each is not None]
        if stream:
            score = score + self._likelihood(self.downs, stream, NORMED)
        return (score - score.logsumexp(2, keepdim=True)).double().cpu().numpy()

    def _likelihood(
        self, blocks: torch.Tensor, moments: Sequence[torch.Tensor], exponents: Sequence[float]
    ) -> torch.Tensor:
        """Of blocks [groups, columns, neurons, side] under each column's moments: [groups, columns, columns]."""
        flat = blocks.flatten(0, 1)
        shapes = torch.tensor(flat.shape[1:], device=flat.device).expand(len(flat), -1)
        evidence = likeliest_evidence(flat, moments, shapes, exponents, weighed=True)
        return evidence.log_likelihood.view(*blocks.shape[:2], -1)

    def _sizes_for_biases(self) -> Floats:
        """Log-likelihood [groups, layers * rows] of the biases that go with how large the neurons' weights are."""
        if self._biases is None:
            return np.zeros((len(self.ups), len(self.around) * self._rows))
        profiles = self.ups.square().sum(3).clamp(min=1e-30).log().mean(1)
        biases = self._biases.flatten(0, 1).to(profiles.dtype)
        heights, rows = (torch.full((len(each),), each.shape[1], device=each.device) for each in (profiles, biases))
        return unit_evidence(profiles, heights, biases, rows).log_likelihood.double().cpu().numpy()

    def _traits_for_biases(self, columns: Integers, place: Integers) -> Floats:
        """The same of the biases as a linear function of the neurons' traits, fitted in each layer to the groups that
        now lie there."""
        assert self._biases is not None
        likelihoods = []
        for layer, known in enumerate(self._biases.double()):
            known = (known - known.mean()) / known.std().clamp(min=1e-12)
            traits = self._traits(columns[layer], self.around[layer][0].inputs.mean(0))
            here = np.flatnonzero(place // self._rows == layer)
            there = place[here] % self._rows
            centre, spread = traits[here].mean((0, 1)), traits[here].flatten(0, 1).std(0).clamp(min=1e-12)
            traits = (traits - centre) / spread
            slopes = torch.linalg.lstsq(traits[here].flatten(0, 1), known[there].flatten()[:, None]).solution
            predicted = (traits @ slopes)[:, :, 0]
            variance = float((predicted[here] - known[there]).square().mean().clamp(min=1e-6))
            apart = (predicted[:, None, :] - known[None]).square().sum(2)
            likelihoods.append(-0.5 * apart / variance - 0.5 * known.shape[1] * math.log(variance))
        return torch.cat(likelihoods, 1).cpu().numpy()

    def _traits(self, columns: Integers, mean: torch.Tensor) -> torch.Tensor:
        """Of each neuron [groups, neurons, traits]: what it makes of the mean input [inputs], how large and uneven its
        weights are, and how its two sides point."""
        ups, downs = self.ups.double(), self.downs.double()
        own = mean.double().view(ups.shape[1], -1)[torch.from_numpy(columns)]
        of_mean = (ups * own[:, :, None, :]).sum((1, 3))
        energies = [each.square().sum((1, 3)).clamp(min=1e-30).log() for each in (ups, downs)]
        uneven = ups.pow(4).sum((1, 3)).clamp(min=1e-60).log()
        return torch.stack([of_mean, *energies, uneven, (ups * downs).sum((1, 3)), ups.sum((1, 3))], 2)

    def _alike(self, here: Integers, columns: Integers, prior: Floats) -> Integers:
        """Columns [groups, columns] of a layer's groups, blocks of one slice of the stream taken to be alike: half of
        the groups says what each slice is like, by which the other half is placed, by turns."""
        if len(here) < 2:
            return columns
        for _ in range(ROUNDS):
            now = columns.copy()
            for part in (0, 1):
                order = np.argsort(columns[1 - part :: 2], axis=1)
                known, mine = here[1 - part :: 2, None], here[part::2]
                score = torch.zeros(())
                for blocks in (self.ups, self.downs):
                    lines = blocks[known, order].transpose(0, 1).flatten(1, 2)  # of each column
                    moments = torch.bmm(lines.transpose(1, 2), lines)
                    score = score.to(lines) + self._likelihood(blocks[mine], [moments], EXPONENTS)
                now[part::2] = _assigned(prior[part::2] + score.double().cpu().numpy())[0]
            if np.array_equal(now, columns):
                break
            columns = now
        return columns


def _assigned(scores: Floats) -> tuple[Integers, Floats]:
    """For each group the best column of each block [groups, columns], and the total score [groups]; scores [groups,
    columns, columns]."""
    columns = np.stack([best_pairs(each)[1] for each in scores])
    return columns, np.take_along_axis(scores, columns[:, :, None], 2).sum((1, 2))
