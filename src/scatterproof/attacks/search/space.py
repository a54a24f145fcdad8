"""The placements that an attack may try: every block at a position of its own shape.

A *filling* says what lies at each position, int64 [..., positions]: a permutation of 0..positions-1 in which numbers
from the count of blocks held on stand for empty places. It is what permutation operators work on; `placements` turns
it into the block -> position of everything else.
"""

from dataclasses import dataclass

import torch

from scatterproof.blocks import Placement, invert, placements_of
from scatterproof.puzzle import Puzzle


@dataclass(frozen=True)
class ShapeClass:
    """The positions of one shape, and the numbers that may lie there: int64 [size] each."""

    positions: torch.Tensor
    numbers: torch.Tensor


class PlacementSpace:
    """All fillings of a puzzle's layers."""

    def __init__(self, puzzle: Puzzle, device: torch.device) -> None:
        self.held, self.positions, self.device = len(puzzle.blocks), puzzle.layout.positions, device
        shape_at, shape_of = puzzle.layout.shapes(), puzzle.shapes
        spare = torch.arange(self.held, self.positions)
        self.classes: list[ShapeClass] = []
        for shape in shape_at.unique(dim=0):
            positions = (shape_at == shape).all(1).nonzero().flatten()
            blocks = (shape_of == shape).all(1).nonzero().flatten()
            empty = len(positions) - len(blocks)
            numbers = torch.cat([blocks, spare[:empty]])
            spare = spare[empty:]
            self.classes.append(ShapeClass(positions.to(device), numbers.to(device)))
        self._by_class = torch.cat([part.positions for part in self.classes]).cpu()
        self._peers, self._rank, self._start = (torch.empty(self.positions, dtype=torch.int64) for _ in range(3))
        start = 0
        for part in self.classes:  # per position: others of its shape, its rank among them, where they start
            here, size = part.positions.cpu(), len(part.positions)
            self._peers[here], self._rank[here], self._start[here] = size - 1, torch.arange(size), start
            start += size

    def random(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Uniformly random fillings [count, positions], drawn on the CPU: the same on every device."""
        fillings = torch.empty(count, self.positions, dtype=torch.int64, device=self.device)
        for part in self.classes:
            order = torch.rand(count, len(part.numbers), generator=generator, dtype=torch.float64).argsort(1)
            fillings[:, part.positions] = part.numbers[order.to(self.device)]
        return fillings

    def filling(self, placement: Placement) -> torch.Tensor:
        """A placement as a filling [positions]; numbers of empty places in rising order.

        Raises: ValueError where a block lies at a position of another shape.
        """
        block_at = invert(placement.positions.to(self.device), self.positions)
        for part in self.classes:
            here = block_at[part.positions]
            missing = part.numbers[~torch.isin(part.numbers, here)]
            if len(missing) != int((here < 0).sum()) or bool((missing < self.held).any()):
                raise ValueError("a start must place every block held at a position of its own shape")
            block_at[part.positions[here < 0]] = missing
        return block_at

    def placements(self, fillings: torch.Tensor) -> torch.Tensor:
        """Fillings [..., positions] -> placements [..., held]."""
        return placements_of(fillings, self.held)

    def random_swaps(self, filling: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        """Uniformly random exchanges of a block with another block or an empty place: positions [count, 2].

        Raises: ValueError where no block has anywhere else to go.
        """
        place_of = invert(filling, self.positions)[: self.held].cpu()
        movable = place_of[self._peers[place_of] > 0]
        if len(movable) == 0:
            raise ValueError("no block has another position of its own shape")
        first = movable[torch.randint(len(movable), (count,), generator=generator)]
        # the k-th other position of the same shape, k uniform
        steps = 1 + (torch.rand(count, generator=generator, dtype=torch.float64) * self._peers[first]).long()
        size = self._peers[first] + 1
        rank = (self._rank[first] + steps) % size
        return torch.stack([first, self._by_class[self._start[first] + rank]], 1).to(self.device)
