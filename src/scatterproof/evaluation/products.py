"""Products of blocks and input slices: what a block adds to the scattered layer's output from the column it lies in.

Where the layer's input holds each channel `copies` times, a block is folded to the few channels that it spans; how it
folds depends on its column only through the *phase*, the place inside a channel where the column starts.
"""

import torch
from torch.nn import functional as F

from scatterproof.blocks import UNPLACED, BlockGrid

# What a machine does while it reads one byte, roughly: only used to choose between reading products and making them.
FLOPS_PER_BYTE = 10
# Blocks of this many inputs and outputs are multiplied one by one at nearly the full rate
LARGE_BLOCK = 96
# Of the products that are held at a time where a placement's are summed column by column
AT_ONCE_BYTES = 8 * 2**20


class Products:
    """Outputs of one scattered layer under any placement of its blocks, without its bias.

    blocks [held, height, width]; features [images, channels], one of each channel's copies. Products are cached where
    that is faster and they fit into `cache_bytes`, else made when asked for. `dtype` is what they are held in.
    """

    def __init__(
        self,
        grid: BlockGrid,
        blocks: torch.Tensor,
        features: torch.Tensor,
        copies: int,
        dtype: torch.dtype,
        cache_bytes: int,
    ) -> None:
        self.grid, self.images, self.held = grid, len(features), len(blocks)
        device = features.device
        starts = torch.arange(grid.columns, device=device) * grid.width
        phases, self._phase = torch.unique(starts % copies, return_inverse=True)
        self._folded = _fold(blocks.to(device), phases, copies).to(dtype)
        spans = self.spans
        padded = F.pad(features, (0, spans))
        channel = (starts // copies)[:, None] + torch.arange(spans, device=device)
        self._slices = padded[:, channel].transpose(0, 1).contiguous().to(dtype)  # [columns, images, spans]
        self._inputs = self._slices.transpose(0, 1).reshape(self.images, -1)  # [images, columns * spans]
        self._cache = self._fill() if self._caching_pays(cache_bytes) else None
        self._fold_back: torch.Tensor | None = None
        if copies > 1 and self._folding_pays(features.shape[1]):
            self._inputs, self._fold_back = features.to(dtype), _selection(channel, features.shape[1]).T.to(dtype)

    @property
    def cached(self) -> bool:
        """Whether every product is held."""
        return self._cache is not None

    @property
    def by_column(self) -> bool:
        """Whether products are made anew for each batch, each once, and summed column by column."""
        large = min(self.spans, self.grid.height) >= LARGE_BLOCK
        return self._cache is None and self._fold_back is None and large

    @property
    def spans(self) -> int:
        """Channels that a block spans at most, folded: its inputs where nothing is copied."""
        return self._folded.shape[2]

    def outputs(self, block_at: torch.Tensor) -> torch.Tensor:
        """The layer's output by block row [placements, rows, images, height], block `block_at[p]` at position p."""
        count = len(block_at)
        held = torch.where(block_at == UNPLACED, self.held, block_at).view(count * self.grid.rows, self.grid.columns)
        if self._cache is not None:
            index = held + torch.arange(self.grid.columns, device=held.device) * (self.held + 1)
            summed = F.embedding_bag(index, self._cache, mode="sum")
            return summed.view(count, self.grid.rows, self.images, self.grid.height)
        if self.by_column:
            return self._summed_by_column(held).view(count, self.grid.rows, self.images, self.grid.height)
        return self._made(self._folded[self._phase, held].flatten(1, 2))

    def _summed_by_column(self, held: torch.Tensor) -> torch.Tensor:
        """Outputs [lines, images, height] of blocks held[line, column]; a product that lines share is made once.

        No weight is put together, and what is added lies in the processor's cache. Sums are in fp32.
        """
        height, dtype = self.grid.height, self._folded.dtype
        outputs = torch.zeros(len(held), self.images, height, device=held.device)
        at_once = max(1, AT_ONCE_BYTES // (4 * height * max(self.images, self.spans)))
        for column, inputs in enumerate(self._slices):
            blocks = self._folded[self._phase[column]]
            distinct, which = held[:, column].unique(return_inverse=True)
            ends = which.bincount().cumsum(0)[at_once - 1 : -1 : at_once]
            lines = which.argsort(stable=True).tensor_split(ends.cpu())
            for kept, reading in zip(distinct.split(at_once), lines, strict=True):
                products = (inputs @ blocks[kept]).float()
                outputs.index_add_(0, reading, products[which[reading] - which[reading[0]]])
        return outputs.to(dtype)

    def mixed(self, shares: torch.Tensor) -> torch.Tensor:
        """The same where position p holds the blocks mixed by `shares[:, :, p]`, [mixtures, held, positions]."""
        weights = shares.new_empty(len(shares), self.grid.rows, self.grid.columns, self._folded[0, 0].numel())
        shares = shares.view(len(shares), self.held, self.grid.rows, self.grid.columns).to(self._folded.dtype)
        for phase in range(len(self._folded)):
            at = (self._phase == phase).nonzero().flatten()
            here = shares[..., at].flatten(2).transpose(1, 2) @ self._folded[phase, :-1].flatten(1)
            weights[:, :, at] = here.view(len(shares), self.grid.rows, len(at), -1).to(weights.dtype)
        lines = (-1, self.grid.columns * self.spans, self.grid.height)
        return self._made(weights.to(self._folded.dtype).view(lines))

    def _made(self, weights: torch.Tensor) -> torch.Tensor:
        """Outputs of weights [placements * rows, columns * spans, height]."""
        if self._fold_back is not None:
            weights = self._fold_back @ weights
        made = self._inputs @ weights
        return made.view(-1, self.grid.rows, self.images, self.grid.height)

    def exchange(self, new: torch.Tensor, old: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """What block `new[j]` adds in column `columns[j]` less what `old[j]` adds: [moves, images, height]."""
        new, old = (torch.where(block == UNPLACED, self.held, block) for block in (new, old))
        if self._cache is not None:
            start = columns * (self.held + 1)
            difference = self._cache[start + new] - self._cache[start + old]
            return difference.view(-1, self.images, self.grid.height)
        phase = self._phase[columns]
        return self._slices[columns] @ (self._folded[phase, new] - self._folded[phase, old])

    def gradient(self, of_output: torch.Tensor) -> torch.Tensor:
        """First-order change of a loss if block b were added at position p: [held + 1, positions].

        of_output [rows, images, height] is the loss's gradient by the layer's output; the last row, of the empty
        place, is zero.
        """
        rows, columns = self.grid.rows, self.grid.columns
        gradient = of_output.new_empty(self.held + 1, rows, columns)
        of_output = of_output.to(self._folded.dtype)
        for phase in range(len(self._folded)):
            at = (self._phase == phase).nonzero().flatten()
            slots = self._slices[at].transpose(1, 2)[None] @ of_output[:, None]  # [rows, columns here, spans, height]
            gradient[:, :, at] = (
                (self._folded[phase].flatten(1) @ slots.flatten(0, 1).flatten(1).T)
                .view(-1, rows, len(at))
                .to(gradient.dtype)
            )
        return gradient.flatten(1)

    def bytes_per_placement(self) -> int:
        """Largest temporary that `outputs` makes for one placement, in bytes."""
        outputs = self.grid.rows * self.images * self.grid.height
        if self.by_column:
            return 4 * outputs
        weights = 0 if self.cached else self.grid.count * self.spans * self.grid.height
        return self._folded.element_size() * max(outputs, weights)

    def _folding_pays(self, channels: int) -> bool:
        """Whether the weight is better summed over the columns that share a channel before it meets the images."""
        wide = self._inputs.shape[1]
        return wide * channels + channels * self.images < wide * self.images

    def _caching_pays(self, cache_bytes: int) -> bool:
        size, spans = self._folded.element_size(), self.spans
        needed = self.grid.columns * (self.held + 1) * self.images * self.grid.height * size
        read = self.images * size
        make = 2 * spans * size + 2 * spans * self.images / FLOPS_PER_BYTE
        return needed + self._folded.nbytes + self._slices.nbytes <= cache_bytes and read < make

    def _fill(self) -> torch.Tensor:
        """Every product: [columns * (held + 1), images * height], the empty block's zeros last in each column."""
        per_column = self.held + 1
        shape = (self.grid.columns * per_column, self.images * self.grid.height)
        cache = torch.empty(shape, dtype=self._folded.dtype, device=self._folded.device)
        for column, made in enumerate(cache.view(self.grid.columns, per_column, self.images, self.grid.height)):
            torch.matmul(self._slices[column], self._folded[self._phase[column]], out=made)
        return cache


def _fold(blocks: torch.Tensor, phases: torch.Tensor, copies: int) -> torch.Tensor:
    """Blocks summed over the copies of each channel that they span, and an empty one last.

    blocks [held, height, width] -> [phases, held + 1, spans, height].
    """
    held, height, width = blocks.shape
    inside = torch.arange(width, device=blocks.device)
    spans = int((int(phases.max()) + width - 1) // copies) + 1
    if copies == 1:
        folded = blocks.transpose(1, 2)[None]
    else:
        select = F.one_hot((phases + inside[:, None]) // copies, spans).flatten(1).to(blocks.dtype)
        folded = (blocks.reshape(-1, width) @ select).view(held, height, len(phases), spans).permute(2, 0, 3, 1)
    return torch.cat([folded, folded.new_zeros(len(phases), 1, spans, height)], dim=1)


def _selection(channel: torch.Tensor, channels: int) -> torch.Tensor:
    """0/1 matrix [columns * spans, channels]: which channel each column's place is; none beyond the last channel."""
    return F.one_hot(channel.clamp(max=channels), channels + 1)[..., :channels].flatten(0, 1).float()
