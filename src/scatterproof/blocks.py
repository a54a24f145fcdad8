"""Cutting dense layers into blocks, and the algebra of where the blocks lie.

The convention, stated here once: a *position* is a place in the layer, `row * columns + column`, where a row is a
slice of the outputs and a column a slice of the inputs; several layers count on from each other. A *block* is a piece
of weight as the pirate holds it, numbered in the shuffled order that it sees. A *placement* maps block -> position:
`placement[b] = row * columns + column`, and -1 leaves block b unplaced. No two blocks share a position.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F

UNPLACED = -1


@dataclass(frozen=True)
class BlockGrid:
    """One dense layer's weight [outputs, inputs] cut into blocks of height x width; edge blocks are smaller."""

    outputs: int
    inputs: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.outputs, self.inputs, self.height, self.width) < 1:
            raise ValueError(f"a block grid needs sizes of at least 1, got {self}")

    @property
    def rows(self) -> int:
        return -(-self.outputs // self.height)

    @property
    def columns(self) -> int:
        return -(-self.inputs // self.width)

    @property
    def count(self) -> int:
        return self.rows * self.columns

    def shapes(self) -> torch.Tensor:
        """Height and width of the block at each position: int64 [count, 2]."""
        heights = torch.full((self.rows,), self.height)
        heights[-1] = self.outputs - (self.rows - 1) * self.height
        widths = torch.full((self.columns,), self.width)
        widths[-1] = self.inputs - (self.columns - 1) * self.width
        return torch.stack([heights.repeat_interleave(self.columns), widths.repeat(self.rows)], dim=1)

    def cut(self, weight: torch.Tensor) -> torch.Tensor:
        """Weight [outputs, inputs] -> blocks [count, height, width] by position; edges are padded with zeros."""
        missing = (self.columns * self.width - self.inputs, self.rows * self.height - self.outputs)
        padded = F.pad(weight, (0, missing[0], 0, missing[1]))
        split = padded.view(self.rows, self.height, self.columns, self.width)
        return split.transpose(1, 2).reshape(self.count, self.height, self.width)

    def assemble(self, lines: torch.Tensor, block_at: torch.Tensor) -> torch.Tensor:
        """The inverse of `cut`: the weight [outputs, inputs], contiguous, with block `block_at[p]` at position p.

        lines [blocks * height, width] are the blocks' lines one below the other, so that one gather fills the weight.
        """
        first = block_at.view(self.rows, 1, self.columns) * self.height
        index = first + torch.arange(self.height, device=lines.device).view(1, -1, 1)
        whole = lines[index].view(self.rows * self.height, self.columns * self.width)
        weight: torch.Tensor = whole[: self.outputs, : self.inputs].contiguous()
        return weight


@dataclass(frozen=True)
class Layout:
    """The layers that are scattered together: name -> grid, all with the same nominal block."""

    grids: Mapping[str, BlockGrid]

    def __post_init__(self) -> None:
        if len({(grid.height, grid.width) for grid in self.grids.values()}) != 1:
            raise ValueError("layers scattered together need one block size")

    @classmethod
    def square(cls, weights: Mapping[str, torch.Size | tuple[int, ...]], size: int) -> "Layout":
        """Square blocks of `size` over weights [outputs, inputs]; a layer too small for one holds edge blocks only.

        Raises: ValueError where no layer holds a whole block.
        """
        if all(size > min(shape) for shape in weights.values()):
            sizes = ", ".join(f"{name} is {shape[0]} x {shape[1]}" for name, shape in weights.items())
            raise ValueError(f"block size {size} is larger than the layer: {sizes}")
        return cls({name: BlockGrid(shape[0], shape[1], size, size) for name, shape in weights.items()})

    @cached_property
    def offsets(self) -> dict[str, int]:
        """First position of each layer."""
        offsets, total = {}, 0
        for name, grid in self.grids.items():
            offsets[name] = total
            total += grid.count
        return offsets

    @property
    def positions(self) -> int:
        return sum(grid.count for grid in self.grids.values())

    @property
    def block_shape(self) -> tuple[int, int]:
        grid = next(iter(self.grids.values()))
        return grid.height, grid.width

    def shapes(self) -> torch.Tensor:
        """Height and width of the block at each position: int64 [positions, 2]."""
        return torch.cat([grid.shapes() for grid in self.grids.values()])

    def shape_classes(self) -> torch.Tensor:
        """For each position the number of its shape: only blocks of one shape can be mistaken for each other."""
        return shape_numbers(self.shapes(), self.shapes()[:0])[0]

    def ambiguous(self) -> torch.Tensor:
        """Whether a position holds a whole block. An edge's shape betrays its place, so metrics leave it out."""
        return (self.shapes() == torch.tensor(self.block_shape)).all(dim=1)

    def rows_and_columns(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Block row and block column of each position, counted through all layers: two int64 [positions]."""
        rows, columns, row, column = [], [], 0, 0
        for grid in self.grids.values():
            index = torch.arange(grid.count)
            rows.append(row + index // grid.columns)
            columns.append(column + index % grid.columns)
            row, column = row + grid.rows, column + grid.columns
        return torch.cat(rows), torch.cat(columns)

    def cut(self, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Weights by layer -> blocks [positions, height, width] by position."""
        return torch.cat([grid.cut(weights[name]) for name, grid in self.grids.items()])

    def assemble(self, lines: torch.Tensor, block_at: torch.Tensor) -> dict[str, torch.Tensor]:
        """The weight of each layer with block `block_at[p]` at position p; `lines` as BlockGrid.assemble takes them."""
        return {
            name: grid.assemble(lines, block_at[self.offsets[name] : self.offsets[name] + grid.count])
            for name, grid in self.grids.items()
        }


@dataclass(frozen=True)
class Placement:
    """Block -> position, for `slots` positions; the module says what that means.

    Raises: ValueError where a position is out of range or held twice.
    """

    positions: torch.Tensor
    slots: int

    def __post_init__(self) -> None:
        placed = self.positions[self.positions != UNPLACED]
        if len(placed) and (int(placed.min()) < 0 or int(placed.max()) >= self.slots):
            raise ValueError(f"a placement's positions must be -1 or 0..{self.slots - 1}")
        if len(placed.unique()) != len(placed):
            raise ValueError("a placement gives one position to two blocks")

    @classmethod
    def identity(cls, slots: int) -> "Placement":
        """Every block at the position of its own number."""
        return cls(torch.arange(slots), slots)

    @classmethod
    def random(cls, slots: int, generator: torch.Generator) -> "Placement":
        """A uniformly random permutation."""
        return cls(torch.randperm(slots, generator=generator), slots)

    def __len__(self) -> int:
        return len(self.positions)

    def blocks(self) -> torch.Tensor:
        """Position -> block, -1 where the position is empty: int64 [slots]."""
        return invert(self.positions, self.slots)

    def inverse(self) -> "Placement":
        """The placement that undoes this one; needs every block placed and every position filled."""
        if len(self) != self.slots or bool((self.positions == UNPLACED).any()):
            raise ValueError("only a full placement has an inverse")
        return Placement(self.blocks(), self.slots)

    def after(self, order: "Placement") -> "Placement":
        """Composition: first `order`, then this; `(p.after(q))[b] = p[q[b]]`."""
        picked = torch.where(order.positions == UNPLACED, 0, order.positions)
        moved = torch.where(order.positions == UNPLACED, UNPLACED, self.positions[picked])
        return Placement(moved, self.slots)

    def only(self, held: torch.Tensor) -> "Placement":
        """The same, with blocks outside the bool mask `held` unplaced."""
        return Placement(torch.where(held, self.positions, UNPLACED), self.slots)


def shape_numbers(shapes: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers for the shapes int64 [n, 2] of blocks and of positions, equal where the shapes are: two int64 [n]."""
    numbers = torch.unique(torch.cat([shapes, places]), dim=0, return_inverse=True)[1]
    return numbers[: len(shapes)], numbers[len(shapes) :]


def invert(placements: torch.Tensor, slots: int) -> torch.Tensor:
    """Placements [..., blocks] -> block at each position [..., slots], -1 where none lies."""
    lead = placements.shape[:-1]
    # One slot more takes the unplaced, and is cut off.
    inverse = torch.full((*lead, slots + 1), UNPLACED, dtype=torch.int64, device=placements.device)
    target = torch.where(placements == UNPLACED, slots, placements)
    numbers = torch.arange(placements.shape[-1], device=placements.device).expand_as(placements)
    return inverse.scatter_(-1, target, numbers)[..., :slots]


def placements_of(block_at: torch.Tensor, held: int) -> torch.Tensor:
    """The inverse of `invert`: block at each position [..., slots] -> placements [..., held], -1 where a block lies
    nowhere. Numbers outside 0..held-1 stand for empty places."""
    outside = (block_at < 0) | (block_at >= held)
    return invert(torch.where(outside, UNPLACED, block_at), held)


def lines_of(blocks: torch.Tensor) -> torch.Tensor:
    """The lines of blocks [n, height, width] one below the other as `assemble` takes them, an empty block last: so that
    UNPLACED, counted from the end, stands for it."""
    return torch.cat([blocks, blocks.new_zeros(1, *blocks.shape[1:])]).flatten(0, 1)


def factors(shares: torch.Tensor) -> torch.Tensor:
    """What scales sums of which these shares of the inputs are held; 1 where none is."""
    return torch.where(shares > 0, 1 / shares.clamp(min=1e-9), 1.0)


def input_shares(layout: Layout, block_at: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of each output's inputs the share whose block is held, per layer: float [outputs]."""
    shares = {}
    for name, grid in layout.grids.items():
        start = layout.offsets[name]
        held = (block_at[start : start + grid.count] != UNPLACED).view(grid.rows, grid.columns).float()
        widths = grid.shapes()[: grid.columns, 1].float().to(held.device)
        rows = (held @ widths) / grid.inputs
        shares[name] = rows.repeat_interleave(grid.height)[: grid.outputs]
    return shares
