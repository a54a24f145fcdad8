"""A network from its scattered layers on, as a function of a `Head`'s features: its blocks placed, or other weights.

Every network runs the same kernels on the same shapes, one after the other, so that equal weights give bit-identical
logits.
"""

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from scatterproof.blocks import factors, input_shares, invert, lines_of
from scatterproof.evaluation.head import BATCH, Features, Head
from scatterproof.evaluation.predictions import Candidate, bytes_of, key_of, key_of_all
from scatterproof.evaluation.split import features
from scatterproof.puzzle import Puzzle
from scatterproof.victims.models import dense_layers, layer_inputs

CHUNK = 2000  # images at once, at most

Tensors = Mapping[str, torch.Tensor]


class Corrected(NamedTuple):
    """Per scattered layer: what multiplies each output's sum, and its bias, both [outputs]."""

    scales: Tensors
    biases: Tensors


class Blocks:
    """Blocks held, as they are put together."""

    def __init__(self, blocks: torch.Tensor, device: torch.device) -> None:
        self.blocks, self._device = blocks, device

    @cached_property
    def lines(self) -> torch.Tensor:
        """As `Layout.assemble` takes them, on the device."""
        return lines_of(self.blocks.to(self._device))

    @cached_property
    def digests(self) -> list[bytes]:
        """Of each block's content, and of an empty one at the end, which UNPLACED stands for."""
        return [*_digests(self.blocks), *_digests(self.blocks.new_zeros(1, *self.blocks.shape[1:]))]


class ScatteredLayers:
    """The layers that a puzzle scatters, and what follows them. head: what lies before them, on the images."""

    def __init__(self, head: Head, puzzle: Puzzle, chunk: int = CHUNK, blocks: Blocks | None = None) -> None:
        self.head, self.puzzle, self.layout, self._chunk = head, puzzle, puzzle.layout, chunk
        self._blocks = Blocks(puzzle.blocks, head.device) if blocks is None else blocks
        self.tail = _with_tensors(head.split.tail, self._following(puzzle.state))
        self.biases = self._biases(puzzle.state)

    def of(self, puzzle: Puzzle) -> "ScatteredLayers":
        """Another puzzle's on the same images: features stay where nothing before the scattered layers differs.

        Raises: ValueError where the puzzle scatters other layers.
        """
        mine, other = (
            {name: (grid.outputs, grid.inputs) for name, grid in each.layout.grids.items()}
            for each in (self.puzzle, puzzle)
        )
        if mine != other:
            raise ValueError(f"a puzzle of other layers: {other}, expected {mine}")
        head = self.head if self.head.serves(puzzle) else self.head.anew(puzzle)
        same = puzzle.blocks.equal(self.puzzle.blocks)
        return ScatteredLayers(head, puzzle, self._chunk, self._blocks if same else None)

    def placed(self, placement: torch.Tensor, correction: str) -> Candidate:
        """The network with the blocks at placement int64 [blocks]. correction: `none` or `scale`."""
        block_at = invert(placement.to(self.head.device), self.layout.positions)
        corrected = self.correct({}, block_at, correction)

        def logits(part: Features) -> Iterator[torch.Tensor]:
            return self._alone(part, self.assembled(block_at), corrected, self.tail)

        digests = [self._blocks.digests[at] for at in block_at.tolist()]
        return Candidate(self._key(digests, corrected, self.tail), self.head, logits)

    def weighted(self, weights: Tensors, state: Tensors | None = None) -> Candidate:
        """The network with weights [outputs, inputs] of its scattered layers, by path, that no placement need make.

        state: the tensors of another network, equal before the scattered layers, for what follows them.
        """
        device, state = self.head.device, self.puzzle.state if state is None else state
        biases, tail = self._biases(state), _with_tensors(self.tail, self._following(state))
        corrected = Corrected({name: torch.ones_like(bias) for name, bias in biases.items()}, biases)

        def logits(part: Features) -> Iterator[torch.Tensor]:
            return self._alone(part, {name: weight.to(device) for name, weight in weights.items()}, corrected, tail)

        cut = self.layout.cut({name: weight.cpu() for name, weight in weights.items()})
        return Candidate(self._key(_digests(cut), corrected, tail), self.head, logits)

    def probed(self, weight: torch.Tensor, bias: torch.Tensor) -> Candidate:
        """A dense layer [classes, values] on all that the first scattered layer reads of an image, nothing after it."""
        weight, bias = weight.to(self.head.device), bias.to(self.head.device)

        @torch.inference_mode()
        def logits(part: Features) -> Iterator[torch.Tensor]:
            for first, *_ in self.head.chunks(part, self._chunk):
                values = first.flatten(1)
                yield F.linear(values, weight.view(len(weight), values.shape[1], -1).sum(-1), bias)

        return Candidate(key_of("probe", self._head_key, weight, bias), self.head, logits)

    def _alone(self, part: Features, weights: Tensors, corrected: Corrected, tail: nn.Module) -> Iterator[torch.Tensor]:
        """The logits of one network, some images at a time."""
        for (logits,) in self.forward(part, self.folded(weights, part), [corrected], tail):
            yield logits

    @torch.inference_mode()
    def forward(
        self, part: Features, weights: Tensors, corrected: Sequence[Corrected], tail: nn.Module | None = None
    ) -> Iterator[list[torch.Tensor]]:
        """Logits [images, classes] under each correction, some images at a time. weights: folded as the part is."""
        first, tail = self.head.split.first, self.tail if tail is None else tail
        for chunk in self.head.chunks(part, self._chunk):
            product = None if first is None else F.linear(chunk[0], weights[first])
            yield [self._logits(chunk, product, weights, each, tail) for each in corrected]

    def _logits(
        self, chunk: Features, product: torch.Tensor | None, weights: Tensors, corrected: Corrected, tail: nn.Module
    ) -> torch.Tensor:
        first, (scales, biases) = self.head.split.first, corrected
        others = [name for name in weights if name != first]
        replaced = {f"{name}.weight": weights[name] * scales[name][:, None] for name in others}
        replaced |= {f"{name}.bias": biases[name] for name in others}
        if first is not None and product is not None:
            chunk = (product * scales[first] + biases[first], *chunk[1:])
        logits: torch.Tensor = functional_call(tail, replaced, chunk) if replaced else tail(*chunk)
        return logits

    def assembled(self, block_at: torch.Tensor) -> dict[str, torch.Tensor]:
        """The scattered layers' weights with block `block_at[p]` at position p."""
        return self.layout.assemble(self._blocks.lines, block_at)

    def folded(self, weights: Tensors, part: Features) -> dict[str, torch.Tensor]:
        """The first layer's summed over the copies of its inputs, of which a part holds one each."""
        first = self.head.split.first
        if first is None or weights[first].shape[1] == part[0].shape[-1]:
            return dict(weights)
        weight = weights[first]
        return {**weights, first: weight.view(len(weight), part[0].shape[-1], -1).sum(-1)}

    def correct(self, weights: Tensors, block_at: torch.Tensor, kind: str) -> Corrected:
        """What each output's sum is multiplied by, and its bias, for every scattered layer.

        weights: folded or not; only `mean` reads them. Raises: ValueError where there is no such correction here.
        """
        if kind not in ("none", "scale", "mean"):
            raise ValueError(f"unknown correction '{kind}': expected none, scale or mean")
        scales, biases = {}, dict(self.biases)
        for name, held in input_shares(self.layout, block_at).items():
            factor = factors(held)
            scales[name] = factor if kind == "scale" else torch.ones_like(factor)
            if kind == "mean":
                if self._mean_input is None:
                    raise ValueError("correction 'mean' needs one scattered layer and images of the pirate's own")
                mean = self._mean_input[:: len(self._mean_input) // weights[name].shape[1]]
                biases[name] = biases[name] + (factor - 1) * (weights[name] @ mean)
        return Corrected(scales, biases)

    @cached_property
    def _mean_input(self) -> torch.Tensor | None:
        """The layer's mean input over the pirate's own images."""
        puzzle, split = self.puzzle, self.head.split
        if len(self.layout.grids) > 1 or len(puzzle.images) == 0:
            return None
        batches = (puzzle.inputs(part.to(self.head.device)) for part in puzzle.images.split(BATCH))
        if split.first is None:
            layer = dense_layers(self.tail)[next(iter(self.layout.grids))]
            return torch.cat(layer_inputs(self.tail, layer, batches)).mean(0)
        made = features(split, batches)
        assert made is not None
        return made[0].flatten(0, -2).mean(0)

    def _biases(self, state: Tensors) -> dict[str, torch.Tensor]:
        """Of the scattered layers; zeros for one without."""
        device, grids = self.head.device, self.layout.grids
        given = {name: state.get(f"{name}.bias", torch.zeros(grid.outputs)) for name, grid in grids.items()}
        return {name: bias.to(device) for name, bias in given.items()}

    def _following(self, state: Tensors) -> dict[str, torch.Tensor]:
        """Of a network's tensors those that follow the scattered layers' own."""
        own = {f"{name}.{key}" for name in self.layout.grids for key in ("weight", "bias")}
        return {name: state[name] for name in self.head.split.tail.state_dict() if name not in own}

    def _key(self, digests: Sequence[bytes], corrected: Corrected, tail: nn.Module) -> str:
        """Of the blocks at each position, by their digests, with a correction and before a tail."""
        following = self._tail_key if tail is self.tail else self._key_of_tail(tail)
        values = [each[name] for each in corrected for name in self.layout.grids]
        return key_of(self._head_key, following, str(self.layout.grids), b"".join(digests), *values)

    @cached_property
    def _head_key(self) -> str:
        return key_of(self.puzzle.config.model_dump_json(), key_of_all(self.head.tensors))

    @cached_property
    def _tail_key(self) -> str:
        return self._key_of_tail(self.tail)

    def _key_of_tail(self, tail: nn.Module) -> str:
        return key_of_all(self._following(tail.state_dict()))


def _with_tensors(tail: nn.Module, tensors: Tensors) -> nn.Module:
    """A tail with these tensors: itself where it has them."""
    own = tail.state_dict()
    if all(own[name].equal(value.to(own[name].device)) for name, value in tensors.items()):
        return tail
    tail = copy.deepcopy(tail)
    tail.load_state_dict(dict(tensors), strict=False)
    return tail


def _digests(blocks: torch.Tensor) -> list[bytes]:
    """Of each block's content."""
    return [hashlib.blake2b(bytes_of(block), digest_size=16).digest() for block in blocks.cpu().contiguous()]
