"""Each block as the others predict it: the layer expected so far, filtered to the directions that training gives.

What training adds to a weight is a sum of outer products: on the right, the layer's inputs; on the left, what flows
back through the next layer's weight. With the inputs' covariance M and the next layer's Gram matrix G the filter is
`G (G + a)^-1 W M (M + b)^-1`, close to the best linear estimate under a prior that is normal on both sides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from scatterproof.attacks.fingerprint.context import Surroundings

CHUNK = 128  # positions predicted at once
NOTHING = 1e-3  # of a filter's width: directions in which the inputs vary less are left out, it lets next to nothing by
SAMPLE, SAMPLED_WEIGHTS = (64, 256), 2**22  # positions on which the filter's widths are tried: so many weights, within


class Prediction(NamedTuple):
    """Weight predicted at each position [positions, height * width]; times `gain`, it is the likeliest value.

    explained: how much of the expected layer's energy (sum of squares) is thereby accounted for.
    """

    weight: torch.Tensor
    gain: float

    explained: float


@dataclass(frozen=True)
class _Smooth:
    """A filter on the left [outputs, outputs], the product of factors; at [rows, height, height]: its blocks on the
    diagonal."""

    factors: tuple[torch.Tensor, ...]
    at: torch.Tensor

    @classmethod
    def of(cls, factors: tuple[torch.Tensor, ...], rows: int, height: int) -> "_Smooth":
        if len(factors) == 1:
            return cls(factors, _diagonal(factors[0], rows, height))
        left = _sliced(factors[0], rows, height)
        return cls(factors, torch.bmm(left, left.transpose(1, 2)))

    def __matmul__(self, values: torch.Tensor) -> torch.Tensor:
        for factor in reversed(self.factors):
            values = factor @ values
        return values


@dataclass(frozen=True)
class _Side:
    """A filter on the right: `through` [outputs, n], the layer times it; at [columns, width, n]: its columns' parts."""

    through: torch.Tensor
    at: torch.Tensor


@dataclass(frozen=True)
class Spectrum:
    """The inputs' covariance M: values [n] of its directions, and the inputs along each, projected [n, inputs].

    widths: of the filters, from shares of the largest value; directions that none of them lets by are left out.
    """

    values: torch.Tensor
    projected: torch.Tensor
    widths: list[float]

    @classmethod
    def of(cls, inputs: torch.Tensor, widths: Sequence[float]) -> "Spectrum":
        """Of inputs [images, inputs]."""
        inputs = inputs - inputs.mean(0)
        inputs = inputs / max(len(inputs), 1) ** 0.5
        many = len(inputs) > inputs.shape[1]  # tokens, more of them than inputs: the smaller of the two matrices
        values, directions = torch.linalg.eigh((inputs.T @ inputs if many else inputs @ inputs.T).double())
        largest = max(float(values.max()), 1e-30)
        absolute = [largest * width for width in widths]
        passed = values > NOTHING * min(absolute)
        along = directions[:, passed].T
        if many:
            return cls(values[passed], (values[passed].sqrt()[:, None] * along).to(inputs.dtype), absolute)
        return cls(values[passed], along.to(inputs.dtype) @ inputs, absolute)

    def factor(self, width: float) -> torch.Tensor:
        """Y [n, inputs] with Y'Y = M (M + width)^-1: the filter on the right."""
        return (self.values + width).rsqrt().to(self.projected.dtype)[:, None] * self.projected


def smooths(following: torch.Tensor, widths: Sequence[float]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Filters on the left [outputs, outputs]: G (G + a)^-1, G = F' F of the weights F [m, outputs] that follow; the
    widths are shares of its largest eigenvalue. Each is whole, or Y' and Y [m, outputs] where fewer weights follow
    than there are outputs: F' (F F' + a)^-1 F is the same, and costs m^2 in place of outputs^2.
    """
    few = len(following) < following.shape[1]
    gram = (following @ following.T if few else following.T @ following).double()
    largest = float(torch.linalg.eigvalsh(gram)[-1]) if len(gram) <= 512 else _largest(gram)
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for width in widths:
        lower = torch.linalg.cholesky(gram + width * largest * identity)
        if few:
            factor = torch.linalg.solve_triangular(lower, following.double(), upper=False).float()
            yield factor.T, factor
        else:
            yield ((identity - width * largest * torch.cholesky_inverse(lower)).float(),)


class Filters:
    """Filters of several widths, given as shares of the largest direction's variance."""

    def __init__(self, around: Surroundings, input_widths: Sequence[float], output_widths: Sequence[float]) -> None:
        self._grid = around.grid
        self._spectrum = Spectrum.of(around.inputs, input_widths)
        self._smooths: list[_Smooth | None] = [None]
        following = around.writing if around.following is None else around.following
        if following is not None:
            for smooth in smooths(following, output_widths):
                self._smooths.append(_Smooth.of(smooth, self._grid.rows, self._grid.height))

    def predict(self, expected: torch.Tensor) -> Prediction:
        """The prediction of each position from the others, by the filters that explain most."""
        grid = self._grid
        weight = grid.assemble(expected.view(-1, grid.width), torch.arange(grid.count, device=expected.device))
        wanted = min(max(SAMPLED_WEIGHTS // expected.shape[1], SAMPLE[0]), SAMPLE[1], grid.count)
        sample = torch.linspace(0, grid.count - 1, wanted).long().unique()
        best, chosen = -1.0, None
        for width in self._spectrum.widths:
            side = self._side(weight, width)
            for smooth, part in zip(self._smooths, self._at(sample, side, self._smooths, expected), strict=True):
                _, explained = _fit(part, expected[sample])
                if explained > best:
                    best, chosen = explained, (side, smooth)
        assert chosen is not None
        side, smooth = chosen
        (whole,) = self._at(torch.arange(grid.count), side, [smooth], expected)
        gain, explained = _fit(whole, expected)
        return Prediction(whole, gain, explained)

    def with_prior(self, expected: torch.Tensor, prior_weight: torch.Tensor) -> Prediction:
        """The same where weights [positions, height * width] are expected from elsewhere: the prediction is made of
        what they leave, and the two are weighed by least squares."""
        rest = expected - _fit(prior_weight, expected)[0] * prior_weight
        parts = torch.stack([prior_weight.flatten(), self.predict(rest).weight.flatten()]).double()
        products = parts @ parts.T
        ridge = (
            1e-9 * products.diagonal().mean().clamp(min=1e-30) * torch.eye(2, dtype=parts.dtype, device=parts.device)
        )
        shares = torch.linalg.solve(products + ridge, parts @ expected.flatten().double()).clamp(min=0)
        weight = (shares @ parts).view_as(prior_weight).float()
        gain, explained = _fit(weight, expected)
        return Prediction(weight, gain, explained)

    def _side(self, weight: torch.Tensor, width: float) -> _Side:
        """By the inputs' spectrum at this width."""
        factor = self._spectrum.factor(width).T.contiguous()
        return _Side(weight @ factor, _sliced(factor, self._grid.columns, self._grid.width))

    def _at(
        self, positions: torch.Tensor, side: _Side, smooths: Sequence[_Smooth | None], expected: torch.Tensor
    ) -> list[torch.Tensor]:
        """By each of these filters on the left the filtered layer at the positions, less what the expected block there
        contributes itself."""
        grid = self._grid
        through = [side.through if smooth is None else smooth @ side.through for smooth in smooths]
        lefts = [_sliced(each, grid.rows, grid.height) for each in through]  # [rows, height, n]
        filtered = [expected.new_empty(len(positions), expected.shape[1]) for _ in smooths]
        square = None if 2 * side.at.shape[2] < grid.width else torch.bmm(side.at, side.at.transpose(1, 2))
        for part in torch.arange(len(positions)).split(CHUNK):
            rows, columns = positions[part] // grid.columns, positions[part] % grid.columns
            right = side.at[columns].transpose(1, 2)
            own = expected[positions[part]].view(-1, grid.height, grid.width)
            if square is None:
                own = torch.bmm(torch.bmm(own, right.transpose(1, 2)), right)
            else:
                own = torch.bmm(own, square[columns])
            for into, left, smooth in zip(filtered, lefts, smooths, strict=True):
                mine = own if smooth is None else torch.bmm(smooth.at[rows], own)
                into[part] = torch.baddbmm(mine, left[rows], right, beta=-1).flatten(1)
        return filtered


def _fit(prediction: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """The factor by which the prediction fits best, and the energy it then explains: none where it points away."""
    product = float((prediction * expected).sum(dtype=torch.float64))
    norm = float(prediction.square().sum(dtype=torch.float64))
    if product <= 0 or norm == 0:
        return 0.0, 0.0
    return product / norm, product**2 / norm


def _sliced(matrix: torch.Tensor, count: int, size: int) -> torch.Tensor:
    """Rows of a matrix [d, n] in slices [count, size, n], the last padded by zeros."""
    padded = F.pad(matrix, (0, 0, 0, count * size - len(matrix)))
    return padded.view(count, size, -1)


def _diagonal(matrix: torch.Tensor, count: int, size: int) -> torch.Tensor:
    """The blocks [count, size, size] on the diagonal of a square matrix, the last padded by zeros."""
    missing = count * size - len(matrix)
    padded = F.pad(matrix, (0, missing, 0, missing)).view(count, size, count, size)
    index = torch.arange(count)
    return padded[index, :, index, :]


def _largest(gram: torch.Tensor, steps: int = 30) -> float:
    """The largest eigenvalue, by power iteration from the diagonal."""
    vector = gram.diagonal().clone()
    for _ in range(steps):
        vector = gram @ (vector / vector.norm())
    return float(vector.norm())
