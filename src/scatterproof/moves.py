"""Moves on a current placement, scored as deltas: an exchange of two blocks, or of three in a cycle.

A move changes the scattered layer's output in the rows of blocks that it touches, and nothing else. So only those
rows' part of the next layer's sums is computed anew. A move is named by the positions that it concerns: what lies at
the first goes to the second, and so on around; a place may be empty.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from scatterproof.blocks import BlockGrid, placements_of
from scatterproof.split import NextLayer
from scatterproof.targets import Scores

if TYPE_CHECKING:
    from scatterproof.engine import Engine


class NextSums:
    """The layer after the scattered one, its weight cut by the rows of blocks that it reads."""

    def __init__(self, found: NextLayer, grid: BlockGrid, shape: torch.Size, dtype: torch.dtype) -> None:
        """shape: of one image's input to the layer, but for its last dimension."""
        self.activation = found.activation
        self._rest, self._shape, self._dtype = found.rest, shape, dtype
        weight = F.pad(found.linear.weight, (0, grid.rows * grid.height - grid.outputs))
        self._by_row = weight.T.reshape(grid.rows, grid.height, -1).to(dtype).contiguous()
        self._bias = found.linear.bias
        self._buffer: torch.Tensor | None = None

    def sums(self, hidden: torch.Tensor) -> torch.Tensor:
        """The layer's output [images, outputs] for hidden [rows, images, height]."""
        flat = hidden.transpose(0, 1).flatten(1).to(self._dtype)
        found = (flat @ self._by_row.flatten(0, 1)).float()
        return found if self._bias is None else found + self._bias

    def copies(self, sums: torch.Tensor, moves: int) -> torch.Tensor:
        """Copies of sums [images, outputs] for so many moves, in memory that the next call overwrites: fresh pages
        would cost as much as filling them."""
        if self._buffer is None or len(self._buffer) < moves:
            self._buffer = sums.new_empty(moves, *sums.shape)
        return self._buffer[:moves].copy_(sums.expand(moves, *sums.shape))

    def add(self, sums: torch.Tensor, rows: torch.Tensor, which: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """Add to sums [moves, images, outputs], in place, what a change [moves, m, images, height] of rows [moves, m]
        adds, where `which` [moves, m] holds; a row stands once in a move."""
        change = change.to(self._dtype)
        for row in rows.unique().tolist():
            move, place = ((rows == row) & which).nonzero(as_tuple=True)
            added = change[move, place].flatten(0, 1) @ self._by_row[row]
            sums.index_add_(0, move, added.view(len(move), *sums.shape[1:]).to(sums.dtype))
        return sums

    def logits(self, sums: torch.Tensor) -> torch.Tensor:
        """Logits [moves, images, classes]."""
        moves = len(sums)
        rows = sums.reshape(-1, *self._shape, sums.shape[-1]).to(self._dtype)
        found: torch.Tensor = self._rest(rows)
        return found.view(moves, -1, found.shape[-1])


def moved(block_at: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Block at each position [moves, positions] after each of the moves [moves, m] on block_at [positions]."""
    return block_at.expand(len(moves), -1).scatter(1, moves, block_at[moves.roll(1, 1)])


class PlainPlacement:
    """The same as CurrentPlacement where nothing can be held: every move is scored as a placement of its own."""

    def __init__(self, score: Callable[[torch.Tensor], Scores], block_at: torch.Tensor, held: int) -> None:
        self._score, self.block_at, self._held = score, block_at, held

    def score(self, moves: torch.Tensor) -> Scores:
        """Scores after each of these moves by itself, int64 [moves, positions of a move]."""
        return self._score(placements_of(moved(self.block_at, moves.to(self.block_at.device)), self._held))

    def apply(self, move: torch.Tensor) -> None:
        """Make this move, int64 [positions]."""
        self.block_at = moved(self.block_at, move.to(self.block_at.device)[None])[0]


class CurrentPlacement:
    """A placement with the layer's output and the next layer's sums at hand.

    It is a function of the placement alone when made; each `apply` adds rounding, so make it anew now and then.
    """

    def __init__(self, engine: "Engine", block_at: torch.Tensor) -> None:
        self._engine, self._next = engine, engine.next
        self.block_at = block_at
        if self._next is not None:
            with engine.matmuls(), torch.no_grad():
                self._output = engine.output(block_at[None])[0].float()  # [rows, images, height]
                self._hidden = self._next.activation(self._output)
                self._sums = self._next.sums(self._hidden)  # [images, outputs of the next layer]

    def score(self, moves: torch.Tensor) -> Scores:
        """Scores after each of these moves by itself, int64 [moves, positions of a move]."""
        moves = moves.to(self.block_at.device)
        if self._next is None:
            return self._engine.score(moved(self.block_at, moves))
        return Scores.joined(self._engine.targets.score(logits) for logits in self._logits(moves))

    def apply(self, move: torch.Tensor) -> None:
        """Make this move, int64 [positions]."""
        move = move.to(self.block_at.device)[None]
        if self._next is not None:
            with self._engine.matmuls(), torch.no_grad():
                rows, first, difference, change = self._change(move)
                self._next.add(self._sums[None], rows, first, change)
                touched = rows[first]
                self._output[touched] += difference[first]
                self._hidden[touched] += change[first]
        self.block_at = moved(self.block_at, move)[0]

    def _logits(self, moves: torch.Tensor) -> Iterator[torch.Tensor]:
        assert self._next is not None
        for part in moves.split(self._engine.moves_at_once(moves.shape[1])):
            with self._engine.matmuls(), torch.no_grad():
                rows, first, _, change = self._change(part)
                sums = self._next.add(self._next.copies(self._sums, len(part)), rows, first, change)
                found = self._next.logits(sums)
            yield found

    def _change(self, moves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows touched [moves, m]; which of them are named for the first time; and there the change of the layer's
        output and of what the next layer reads, both [moves, m, images, height]."""
        assert self._next is not None
        products = self._engine.products
        rows, columns = moves // products.grid.columns, moves % products.grid.columns
        new, old = self.block_at[moves.roll(1, 1)], self.block_at[moves]
        exchanged = products.exchange(new.flatten(), old.flatten(), columns.flatten())
        difference = exchanged.view(*moves.shape, *exchanged.shape[1:]).float()
        same = rows[:, :, None] == rows[:, None, :]
        first = same.int().argmax(2) == torch.arange(moves.shape[1], device=rows.device)
        if not bool(first.all()):
            difference = torch.einsum("kij,kjnh->kinh", same.float(), difference)
        change = self._next.activation(self._output[rows] + difference) - self._hidden[rows]
        return rows, first, difference, change
