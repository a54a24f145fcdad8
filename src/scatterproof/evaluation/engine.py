"""The fast half of PlacementEvaluator: many placements of one scattered layer at once, on few images.

The layer's output comes from `Products`; the layers after it run on all placements of a batch together. Batches are
as large as the memory allows, their sizes a function of shapes and of that memory alone, so that a run repeats
bit for bit under equal settings.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import fx, nn
from torch.nn import functional as F

from scatterproof.blocks import UNPLACED, BlockGrid, factors
from scatterproof.evaluation.moves import NextSums
from scatterproof.evaluation.products import Products
from scatterproof.evaluation.split import next_layer
from scatterproof.evaluation.targets import Scores, Targets

DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
# Temporaries of one batch of placements: on a CPU below 32 MiB, which the C library's heap keeps and hands out again;
# and of one of moves, whose rows want to meet the next layer's weight together, in memory that is kept.
BATCH_BYTES = {"cpu": 24 * 2**20, "cuda": 2 * 2**30}
MOVES_BYTES = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}


class Engine:
    """Scores block_at int64 [placements, positions] (-1 an empty place) by the tail behind one scattered layer.

    features: the layer's input [images, ..., channels], folded over `copies`, then what passes around the layer.
    correction: `none`, or `scale`: each row's sums are divided by the share of its inputs whose block is held.
    """

    def __init__(
        self,
        grid: BlockGrid,
        blocks: torch.Tensor,
        bias: torch.Tensor,
        features: tuple[torch.Tensor, ...],
        copies: int,
        tail: nn.Module,
        targets: Targets,
        precision: str,
        memory: int,
        correction: str = "none",
    ) -> None:
        self.precision, self.targets, self.correction = precision, targets, correction
        dtype = DTYPES[precision]
        self._shape, self._around = features[0].shape[1:-1], features[1:]
        self._grid, self._device = grid, features[0].device
        self._batch_bytes = min(BATCH_BYTES[self._device.type], memory // 4)
        self._moves_bytes = min(MOVES_BYTES[self._device.type], memory // 4)
        self.tail = _frozen(tail)
        self._fast_tail = self.tail if dtype == torch.float32 else copy.deepcopy(self.tail).to(dtype)
        with self.matmuls(), torch.no_grad():
            flat = features[0].reshape(-1, features[0].shape[-1])
            self.products = Products(grid, blocks, flat, copies, dtype, memory - self._moves_bytes)
            self.bias = F.pad(bias, (0, grid.rows * grid.height - grid.outputs)).view(grid.rows, 1, grid.height)
            following = next_layer(self._fast_tail)
            self.next = None if following is None else NextSums(following, grid, self._shape, dtype)

    @contextmanager
    def matmuls(self) -> Iterator[None]:
        """Products of fp32 matrices as the precision says."""
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    def output(self, block_at: torch.Tensor) -> torch.Tensor:
        """The scattered layer's output [placements, rows, images, height]."""
        output = self.products.outputs(block_at)
        if self.correction == "scale":
            output = output * self.factors(block_at != UNPLACED).to(output.dtype)[..., None, None]
        return output + self.bias.to(self._fast_dtype)

    def factors(self, occupied: torch.Tensor) -> torch.Tensor:
        """What multiplies each row's sums [placements, rows], 1 for an empty row.

        occupied [placements, positions]: to which share each position is.
        """
        grid = self._grid
        if self.correction == "none":
            return self.bias.new_ones(len(occupied), grid.rows)
        held = occupied.view(-1, grid.rows, grid.columns).to(self.bias.dtype) @ self.widths / grid.inputs
        return factors(held)

    @property
    def widths(self) -> torch.Tensor:
        """Inputs that each column of blocks reads."""
        return self._grid.shapes()[: self._grid.columns, 1].to(self.bias)

    def logits(self, block_at: torch.Tensor) -> Iterator[torch.Tensor]:
        """Logits [placements, images, classes], a batch at a time."""
        for together in block_at.split(self.placements_together):
            with self.matmuls(), torch.no_grad():
                output = self.output(together)
            for part in output.split(self.placements_at_once):
                with self.matmuls(), torch.no_grad():
                    logits = self._through(self._fast_tail, part)
                yield logits

    def score(self, block_at: torch.Tensor) -> Scores:
        """Scores of each placement."""
        return Scores.joined(self.targets.score(logits) for logits in self.logits(block_at))

    def move_changes(self, block_at: torch.Tensor) -> torch.Tensor:
        """First-order change of the loss if what lies at position p replaced what lies at q: [positions, positions].

        From one backward pass through the layers after the scattered one, `correction` as it is; block_at [positions].
        """
        with self.matmuls(), torch.no_grad():
            output = self.output(block_at[None]).float()
        _, gradient = self._backward(output, self.factors(block_at[None] != UNPLACED))
        with self.matmuls(), torch.no_grad():
            added = self.products.gradient(gradient[0])[block_at]  # row p: what lies at p, put at each position
        return added - added.diagonal()

    def mixed(self, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses [mixtures] where position p holds the mixture of blocks by `shares[:, :, p]`, and their sum's gradient
        by the shares [mixtures, held, positions], the rows' `correction` taken as fixed."""
        with self.matmuls(), torch.no_grad():
            factors = self.factors(shares.sum(1))
            output = self.products.mixed(shares).float() * factors[..., None, None] + self.bias
        losses, gradient = self._backward(output, factors)
        with self.matmuls(), torch.no_grad():
            return losses, torch.stack([self.products.gradient(each)[:-1] for each in gradient])

    def _backward(self, output: torch.Tensor, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean losses [placements] of the layer's outputs, and their sum's gradient by the rows' uncorrected sums."""
        with self.matmuls():
            output.requires_grad_()
            losses = self.targets.loss(self._through(self.tail, output).flatten(0, 1)).view(len(output), -1).mean(1)
            (gradient,) = torch.autograd.grad(losses.sum(), output)
        return losses.detach(), gradient * factors[..., None, None]

    @property
    def placements_together(self) -> int:
        """Placements whose outputs are made together: more where they share products."""
        if not self.products.by_column:
            return self.placements_at_once
        return max(1, self._moves_bytes // self.products.bytes_per_placement())

    @property
    def placements_at_once(self) -> int:
        """Placements that go through the layers after the scattered one together."""
        return max(1, self._batch_bytes // self.products.bytes_per_placement())

    def moves_at_once(self, positions: int) -> int:
        """Moves of a batch, each of so many positions."""
        outputs = 0 if self.next is None else (positions + 2) * self.next.outputs
        changes = 4 * positions * self._grid.height
        per_move = DTYPES[self.precision].itemsize * self.products.images * (outputs + 2 * changes)
        return max(1, self._moves_bytes // per_move)

    @property
    def _fast_dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def _through(self, tail: nn.Module, output: torch.Tensor) -> torch.Tensor:
        """Logits [placements, images, classes] for the layer's output [placements, rows, images, height]."""
        count = len(output)
        rows = output.transpose(1, 2).flatten(2)[..., : self._grid.outputs]
        rows = rows.reshape(-1, *self._shape, self._grid.outputs)
        dtype = next(iter(tail.parameters()), rows).dtype
        around = [
            (value.to(dtype) if value.is_floating_point() else value).repeat(count, *[1] * (value.ndim - 1))
            for value in self._around
        ]
        logits: torch.Tensor = tail(rows.to(dtype), *around)
        return logits.view(count, -1, logits.shape[-1])


def _frozen(tail: nn.Module) -> nn.Module:
    """A copy that neither learns nor writes into its input."""
    tail = copy.deepcopy(tail).eval().requires_grad_(False)
    for module in tail.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010
    if isinstance(tail, fx.GraphModule):
        for node in tail.graph.nodes:
            if node.kwargs.get("inplace"):
                node.kwargs = {**node.kwargs, "inplace": False}
        tail.recompile()
    return tail
