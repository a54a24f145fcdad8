"""What a pirate knows of the scattered layers once it is told where every block lies, and every key.

Keys are what was drawn without regard to the weights. What stays with the trusted party is none, and is not told.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from scatterproof.blocks import factors, invert, lines_of
from scatterproof.defences import make_defence
from scatterproof.defences.network import secret_of
from scatterproof.puzzle import Answer, Puzzle


@dataclass(frozen=True)
class ToldLayers:
    """weights float [outputs, inputs] and missing bool [outputs, inputs], by layer: what is missing is zero.

    complete: whether devices hold all of a layer; rank: how many of its directions they don't, None for none.
    """

    weights: dict[str, torch.Tensor]
    missing: dict[str, torch.Tensor]
    complete: bool = True
    rank: int | None = None

    @property
    def as_is(self) -> dict[str, torch.Tensor]:
        """The weights, each row's sum divided by the share of its inputs that is known, as the evaluator does."""
        return {
            name: weight * factors(1 - self.missing[name].float().mean(1))[:, None]
            for name, weight in self.weights.items()
        }

    @property
    def lacks_blocks(self) -> bool:
        """Whether some block is missing."""
        return any(bool(missing.any()) for missing in self.missing.values())

    @property
    def lacks_all(self) -> bool:
        """Whether nothing of any layer is known."""
        return all(bool(missing.all()) for missing in self.missing.values())

    @property
    def lacks_nothing(self) -> bool:
        """Whether the layers are known entirely."""
        return self.complete and not self.lacks_blocks


def tell(puzzle: Puzzle, answer: Answer) -> ToldLayers:
    """The blocks at their places, keys undone."""
    defence = make_defence(puzzle.threat.defence)
    block_at = invert(answer.placement.positions, puzzle.layout.positions)
    assembled = puzzle.layout.assemble(lines_of(puzzle.blocks), block_at)
    held = puzzle.layout.assemble(lines_of(torch.ones_like(puzzle.blocks, dtype=torch.bool)), block_at)
    weights, missing, ranks = {}, {}, []
    for name, weight in assembled.items():
        secret = secret_of(answer.secret, name)
        opened, rank = defence.opened(weight.numpy(), secret), defence.rank(secret)
        ranks += [] if rank is None else [rank]
        weights[name] = torch.zeros_like(weight) if opened is None else torch.from_numpy(opened)
        missing[name] = ~held[name] | (opened is None)
    return ToldLayers(weights, missing, defence.keeps == "nothing", max(ranks, default=None))


def directions(weight: torch.Tensor) -> "Directions":
    """A weight's singular directions, in double precision."""
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    least = max(weight.shape) * torch.finfo(torch.float32).eps
    return Directions(left.float(), right.float(), int((values > least * values[:1].clamp(min=1e-30)).sum()))


@dataclass(frozen=True)
class Directions:
    """left [outputs, r] and right [r, inputs], the strongest first; rank: how many are not lost to rounding."""

    left: torch.Tensor
    right: torch.Tensor
    rank: int

    @property
    def lost(self) -> int:
        """How many directions the shorter side has that the weight has not."""
        return len(self.right) - self.rank


SIZES = (8, 16, 32, 64)  # of a core where the defence says nothing of its rank


def core_sizes(rank: int | None, most: int) -> Iterator[int]:
    """How many directions a core is fitted on: one to three times the rank, or a few; at most so many."""
    sizes = SIZES if rank is None else (rank, 2 * rank, 3 * rank)
    return iter(sorted({min(size, most) for size in sizes}))
