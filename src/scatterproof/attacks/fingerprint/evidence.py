"""What a block's own weights say of its row and column, as log-likelihoods.

Training adds to a weight the outer products of what flows back and what flows in, so its rows lean towards the span of
the layer's inputs, and its columns towards that of the next layer's weights. A block's rows are taken as draws from a
normal distribution with covariance `a M^g + b I`, M being the second moment of the inputs that the block would have in
a column; its columns likewise, M being the next layer's Gram matrix over the neurons that it would have in a row. The
exponent g and the share a / (a + b) are those under which the blocks, whatever their places, are likeliest: nothing of
the truth is needed to choose them. Where the layer's inputs are copies of each other, M has their pattern, and with it
goes the phase of the copies within the block. What a unit learned also shows in its bias, which is not scattered.

In a network with norms over features, as transformers are, g may be below zero, other writers of the residual stream
tell of a layer's rows as its readers do, and a neuron's partner tells of both (alignment.py). Evidence of different
kinds then stands side by side, each divided by its dispersion.
"""

from collections.abc import Sequence
from itertools import product
from math import log
from typing import NamedTuple

import torch
from torch.nn import functional as F

from scatterproof.attacks.fingerprint.alignment import alignment_evidence
from scatterproof.attacks.fingerprint.assignment import IMPOSSIBLE, Candidates, best_pairs
from scatterproof.attacks.fingerprint.context import Surroundings
from scatterproof.attacks.fingerprint.prediction import Prediction
from scatterproof.blocks import shape_numbers
from scatterproof.running.seeds import torch_generator

EXPONENTS = (0.5, 1.0)
NORMED = (-1.0, -0.5, *EXPONENTS)  # Adam and norms over features make weights small where inputs are large
FLOOR = 0.01  # of the mean of a spectrum: smaller values are no smaller
TRIED = 512  # blocks on which exponent and share are chosen, at most
EXCHANGES = 19
CORRELATIONS = (-0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
CHUNK = 512  # blocks scored at once
Spectrum = tuple[
    torch.Tensor, torch.Tensor
]  # of each group's moments: values [groups, d] and directions [groups, d, d]


class Evidence(NamedTuple):
    """log_likelihood float32 [blocks, groups], up to a constant for each block; the exponent and share chosen."""

    log_likelihood: torch.Tensor
    exponent: float
    share: float


class PositionEvidence:
    """Each block's own evidence, to which a prediction's is added.

    flat [blocks, height * width]; shape_of int64 [blocks] and shape_at int64 [positions] number the shapes: a block may
    only lie where its shape does.
    """

    def __init__(self, blocks: torch.Tensor, shapes: torch.Tensor, around: Surroundings) -> None:
        grid = around.grid
        self.flat = blocks.flatten(1)
        places = grid.shapes().to(shapes.device)
        self.shape_of, self.shape_at = shape_numbers(shapes, places)
        inputs = slices(around.inputs, grid.width)
        options = NORMED if around.normed else EXPONENTS, around.partner is not None
        self._by_column = likeliest_evidence(blocks, [inputs], shapes, *options).log_likelihood
        self._by_row = blocks.new_zeros(len(blocks), grid.rows)
        stream = [each for each in (around.following, around.writing) if each is not None]
        if stream:
            moments = [slices(each, grid.height) for each in stream]
            self._by_row += likeliest_evidence(blocks.transpose(1, 2), moments, shapes.flip(1), *options).log_likelihood
        self._aligned = alignment_evidence(blocks, around)
        if around.bias is not None:
            heights = places.view(grid.rows, grid.columns, 2)[:, 0, 0]
            biases = F.pad(around.bias, (0, grid.rows * grid.height - grid.outputs)).view(grid.rows, grid.height)
            profiles = _activity(blocks, inputs, self._by_column)
            heights, tested = heights.to(biases.device), bool(stream)  # else there is nothing to spoil
            self._by_row += unit_evidence(profiles, shapes[:, 0], biases, heights, tested).log_likelihood

    def add(self, by_column: torch.Tensor, by_row: torch.Tensor) -> None:
        """Count what else is known of columns and rows as evidence of each block's own."""
        self._by_column = self._by_column + by_column
        self._by_row = self._by_row + by_row

    def relabelled(self, candidates: Candidates, belief: torch.Tensor) -> Candidates:
        """Rows exchanged as wholes where the evidence of all blocks in them together says so.

        Beliefs block by block can settle with two rows' blocks in each other's places, each row at one with itself.
        Columns are tied to each other by the inputs' covariance, and don't; nor do rows where partners are known.
        """
        if self._aligned is not None:
            return candidates
        columns = self._by_column.shape[1]
        rows = candidates.positions // columns
        now = _regroup(rows, belief, self._by_row)[rows]
        return candidates._replace(positions=now * columns + candidates.positions % columns)

    def candidates(self, prediction: Prediction | None, energy: float, count: int) -> Candidates:
        """The `count` best positions of each block. energy: the blocks' sum of squares."""
        places, scores, slots = [], [], len(self.shape_at)
        if prediction is not None:
            noise = max(energy - prediction.explained, 1e-6 * energy) / self.flat.numel()
            excess = self._dispersion_about(prediction, noise)
            fixed = prediction.gain**2 / (2 * noise * excess) * prediction.weight.square().sum(1)
        for part in torch.arange(len(self.flat), device=self.flat.device).split(CHUNK):
            score = self._own(part)
            if prediction is not None:
                scale = prediction.gain / (noise * excess)
                score = score.addmm_(self.flat[part], prediction.weight.T, alpha=scale).sub_(fixed)
            score.masked_fill_(self.shape_of[part][:, None] != self.shape_at, -torch.inf)
            if count < slots:
                score, place = score.topk(count, dim=1)
                places.append(place)
            scores.append(score)
        everywhere = torch.arange(slots, device=self.flat.device).expand(len(self.flat), -1)
        return Candidates(torch.cat(places) if places else everywhere, torch.cat(scores).nan_to_num_(neginf=IMPOSSIBLE))

    def _own(self, part: torch.Tensor) -> torch.Tensor:
        """What each of these blocks says by itself of every position."""
        score = (self._by_row[part][:, :, None] + self._by_column[part][:, None, :]).flatten(1)
        return score if self._aligned is None else score + self._aligned[part]

    def _dispersion_about(self, prediction: Prediction, noise: float) -> float:
        """By how much blocks vary more about the prediction than noise has it, each where it seems to lie; one where
        its evidence stands beside no other kind."""
        if self._aligned is None:
            return 1.0
        tried = torch.linspace(0, len(self.flat) - 1, min(TRIED, len(self.flat)), device=self.flat.device).long()
        rest = self.flat[tried] - prediction.gain * prediction.weight[self._own(tried).argmax(1)]
        return _excess(rest.square().sum(1).double() / noise, torch.full((len(tried),), self.flat.shape[1]))


def _excess(energy: torch.Tensor, expected: torch.Tensor) -> float:
    """The variance of sums of squares over what it is for as many independent normal values; at least one."""
    expected = expected.to(energy)
    return max(1.0, float(((energy - expected) ** 2 / (2 * expected)).mean()))


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
    return torch.from_numpy(best_pairs(pooled)[1]).to(groups.device)


def group_evidence(vectors: torch.Tensor, moments: torch.Tensor, shapes: torch.Tensor) -> Evidence:
    """Which group (row or column) each block's vectors come from.

    vectors [blocks, n, d]: n draws of dimension d, padded by zeros; shapes int64 [blocks, 2]: how many draws of which
    dimension are real; moments [groups, d, d]: positive semidefinite, of any scale.
    """
    return likeliest_evidence(vectors, [moments], shapes)


def likeliest_evidence(
    vectors: torch.Tensor,
    sources: Sequence[torch.Tensor],
    shapes: torch.Tensor,
    exponents: Sequence[float] = EXPONENTS,
    weighed: bool = False,
) -> Evidence:
    """The same by the one of several sources of moments, and of these exponents, under which the blocks are likeliest.

    weighed: by its dispersion, so that it can stand beside evidence of another kind.
    """
    grams = torch.bmm(vectors.transpose(1, 2), vectors)
    count = shapes[:, 0].to(grams.dtype)
    energy = float(grams.diagonal(dim1=1, dim2=2).sum(dtype=torch.float64))
    variance = max(energy / float(shapes.prod(1).sum()), 1e-30)
    flat = grams.flatten(1)
    tried = torch.linspace(0, len(flat) - 1, min(TRIED, len(flat)), device=flat.device).long()
    spectra = [torch.linalg.eigh(moments.double()) for moments in sources]
    best, chosen = -torch.inf, (0, 0.0, 0.0)
    for number, exponent, share in product(range(len(spectra)), exponents, SHARES):
        likelihood = _likelihood(flat[tried], spectra[number], exponent, share, variance, count[tried])
        mean = float(torch.logsumexp(likelihood, 1).double().mean())
        if mean > best:
            best, chosen = mean, (number, exponent, share)
    number, exponent, share = chosen
    likelihood = _likelihood(flat, spectra[number], exponent, share, variance, count)
    excess = dispersion(likelihood, flat, spectra[number], (exponent, share), variance, shapes) if weighed else 1.0
    return Evidence(likelihood / excess, exponent, share)


def dispersion(
    likelihood: torch.Tensor,
    grams: torch.Tensor,
    spectrum: Spectrum,
    chosen: tuple[float, float],
    variance: float,
    shapes: torch.Tensor,
) -> float:
    """By how much blocks vary more than the normal distribution has it, each in its likeliest group; at least one.

    A block's energy in units of its covariance has the mean n d and the variance 2 n d. Log-likelihoods are divided by
    what it varies more: McCullagh and Nelder 1989, section 9.
    """
    inverse = _inverse(*spectrum, *chosen, variance)[0].flatten(1).to(grams.dtype)
    return _excess((grams * inverse[likelihood.argmax(1)]).sum(1).double(), shapes.prod(1))


def _likelihood(
    grams: torch.Tensor,
    spectrum: Spectrum,
    exponent: float,
    share: float,
    variance: float,
    count: torch.Tensor,
) -> torch.Tensor:
    """Normal log-likelihood [blocks, groups] of count [blocks] vectors with these Gram matrices [blocks, d * d]."""
    inverse, log_determinant = _inverse(*spectrum, exponent, share, variance)
    distance = grams @ inverse.flatten(1).to(grams.dtype).T
    return -0.5 * distance - 0.5 * count[:, None] * log_determinant.to(grams.dtype)


def _inverse(
    values: torch.Tensor, directions: torch.Tensor, exponent: float, share: float, variance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each group's covariance: the inverse [groups, d, d] and the logarithm of the determinant [groups]."""
    floor = 0.0 if exponent > 0 else max(FLOOR * float(values.mean()), 1e-30)
    spectrum = values.clamp(min=floor) ** exponent
    spectrum = spectrum / spectrum.mean().clamp(min=1e-30)
    spectrum = variance * (share * spectrum + (1 - share))
    return (directions / spectrum[:, None, :]) @ directions.transpose(1, 2), spectrum.log().sum(1)


def unit_evidence(
    profiles: torch.Tensor, heights: torch.Tensor, biases: torch.Tensor, rows: torch.Tensor, tested: bool = True
) -> Evidence:
    """Which row each block lies in, by a number for each of its units that goes with the units' biases.

    profiles [blocks, height] and biases [rows, height], padded; heights int64 [blocks] and rows int64 [rows]: how many
    units are real. Within a block both are taken as jointly normal, less their means, over their spreads; their
    correlation, of either sign, is that under which the blocks are likeliest. If `tested`, it is none unless they are
    likelier so than with the same biases exchanged among the units, every time that is tried (a permutation test at the
    5 % level).
    """
    units = torch.arange(profiles.shape[1], device=profiles.device)
    real, real_rows = units < heights[:, None], units < rows[:, None]
    z_scores = _standardised(profiles, real)
    best, likelihood = _correlated(z_scores, real, _standardised(biases, real_rows))
    generator = torch_generator("unit evidence")
    for _ in range(EXCHANGES if tested else 0):
        order = torch.randperm(int(real_rows.sum()), generator=generator).to(biases.device)
        exchanged = torch.zeros_like(biases)
        exchanged[real_rows] = biases[real_rows][order]
        if _correlated(z_scores, real, _standardised(exchanged, real_rows))[1] >= likelihood:
            return Evidence(torch.zeros_like(best.log_likelihood), 1.0, 0.0)
    return best


def _correlated(profiles: torch.Tensor, real: torch.Tensor, known: torch.Tensor) -> tuple[Evidence, float]:
    """Evidence under the best correlation of profiles and biases, both standardised, and how likely it makes them."""
    product, energy = profiles @ known.T, real.to(known.dtype) @ known.square().T
    own, count = profiles.square().sum(1, keepdim=True), real.sum(1, keepdim=True)
    options = []
    for correlation in CORRELATIONS:
        spread = 1 - correlation**2
        distance = (own - 2 * correlation * product + correlation**2 * energy) / spread
        options.append(Evidence(-0.5 * distance - 0.5 * count * log(spread), 1.0, correlation))
    likelihoods = [float(torch.logsumexp(one.log_likelihood, 1).double().mean()) for one in options]
    chosen = max(range(len(options)), key=likelihoods.__getitem__)
    return options[chosen], likelihoods[chosen]


def _standardised(values: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Less the mean of each line's real values, over their spread; zero where they are not real."""
    count = real.sum(1, keepdim=True).clamp(min=1)
    values = torch.where(real, values, 0.0)
    values = torch.where(real, values - values.sum(1, keepdim=True) / count, 0.0)
    return values / (values.square().sum(1, keepdim=True) / count).sqrt().clamp(min=1e-30)


def slices(matrix: torch.Tensor, size: int) -> torch.Tensor:
    """Gram matrices [slices, size, size] of a matrix [n, d] over each `size` columns, the last padded by zeros."""
    count = -(-matrix.shape[1] // size)
    padded = F.pad(matrix, (0, count * size - matrix.shape[1]))
    parts = padded.view(len(matrix), count, size).transpose(0, 1)
    return torch.bmm(parts.transpose(1, 2), parts)
