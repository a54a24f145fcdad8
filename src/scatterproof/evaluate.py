"""The one way that placements are scored: accuracy and cross-entropy of the network with its blocks placed so.

Everything before the scattered layer is computed once and kept on the device. Where the layer's input holds each
channel several times (at 32 x 32 pixels VGG's adaptive pooling copies each of 512 channels 49 times), the weight is
folded over the copies first. Every placement runs the same kernels on the same shapes, one after the other, so that
equal weights give bit-identical scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from scatterproof.blocks import UNPLACED, Layout, invert
from scatterproof.models import dense_layers
from scatterproof.puzzle import Puzzle
from scatterproof.split import split_at


@dataclass(frozen=True)
class Scores:
    """accuracy, loss: float64 [placements]; loss is the mean cross-entropy."""

    accuracy: torch.Tensor
    loss: torch.Tensor


class PlacementEvaluator:
    """Scores placements of a puzzle's blocks on labelled images.

    images uint8 [n, C, H, W], labels int64 [n]; `chunk` images pass the layers after the scattered one at a time.
    """

    def __init__(
        self, puzzle: Puzzle, images: torch.Tensor, labels: torch.Tensor, device: torch.device, chunk: int = 2000
    ) -> None:
        model = puzzle.model().to(device)
        self.layout: Layout = puzzle.layout
        self.device = device
        self.chunk = chunk
        self.labels = labels.to(device)
        height, width = self.layout.block_shape
        lines = puzzle.blocks.to(device).reshape(-1, width)
        self._lines = torch.cat([lines, lines.new_zeros(height, width)])  # the last block is the empty place
        self._split = split_at(model, list(self.layout.grids))
        self._model = model
        self._bias = {name: _bias(dense_layers(model)[name]) for name in self.layout.grids}
        self._features = self._head(puzzle, images)
        self.copies = copies(self._features[0]) if self._split.first else 1
        if self.copies > 1:
            self._features = (self._features[0][..., :: self.copies].contiguous(), *self._features[1:])
        self._mean_input = self._mean_of(puzzle)

    def _head(self, puzzle: Puzzle, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The scattered layer's input, and whatever passes around it, for all images."""
        with torch.inference_mode():
            parts = [self._split.head(puzzle.inputs(part.to(self.device))) for part in images.split(500)]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def _mean_of(self, puzzle: Puzzle) -> torch.Tensor | None:
        """The layer's mean input over the pirate's own images, folded."""
        if self._split.first is None or len(puzzle.images) == 0:
            return None
        features = self._head(puzzle, puzzle.images)[0][..., :: self.copies]
        return features.reshape(-1, features.shape[-1]).mean(0)

    def score(self, placements: torch.Tensor, correction: str = "none") -> Scores:
        """Scores of placements int64 [p, blocks], -1 where a block is not placed.

        correction: what stands in for the missing blocks: `none`; `scale` divides each output's sum by the share of
        its inputs held; `mean` adds to the bias what the missing blocks would add on average, by that share.
        """
        block_at = invert(placements.to(self.device), self.layout.positions)
        accuracy = torch.zeros(len(placements), dtype=torch.float64)
        loss = torch.zeros(len(placements), dtype=torch.float64)
        for i, blocks in enumerate(block_at):
            right, total = self._score_weights(*self._weights(blocks, correction))
            accuracy[i], loss[i] = right.double() / len(self.labels), total / len(self.labels)
        return Scores(accuracy, loss)

    def logits(self, placement: torch.Tensor, correction: str = "none") -> torch.Tensor:
        """Logits [n, classes] of one placement [blocks]."""
        weights = self._weights(invert(placement.to(self.device), self.layout.positions), correction)
        return torch.cat([self._forward(part, *weights) for part in self._chunks()])

    def _weights(
        self, block_at: torch.Tensor, correction: str
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The scattered layers' weights (the first one folded) and biases for this placement."""
        empty = len(self._lines) // self.layout.block_shape[0] - 1
        found = self.layout.assemble(self._lines, torch.where(block_at == UNPLACED, empty, block_at))
        biases = dict(self._bias)
        if self.copies > 1:
            first = self._first()
            weight = found[first]
            found[first] = weight.view(weight.shape[0], -1, self.copies).sum(-1)
        if correction != "none":
            self._correct(found, biases, block_at, correction)
        return found, biases

    def _first(self) -> str:
        assert self._split.first is not None
        return self._split.first

    def _correct(
        self, weights: dict[str, torch.Tensor], biases: dict[str, torch.Tensor], block_at: torch.Tensor, kind: str
    ) -> None:
        for name, held in input_shares(self.layout, block_at).items():
            factor = torch.where(held > 0, 1 / held.clamp(min=1e-9), 1.0)[:, None]
            if kind == "scale":
                weights[name] = weights[name] * factor
            elif kind == "mean":
                if name != self._split.first or self._mean_input is None:
                    raise ValueError("correction 'mean' needs one scattered layer and images of the pirate's own")
                biases[name] = biases[name] + (factor[:, 0] - 1) * (weights[name] @ self._mean_input)
            else:
                raise ValueError(f"unknown correction '{kind}': expected none, scale or mean")

    def _chunks(self) -> list[tuple[torch.Tensor, ...]]:
        return list(zip(*(feature.split(self.chunk) for feature in self._features), strict=True))

    def _score_weights(
        self, weights: dict[str, torch.Tensor], biases: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part, labels in zip(self._chunks(), self.labels.split(self.chunk), strict=True):
            logits = self._forward(part, weights, biases)
            right += (logits.argmax(1) == labels).sum()
            total += F.cross_entropy(logits, labels, reduction="sum")
        return right, total

    @torch.inference_mode()
    def _forward(
        self, part: tuple[torch.Tensor, ...], weights: Mapping[str, torch.Tensor], biases: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        first = self._split.first
        rest = {f"{name}.weight": w for name, w in weights.items() if name != first}
        if first is None:
            return _call(self._split.tail, rest, part)
        output = F.linear(part[0], weights[first], biases[first])
        return _call(self._split.tail, rest, (output, *part[1:]))


def _bias(layer: nn.Linear) -> torch.Tensor:
    """The layer's bias, zeros where it has none."""
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()


def _call(tail: nn.Module, replaced: dict[str, torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    logits: torch.Tensor = functional_call(tail, replaced, inputs) if replaced else tail(*inputs)
    return logits


def copies(features: torch.Tensor) -> int:
    """How often each input stands in the layer's input [..., inputs], copies side by side: 1 if it does not."""
    flat = features.reshape(-1, features.shape[-1])
    boundaries = (flat[:, 1:] != flat[:, :-1]).any(0).nonzero().flatten() + 1
    return gcd(flat.shape[1], *boundaries.tolist())


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
