"""Ridge regression of many rows onto one set of inputs, where some values are known and of others only where they lie.

Minimises, for each row, the squared distance of its predictions from what is possible, and the ridge times the squared
weights: the possible values nearest to the predictions are regressed on, and so on, which lowers it in every round. The
rounds are accelerated (Nesterov 1983), and the momentum of a row is dropped where it leads away (O'Donoghue & Candès
2015, https://arxiv.org/abs/1204.3982).
"""

from dataclasses import dataclass

import torch

from scatterproof.attacks.regress.preimages import Preimages

SETTLED = 1e-6  # change of predictions in a round, as a share of the largest


@dataclass(frozen=True)
class Ridge:
    """By the inputs' singular values [r] and vectors, left [n, r] and right [r, inputs], all float64."""

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    @classmethod
    def of(cls, inputs: torch.Tensor) -> "Ridge":
        """Onto these inputs [n, inputs]."""
        left, values, right = torch.linalg.svd(inputs.double(), full_matrices=False)
        kept = values > values[0] * 1e-7  # what is below is the rounding of fp32
        return cls(left[:, kept], values[kept], right[kept])

    def shrunk(self, ridge: float) -> torch.Tensor:
        """What is left of a target along each left vector, [r]; ridge: as a share of the largest squared value."""
        squared = self.values.square()
        return squared / (squared + ridge * squared.amax())

    def predicted(self, targets: torch.Tensor, ridge: float) -> torch.Tensor:
        """Of targets [rows, n], the same shape."""
        return (targets @ self.left * self.shrunk(ridge)) @ self.left.T

    def weight(self, targets: torch.Tensor, ridge: float) -> torch.Tensor:
        """Of targets [rows, n]: [rows, inputs]."""
        return (targets @ self.left * self.shrunk(ridge) / self.values) @ self.right


def regressed(possible: Preimages, onto: Ridge, bias: torch.Tensor, ridge: float, rounds: int) -> torch.Tensor:
    """Weights [rows, inputs] whose sums with the bias [rows] come near to what is possible [rows, n].

    Where a value may lie in several intervals, first in anything between them, then in the one that is nearest.
    """
    first, bias = possible.hull(), bias[:, None]
    sums = bias.expand(first.low.shape[1:])
    for bounds in (first, possible)[: 2 if len(possible.low) > 1 else 1]:
        sums = _settled(bounds, onto, bias, sums, ridge, rounds)
    return onto.weight(bounds.nearest(sums) - bias, ridge)


def _settled(
    bounds: Preimages, onto: Ridge, bias: torch.Tensor, sums: torch.Tensor, ridge: float, rounds: int
) -> torch.Tensor:
    """The sums [rows, n] after so many rounds from these, or when they have settled."""
    ahead, speed = sums, torch.ones_like(bias)
    for _ in range(rounds):
        now = bias + onto.predicted(bounds.nearest(ahead) - bias, ridge)
        change = now - sums
        away = ((ahead - now) * change).sum(1, keepdim=True) > 0
        speed = speed.masked_fill(away, 1.0)
        faster = (1 + (1 + 4 * speed.square()).sqrt()) / 2
        ahead, sums, speed = now + (speed - 1) / faster * change, now, faster
        if float(change.abs().amax()) <= SETTLED * float(now.abs().amax()):
            break
    return sums
