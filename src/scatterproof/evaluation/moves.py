"""Moves on a current placement, scored as deltas: an exchange of two blocks, or of three in a cycle.

A move changes the scattered layer's output in the rows of blocks that it touches, and nothing else. So only those
rows' part of the next layer's sums is computed anew. A move is named by the positions that it concerns: what lies at
the first goes to the second, and so on around; a place may be empty.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from scatterproof.blocks import BlockGrid, placements_of
from scatterproof.evaluation.split import NextLayer
from scatterproof.evaluation.targets import Scores

if TYPE_CHECKING:
    from scatterproof.evaluation.engine import Engine


REST_BYTES = 16 * 2**20  # what the C library's heap keeps and hands out again


class NextSums:
    """The layer after the scattered one, its weight cut by the rows of blocks that it reads."""

    def __init__(self, following: NextLayer, grid: BlockGrid, shape: torch.Size, dtype: torch.dtype) -> None:
        """shape: of one image's input to the layer, but for its last dimension."""
        self.activation = following.activation
        self._rest, self._shape, self.dtype = following.rest, shape, dtype
        weight = F.pad(following.linear.weight, (0, grid.rows * grid.height - grid.outputs))
        self._by_row = weight.T.reshape(grid.rows, grid.height, -1).to(dtype).contiguous()
        self._bias = following.linear.bias
        self._buffer: torch.Tensor | None = None

    @property
    def outputs(self) -> int:
        """Outputs of the layer."""
        return self._by_row.shape[2]

    def sums(self, hidden: torch.Tensor) -> torch.Tensor:
        """The layer's output [images, outputs] for hidden [rows, images, height]."""
        flat = hidden.transpose(0, 1).flatten(1).to(self.dtype)
        sums = (flat @ self._by_row.flatten(0, 1)).float()
        return sums if self._bias is None else sums + self._bias

    def change(self, rows: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """The output's change [moves, images, outputs] for a change [moves, m, images, height] of the rows [moves, m].

        It lies in memory that the next call overwrites: fresh pages cost as much as the work.
        """
        moves, m = rows.shape
        order = rows.flatten().argsort(stable=True)
        change = change.flatten(0, 1).to(self.dtype)[order]  # [moves * m, images, height], by rows
        added, total, more = self._workspace(moves, m, change.shape[1])
        start = 0
        for row, count in zip(*(each.tolist() for each in rows.unique(return_counts=True)), strict=True):
            part = slice(start, start + count)
            torch.mm(change[part].flatten(0, 1), self._by_row[row], out=added[part].flatten(0, 1))
            start += count
        place = order.argsort().view(moves, m)
        torch.index_select(added, 0, place[:, 0], out=total)
        for i in range(1, m):
            total += torch.index_select(added, 0, place[:, i], out=more)
        return total

    def _workspace(self, moves: int, m: int, images: int) -> Sequence[torch.Tensor]:
        sizes = [moves * m, moves, moves]
        if self._buffer is None or len(self._buffer) < sum(sizes):
            self._buffer = self._by_row.new_empty(sum(sizes), images, self.outputs)
        parts: Sequence[torch.Tensor] = self._buffer[: sum(sizes)].split(sizes)
        return parts

    def logits(self, sums: torch.Tensor) -> torch.Tensor:
        """Logits [moves, images, classes] of sums [moves, images, outputs]."""
        at_once = max(1, REST_BYTES // (sums[0].numel() * sums.element_size()))
        logits = [self._rest(part.reshape(-1, *self._shape, sums.shape[-1])) for part in sums.split(at_once)]
        return torch.cat(logits).view(len(sums), -1, logits[0].shape[-1])


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
                self._sums += self._next.change(rows, change)[0]
                touched = rows[first]
                self._output[touched] += difference[first]
                self._hidden[touched] += change[first]
        self.block_at = moved(self.block_at, move)[0]

    def _logits(self, moves: torch.Tensor) -> Iterator[torch.Tensor]:
        assert self._next is not None
        sums = self._sums.to(self._next.dtype)
        for part in moves.split(self._engine.moves_at_once(moves.shape[1])):
            with self._engine.matmuls(), torch.no_grad():
                rows, _, _, change = self._change(part)
                logits = self._next.logits(self._next.change(rows, change).add_(sums))
            yield logits

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
        if self._engine.correction == "scale":
            more = (new >= 0).float() - (old >= 0).float()
            more = torch.einsum("kij,kj->ki", same.float(), more * self._engine.widths[columns])
            difference = self._corrected(rows, difference, more)
        change = self._next.activation(self._output[rows] + difference) - self._hidden[rows]
        return rows, first, difference, change * first[:, :, None, None]

    def _corrected(self, rows: torch.Tensor, difference: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        """The output's change in these rows [moves, m] where their sums change by `difference`, and they hold blocks
        for `more` inputs [moves, m]."""
        engine, grid = self._engine, self._engine.products.grid
        now = engine.factors((self.block_at >= 0)[None])[0]
        held = (self.block_at >= 0).view(grid.rows, grid.columns).float() @ engine.widths
        after = held[rows] + more
        factor = torch.where(after > 0, grid.inputs / after.clamp(min=1e-6), 1.0)
        scaled = (self._output - engine.bias)[rows] * (factor / now[rows] - 1)[..., None, None]
        return difference * factor[..., None, None] + scaled
