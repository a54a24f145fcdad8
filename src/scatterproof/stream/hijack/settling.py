"""Groups labelled together: the layer as expected under the beliefs held so far predicts each column from the others.

The idea is the fingerprint's, but on whole columns and rows instead of blocks, which leaves a few hundred beliefs
instead of millions, each about hundreds of times as many weights. A column is predicted from the others through the
inputs' covariance, a row from the others through the next layer's Gram matrix, so that no group holds itself where it
is; the filters are those of attacks/fingerprint/prediction.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from scatterproof.attacks.fingerprint.assignment import Candidates, beliefs
from scatterproof.attacks.fingerprint.context import Surroundings
from scatterproof.attacks.fingerprint.prediction import Spectrum, smooths

INPUT_WIDTHS = (0.003, 0.01, 0.03, 0.1)  # of the filters, as shares of the largest direction's variance
OUTPUT_WIDTHS = (0.01, 0.03, 0.1, 0.3)
KEPT = 0.5  # of the scores of the round before: without it beliefs can swing between two states
SINKHORN = 100


@dataclass(frozen=True)
class Grouped:
    """Blocks by group: cells float32 [row groups, column groups, height * width], held bool [row groups, column
    groups]; by_row, by_column: the groups' own evidence, log-likelihoods [groups, rows or columns]."""

    cells: torch.Tensor
    held: torch.Tensor
    by_row: torch.Tensor
    by_column: torch.Tensor

    @classmethod
    def of(
        cls,
        flat: torch.Tensor,
        evidence: tuple[torch.Tensor, torch.Tensor],
        row: NDArray[np.int64],
        column: NDArray[np.int64],
    ) -> "Grouped":
        """From blocks [n, height * width], their evidence of row and column, and the numbers of their groups."""
        rows, columns = (torch.from_numpy(each).to(flat.device) for each in (row, column))
        shape = int(row.max()) + 1, int(column.max()) + 1
        cells = flat.new_zeros(shape[0] * shape[1], flat.shape[1]).index_add_(0, rows * shape[1] + columns, flat)
        held = torch.zeros(shape, dtype=torch.bool, device=flat.device)
        held[rows, columns] = True
        by_row, by_column = (
            each.new_zeros(count, each.shape[1]).index_add_(0, group, each)
            for each, count, group in zip(evidence, shape, (rows, columns), strict=True)
        )
        return cls(cells.view(*shape, -1), held, by_row, by_column)


def settle(groups: Grouped, around: Surroundings, rounds: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Scores of the row groups [row groups, rows] and column groups, by their own evidence, then after each round."""
    grid = around.grid
    by_row, by_column = groups.by_row, groups.by_column
    energy = float(groups.cells.square().sum(dtype=torch.float64))
    filters = _Filters(around)
    yield by_row, by_column
    for number in range(rounds):
        of_row, of_column = _beliefs(by_row, grid.rows), _beliefs(by_column, grid.columns)
        expected = torch.einsum("gr,gcx->rcx", of_row, groups.cells)
        weight = _joined(torch.einsum("rcx,cj->rjx", expected, of_column), around)
        held = groups.held.to(weight.dtype)
        across, noise = _fitted(filters.columns(weight), weight, energy, around)
        squares = across.square().sum(2)
        seen = torch.einsum("gr,rjx->gjx", of_row, across)
        now = (
            groups.by_column
            + (torch.einsum("gcx,gjx->cj", groups.cells, seen) - held.T @ (of_row @ squares) / 2) / noise
        )
        by_column = now if number == 0 else KEPT * by_column + (1 - KEPT) * now
        along, noise = _fitted(filters.rows(weight), weight, energy, around)
        squares = along.square().sum(2)
        seen = torch.einsum("cj,rjx->rcx", of_column, along)
        now = (
            groups.by_row
            + (torch.einsum("gcx,rcx->gr", groups.cells, seen) - held @ (of_column @ squares.T) / 2) / noise
        )
        by_row = now if number == 0 else KEPT * by_row + (1 - KEPT) * now
        yield by_row, by_column


def _beliefs(scores: torch.Tensor, labels: int) -> torch.Tensor:
    everywhere = torch.arange(labels, device=scores.device).expand(len(scores), -1)
    return beliefs(Candidates(everywhere, scores), labels, SINKHORN)


def _joined(cells: torch.Tensor, around: Surroundings) -> torch.Tensor:
    """Cells [rows, columns, height * width] as one weight [rows * height, columns * width]."""
    grid = around.grid
    split = cells.view(grid.rows, grid.columns, grid.height, grid.width)
    return split.permute(0, 2, 1, 3).reshape(grid.rows * grid.height, grid.columns * grid.width)


def _fitted(
    predictions: Iterator[torch.Tensor], weight: torch.Tensor, energy: float, around: Surroundings
) -> tuple[torch.Tensor, float]:
    """Of several predictions the one that explains most, scaled to fit, as cells; and the variance of the noise."""
    best, explained = torch.zeros_like(weight), 0.0
    for prediction in predictions:
        product = float((prediction * weight).sum(dtype=torch.float64))
        norm = float(prediction.square().sum(dtype=torch.float64))
        if product > 0 and product**2 / norm > explained:
            best, explained = prediction * (product / norm), product**2 / norm
    grid = around.grid
    cells = best.view(grid.rows, grid.height, grid.columns, grid.width).permute(0, 2, 1, 3)
    noise = max(energy - explained, 1e-6 * energy) / weight.numel()
    return cells.reshape(grid.rows, grid.columns, -1), noise


class _Filters:
    """Predictions of each column from the others, and of each row from the others, by filters of several widths."""

    def __init__(self, around: Surroundings) -> None:
        grid = self._grid = around.grid
        spectrum = Spectrum.of(F.pad(around.inputs, (0, grid.columns * grid.width - grid.inputs)), INPUT_WIDTHS)
        self._factors = [spectrum.factor(width) for width in spectrum.widths]
        self._smooth: list[torch.Tensor] = []
        if around.following is not None:
            following = F.pad(around.following, (0, grid.rows * grid.height - grid.outputs))
            self._smooth += [reduce(torch.matmul, factors) for factors in smooths(following, OUTPUT_WIDTHS)]

    def columns(self, weight: torch.Tensor) -> Iterator[torch.Tensor]:
        """Each column as the others predict it, through the inputs' covariance, smoothed over rows or not."""
        grid = self._grid
        for factor in self._factors:
            parts = factor.view(len(factor), grid.columns, grid.width).transpose(0, 1)
            own = torch.bmm(weight.view(len(weight), grid.columns, grid.width).transpose(0, 1), parts.transpose(1, 2))
            others = own.sum(0) - own  # [columns, outputs, n]
            predicted = torch.bmm(others, parts).transpose(0, 1).reshape(weight.shape)
            yield predicted
            for smooth in self._smooth:
                yield smooth @ predicted

    def rows(self, weight: torch.Tensor) -> Iterator[torch.Tensor]:
        """Each row as the others predict it; nothing without a following layer."""
        grid = self._grid
        for factor in self._factors:
            through = weight @ factor.T
            for smooth in self._smooth:
                others = smooth.clone()
                blocks = others.view(grid.rows, grid.height, grid.rows, grid.height)
                index = torch.arange(grid.rows)
                blocks[index, :, index, :] = 0
                yield (others @ through) @ factor
