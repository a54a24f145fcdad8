"""The one way that placements are scored: accuracy and cross-entropy of the network with its blocks placed so.

Everything before the scattered layer is computed once and kept on the device. Where the layer's input holds each
channel several times (at 32 x 32 pixels VGG's adaptive pooling copies each of 512 channels 49 times), the weight is
folded over the copies first. Every placement runs the same kernels on the same shapes, one after the other, so that
equal weights give bit-identical scores.
"""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from scatterproof.blocks import Layout, factors, input_shares, invert, lines_of
from scatterproof.errors import UserError
from scatterproof.evaluation.engine import DTYPES, Engine
from scatterproof.evaluation.moves import CurrentPlacement, PlainPlacement
from scatterproof.evaluation.split import features, split_at, whole
from scatterproof.evaluation.targets import Scores, Targets
from scatterproof.evaluation.trainable import Trainable, copies
from scatterproof.puzzle import Puzzle
from scatterproof.victims.models import dense_layers, layer_inputs


class PrecisionError(UserError, ValueError):
    """A precision that the device has not."""


class PlacementEvaluator:
    """Scores placements of a puzzle's blocks on images: against labels, given logits, or both.

    images uint8 [n, C, H, W]; labels int64 [n]; logits [n, classes]. `score` is exact to the last bit and takes any
    number of images, `chunk` at a time through the layers after the scattered one. `score_population`, `at` and what
    they give are for searches: batched, in `precision` (fp32, bf16, or tf32 on CUDA), holding up to `memory_mb`.
    Raises: PrecisionError; ValueError where there is nothing to score against.
    """

    def __init__(
        self,
        puzzle: Puzzle,
        images: torch.Tensor,
        labels: torch.Tensor | None,
        device: torch.device,
        chunk: int = 2000,
        logits: torch.Tensor | None = None,
        precision: str = "fp32",
        memory_mb: int = 2000,
        correction: str = "none",
    ) -> None:
        if precision not in DTYPES or (precision == "tf32" and device.type != "cuda"):
            raise PrecisionError(f"precision '{precision}' on {device.type}: expected fp32, bf16, or tf32 on cuda")
        started = time.perf_counter()
        model = puzzle.model().to(device)
        self.layout: Layout = puzzle.layout
        self.device = device
        self.chunk = chunk
        self.targets = Targets(
            None if labels is None else labels.to(device), None if logits is None else logits.to(device)
        )
        self._precision, self._memory, self.correction = precision, memory_mb * 2**20, correction
        self._model = model
        self._bias = {name: _bias(dense_layers(model)[name]) for name in self.layout.grids}
        self._split = split_at(model, list(self.layout.grids))
        kept = self._head(puzzle, images)
        if kept is None:
            self._split = whole(model)
            kept = self._head(puzzle, images)
            assert kept is not None
        self._features = kept
        self.copies = copies(self._features[0]) if self._split.first else 1
        if self.copies > 1:
            self._features = (self._features[0][..., :: self.copies].contiguous(), *self._features[1:])
        self._puzzle = puzzle
        self._seconds = time.perf_counter() - started

    def with_blocks(self, puzzle: Puzzle) -> "PlacementEvaluator":
        """The same for another puzzle of the same network, images and scattered layers: what lies before them stays.

        Raises: ValueError where the puzzle is of another network, or scatters other layers.
        """
        mine = self._puzzle.state
        same = mine.keys() == puzzle.state.keys() and all(mine[name].equal(puzzle.state[name]) for name in mine)
        if not same or puzzle.layout.grids.keys() != self.layout.grids.keys():
            raise ValueError("a puzzle of another network, or of other layers in it")
        other = copy.copy(self)
        other.layout, other._puzzle = puzzle.layout, puzzle
        for made in ("_lines", "engine", "_mean_input"):
            other.__dict__.pop(made, None)
        return other

    @cached_property
    def _lines(self) -> torch.Tensor:
        return lines_of(self._puzzle.blocks.to(self.device))

    @cached_property
    def engine(self) -> Engine | None:
        """The batched half; None where several layers are scattered, or the network cannot be split."""
        name = self._split.first
        if name is None or len(self.layout.grids) > 1:
            return None
        return Engine(
            grid=self.layout.grids[name],
            blocks=self._puzzle.blocks,
            bias=self._bias[name],
            features=self._features,
            copies=self.copies,
            tail=self._split.tail,
            targets=self.targets,
            precision=self._precision,
            memory=self._memory,
            correction=self.correction,
        )

    def prepare(self) -> float:
        """Make all that is computed once; the seconds that this and the layer's inputs took, whoever waited for it."""
        started = time.perf_counter()
        if "engine" not in self.__dict__:
            _ = self.engine
            self._seconds += time.perf_counter() - started
        return self._seconds

    def score_population(self, placements: torch.Tensor) -> Scores:
        """Scores of placements int64 [p, blocks], -1 where a block is not placed: batched, rounding as batches do."""
        if self.engine is None:
            return self.score(placements, self.correction)
        return self.engine.score(invert(placements.to(self.device), self.layout.positions))

    def at(self, placement: torch.Tensor) -> CurrentPlacement | PlainPlacement:
        """A placement int64 [blocks] to score moves on."""
        block_at = invert(placement.to(self.device), self.layout.positions)
        if self.engine is None:
            return PlainPlacement(self.score_population, block_at, len(placement))
        return CurrentPlacement(self.engine, block_at)

    def move_changes(self, placement: torch.Tensor) -> torch.Tensor:
        """First-order change of the loss if what lies at one position replaced what lies at another [positions,
        positions], inf where the shapes of the two differ. From one backward pass; placement int64 [blocks].

        Raises: ValueError where placements cannot be scored in batches.
        """
        if self.engine is None:
            raise ValueError("first-order changes need one scattered layer in a network that torch.fx can trace")
        changes = self.engine.move_changes(invert(placement.to(self.device), self.layout.positions))
        shapes = self.layout.shape_classes().to(self.device)
        return changes.masked_fill_(shapes[:, None] != shapes, torch.inf)

    def swap_changes(self, placement: torch.Tensor) -> torch.Tensor:
        """The same by the exchange of each two positions. Raises: as `move_changes`."""
        changes = self.move_changes(placement)
        return changes.add_(changes.T.clone())

    def trainable(self, block_at: torch.Tensor) -> Trainable:
        """The one scattered layer with block `block_at[p]` at position p, to be trained on, and what lies around it.

        Raises: ValueError where placements cannot be scored in batches.
        """
        name = self._split.first
        if self.engine is None or name is None:
            raise ValueError("training the layer alone needs one scattered layer in a network that torch.fx can trace")
        weight = self._weights(block_at)[name]
        corrected = self._correct({name: weight}, block_at, self.correction)
        scale = corrected.scales[name]
        return Trainable(self._features, weight * scale[:, None], corrected.biases[name], scale, self.engine.tail)

    def cut(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight of the one scattered layer, folded, spread evenly over the copies: [positions, height * width]."""
        (grid,) = self.layout.grids.values()
        return grid.cut((weight / self.copies).repeat_interleave(self.copies, 1)).flatten(1)

    def _head(self, puzzle: Puzzle, images: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
        """The scattered layer's input, and whatever passes around it, for all images.

        None where something else than one row per image passes around it (a batch size, say): that can't be kept.
        """
        return features(self._split, (puzzle.inputs(part.to(self.device)) for part in images.split(500)))

    @cached_property
    def _mean_input(self) -> torch.Tensor | None:
        """The layer's mean input over the pirate's own images, folded."""
        puzzle = self._puzzle
        if len(self.layout.grids) > 1 or len(puzzle.images) == 0:
            return None
        layer = dense_layers(self._model)[next(iter(self.layout.grids))]
        batches = (puzzle.inputs(part.to(self.device)) for part in puzzle.images.split(500))
        with torch.inference_mode():
            return torch.cat([part[:, :: self.copies] for part in layer_inputs(self._model, layer, batches)]).mean(0)

    def score(self, placements: torch.Tensor, correction: str = "none") -> Scores:
        """Scores of placements int64 [p, blocks], -1 where a block is not placed."""
        return self.score_corrections(placements, [correction])[correction]

    def score_corrections(self, placements: torch.Tensor, corrections: Sequence[str]) -> dict[str, Scores]:
        """Scores of placements int64 [p, blocks] under each correction, which share the layer's product.

        A correction is what stands in for missing blocks: `none`; `scale` divides each output's sum by the share of
        its inputs held; `mean` adds to the bias what the missing blocks would add on average, by that share.
        """
        by_kind: dict[str, list[Scores]] = {kind: [] for kind in corrections}
        for block_at in invert(placements.to(self.device), self.layout.positions):
            weights = self._weights(block_at)
            corrected = [self._correct(weights, block_at, kind) for kind in corrections]
            parts = [list(self._forward(part, weights, corrected)) for part in self._chunks()]
            for kind, logits in zip(corrections, zip(*parts, strict=True), strict=True):
                by_kind[kind].append(self.targets.score(torch.cat(logits)[None]))
        return {kind: Scores.joined(scores) for kind, scores in by_kind.items()}

    def logits(self, placement: torch.Tensor, correction: str = "none") -> torch.Tensor:
        """Logits [n, classes] of one placement [blocks]."""
        block_at = invert(placement.to(self.device), self.layout.positions)
        weights = self._weights(block_at)
        corrected = [self._correct(weights, block_at, correction)]
        return torch.cat([next(self._forward(part, weights, corrected)) for part in self._chunks()])

    def score_weights(self, weights: Mapping[str, torch.Tensor]) -> Scores:
        """Scores of the network with weights [outputs, inputs] of its scattered layers, by path, that no placement
        makes."""
        held = self._folded({name: weight.to(self.device) for name, weight in weights.items()})
        ones = {name: torch.ones_like(bias) for name, bias in self._bias.items()}
        parts = [next(self._forward(part, held, [_Corrected(ones, self._bias)])) for part in self._chunks()]
        return self.targets.score(torch.cat(parts)[None])

    def _weights(self, block_at: torch.Tensor) -> dict[str, torch.Tensor]:
        """The scattered layers' weights, the first one folded, with block `block_at[p]` at position p."""
        return self._folded(self.layout.assemble(self._lines, block_at))

    def _folded(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The first layer's summed over the copies of its inputs."""
        if self.copies > 1:
            assert self._split.first is not None
            weight = weights[self._split.first]
            weights = weights | {self._split.first: weight.view(weight.shape[0], -1, self.copies).sum(-1)}
        return weights

    def _correct(self, weights: Mapping[str, torch.Tensor], block_at: torch.Tensor, kind: str) -> "_Corrected":
        """What each output's sum is multiplied by, and its bias, for every scattered layer."""
        if kind not in ("none", "scale", "mean"):
            raise ValueError(f"unknown correction '{kind}': expected none, scale or mean")
        scales, biases = {}, {}
        for name, held in input_shares(self.layout, block_at).items():
            factor = factors(held)
            scales[name] = factor if kind == "scale" else torch.ones_like(factor)
            biases[name] = self._bias[name]
            if kind == "mean":
                if self._mean_input is None:
                    raise ValueError("correction 'mean' needs one scattered layer and images of the pirate's own")
                biases[name] = biases[name] + (factor - 1) * (weights[name] @ self._mean_input)
        return _Corrected(scales, biases)

    def _chunks(self) -> list[tuple[torch.Tensor, ...]]:
        return list(zip(*(feature.split(self.chunk) for feature in self._features), strict=True))

    @torch.inference_mode()
    def _forward(
        self, part: tuple[torch.Tensor, ...], weights: Mapping[str, torch.Tensor], corrected: Sequence["_Corrected"]
    ) -> Iterator[torch.Tensor]:
        """The logits under each correction."""
        first = self._split.first
        product = None if first is None else F.linear(part[0], weights[first])
        for scales, biases in corrected:
            replaced = {f"{name}.weight": w * scales[name][:, None] for name, w in weights.items() if name != first}
            replaced |= {f"{name}.bias": biases[name] for name in weights if name != first}
            inputs = part
            if first is not None and product is not None:
                inputs = (product * scales[first] + biases[first], *part[1:])
            yield functional_call(self._split.tail, replaced, inputs) if replaced else self._split.tail(*inputs)


def correction_of(puzzle: Puzzle) -> str:
    """Where blocks are missing, the sums of each row are divided by the share held, which the pirate knows."""
    return "scale" if len(puzzle.blocks) < puzzle.layout.positions else "none"


class _Corrected(NamedTuple):
    """Per scattered layer: what multiplies each output's sum, and its bias, both [outputs]."""

    scales: dict[str, torch.Tensor]
    biases: dict[str, torch.Tensor]


def _bias(layer: nn.Linear) -> torch.Tensor:
    """The layer's bias; one without gets zeros, for a correction to be added to."""
    if layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_features))
    return layer.bias.detach()
