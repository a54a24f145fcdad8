"""What lies before a network's scattered layers, on fixed images: computed once and kept, or a part at a time.

Layers that read many tokens of an image make more features than a machine may hold. What is scored on them is then
scored in one pass: parts of the images outside, placements inside.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from scatterproof.evaluation.split import features, split_at, whole
from scatterproof.evaluation.trainable import copies
from scatterproof.puzzle import Puzzle
from scatterproof.victims.models import dense_layers

BATCH = 125  # images at once through what lies before the layers: more of them only miss a CPU's cache
LIMIT = 2**30  # bytes of features: more of a test set's are not held
# Temporaries of the layers after the head: below 32 MiB, which the C library's heap keeps and hands out again.
CHUNK_BYTES = 2**25

Features = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Images:
    """uint8 [n, C, H, W], read in an order int64 [n]; the first `first` of them make parts of their own."""

    pixels: torch.Tensor
    order: torch.Tensor | None = None
    first: int = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def at(self, begin: int, end: int) -> torch.Tensor:
        """Those from `begin` on and before `end`."""
        return self.pick(self.pixels, begin, end)

    def pick(self, values: torch.Tensor, begin: int, end: int) -> torch.Tensor:
        """Of values [n, ...], one for each image, those of these images."""
        return values[begin:end] if self.order is None else values[self.order[begin:end]]

    def parts(self, most: int) -> list[tuple[int, int]]:
        """Where parts of at most so many images begin and end."""
        ends = ((0, self.first), (self.first, len(self)))
        return [(at, min(at + most, end)) for begin, end in ends for at in range(begin, end, most)]


class Head:
    """What a puzzle's network makes of images before the first scattered layer, and what passes around that layer.

    Held on the device, one of each channel's copies alone, where it takes at most `limit` bytes (None: always).
    """

    def __init__(self, puzzle: Puzzle, images: Images, device: torch.device, limit: int | None = None) -> None:
        self.images, self.device, self._limit, self._puzzle = images, device, limit, puzzle
        model = puzzle.model().to(device)
        for name in puzzle.layout.grids:
            _with_bias(dense_layers(model)[name])
        self.split = split_at(model, list(puzzle.layout.grids))
        few = self._made(0, min(2, len(images)))
        if few is None:  # something else than one row per image passes around the layer: that can't be kept
            self.split = whole(model)
            few = self._made(0, min(2, len(images)))
            assert few is not None
        self._values = few[0][0].numel()
        self._bytes = sum(value[0].nbytes for value in few)
        fits = limit is None or self._bytes * len(images) <= limit
        self.held = self._folded(0, len(images)) if fits else None

    def anew(self, puzzle: Puzzle) -> "Head":
        """That of another puzzle's network, on the same images."""
        return Head(puzzle, self.images, self.device, self._limit)

    def serves(self, puzzle: Puzzle) -> bool:
        """Whether another puzzle's network is the same before the scattered layers."""
        about = [(each.config, each.classes, each.mean, each.std, _shapes(each)) for each in (self._puzzle, puzzle)]
        return about[0] == about[1] and self.equals(puzzle.state)

    def equals(self, state: Mapping[str, torch.Tensor], prefix: str = "") -> bool:
        """Whether a network of these tensors, named as this one's after the prefix, is the same up to there."""
        own = {prefix + name: value for name, value in self.tensors.items()}
        return all(name in state and value.equal(state[name].to(value.device)) for name, value in own.items())

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """What the features depend on, by the names of the network's tensors."""
        head = self.split.head
        return dict(head.state_dict()) if isinstance(head, nn.Module) else {}

    @cached_property
    def copies(self) -> int:
        """How often each channel stands in the layer's input: of the first images alone where not all are held."""
        if self.split.first is None:
            return 1
        few = self.at(0, min(BATCH, len(self.images))) if self.held is None else self.held
        return self._puzzle.layout.grids[self.split.first].inputs // few[0].shape[-1]

    def parts(self) -> list[tuple[int, int]]:
        """Where the parts begin and end whose features are at hand, or are made, at once."""
        if self.held is not None or self._limit is None:
            return self.images.parts(len(self.images))
        return self.images.parts(max(1, self._limit // self._bytes))

    def at(self, begin: int, end: int) -> Features:
        """Of the images from `begin` on and before `end`: the layer's inputs [images, ..., channels], folded over the
        copies of these images, and what passes around it."""
        return self._folded(begin, end) if self.held is None else tuple(value[begin:end] for value in self.held)

    def chunks(self, part: Features, most: int) -> Iterator[Features]:
        """A part in pieces of at most `most` images, or as many as leave the layers that follow small temporaries."""
        yield from zip(*(value.split(min(most, self._most)) for value in part), strict=True)

    @property
    def _most(self) -> int:
        if self.split.first is None:
            return BATCH
        grid = self._puzzle.layout.grids[self.split.first]
        tokens = self._values // grid.inputs
        return max(1, CHUNK_BYTES // (4 * tokens * max(grid.inputs, grid.outputs)))

    def _folded(self, begin: int, end: int) -> Features:
        made = self._made(begin, end)
        assert made is not None
        count = copies(made[0]) if self.split.first else 1
        return (made[0][..., ::count].contiguous(), *made[1:]) if count > 1 else made

    def _made(self, begin: int, end: int) -> Features | None:
        spans = [(at, min(at + BATCH, end)) for at in range(begin, end, BATCH)]
        return features(self.split, (self._puzzle.inputs(self.images.at(*span).to(self.device)) for span in spans))


def _shapes(puzzle: Puzzle) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in puzzle.state.items()}


def _with_bias(layer: nn.Linear) -> None:
    """A layer without bias gets zeros, for a correction to be added to."""
    if layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_features))
