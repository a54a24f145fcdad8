"""The one way that placements are scored: accuracy and cross-entropy of the network with its blocks placed so.

Everything before the scattered layer is computed once (head.py). Where the layer's input holds each channel several
times (at 32 x 32 pixels VGG's adaptive pooling copies each of 512 channels 49 times), the weight is folded over the
copies first. Every placement runs the same kernels on the same shapes, one after the other, so that equal weights give
bit-identical scores (scattered_layers.py).
"""

import copy
import time
from collections.abc import Sequence
from functools import cached_property

import torch

from scatterproof.blocks import Layout, invert
from scatterproof.errors import UserError
from scatterproof.evaluation.engine import DTYPES, Engine
from scatterproof.evaluation.head import Features, Head, Images
from scatterproof.evaluation.moves import CurrentPlacement, PlainPlacement
from scatterproof.evaluation.scattered_layers import CHUNK, ScatteredLayers
from scatterproof.evaluation.targets import Outcomes, Scores, Targets
from scatterproof.evaluation.trainable import Trainable
from scatterproof.puzzle import Puzzle


class PrecisionError(UserError, ValueError):
    """A precision that the device has not."""


class PlacementEvaluator:
    """Scores placements of a puzzle's blocks on images: against labels, given logits, or both.

    images uint8 [n, C, H, W]; labels int64 [n]; logits [n, classes]. `score` is exact to the last bit and takes any
    number of images, at most `chunk` at a time through the layers from the scattered one on. `score_population`, `at`
    and what they give are for searches: batched, in `precision` (fp32, bf16, or tf32 on CUDA), holding up to
    `memory_mb`. limit: bytes of features; more are made anew, a part at a time, for each call; None: they are held.
    Raises: PrecisionError; ValueError where there is nothing to score against.
    """

    def __init__(
        self,
        puzzle: Puzzle,
        images: torch.Tensor,
        labels: torch.Tensor | None,
        device: torch.device,
        chunk: int = CHUNK,
        logits: torch.Tensor | None = None,
        precision: str = "fp32",
        memory_mb: int = 2000,
        correction: str = "none",
        limit: int | None = None,
    ) -> None:
        if precision not in DTYPES or (precision == "tf32" and device.type != "cuda"):
            raise PrecisionError(f"precision '{precision}' on {device.type}: expected fp32, bf16, or tf32 on cuda")
        started = time.perf_counter()
        self.layout: Layout = puzzle.layout
        self.device = device
        self.targets = Targets(
            None if labels is None else labels.to(device), None if logits is None else logits.to(device)
        )
        self._precision, self._memory, self.correction = precision, memory_mb * 2**20, correction
        self._layers = ScatteredLayers(Head(puzzle, Images(images), device, limit), puzzle, chunk)
        self._seconds = time.perf_counter() - started

    def with_blocks(self, puzzle: Puzzle) -> "PlacementEvaluator":
        """The same for another puzzle that scatters the same layers: targets stay, and so do the features where the
        networks differ from the scattered layers on at most.

        Raises: ValueError where the puzzle scatters other layers.
        """
        other = copy.copy(self)
        other.layout, other._layers = puzzle.layout, self._layers.of(puzzle)
        other.__dict__.pop("engine", None)
        return other

    @property
    def copies(self) -> int:
        """How often the layer's input holds each channel."""
        return self._layers.head.copies

    @cached_property
    def engine(self) -> Engine | None:
        """The batched half; None where several layers are scattered, the network cannot be split, or its features are
        not held."""
        name, held = self._layers.head.split.first, self._layers.head.held
        if name is None or held is None or len(self.layout.grids) > 1:
            return None
        return Engine(
            grid=self.layout.grids[name],
            blocks=self._layers.puzzle.blocks,
            bias=self._layers.biases[name],
            features=held,
            copies=self.copies,
            tail=self._layers.tail,
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
        layers, held = self._layers, self._layers.head.held
        if self.engine is None or held is None:
            raise ValueError("training the layer alone needs one scattered layer in a network that torch.fx can trace")
        ((name, weight),) = layers.folded(layers.assembled(block_at), held).items()
        scales, biases = layers.correct({name: weight}, block_at, self.correction)
        return Trainable(held, weight * scales[name][:, None], biases[name], scales[name], self.engine.tail)

    def cut(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight of the one scattered layer, folded, spread evenly over the copies: [positions, height * width]."""
        (grid,) = self.layout.grids.values()
        return grid.cut((weight / self.copies).repeat_interleave(self.copies, 1)).flatten(1)

    def score(self, placements: torch.Tensor, correction: str = "none") -> Scores:
        """Scores of placements int64 [p, blocks], -1 where a block is not placed."""
        return self.score_corrections(placements, [correction])[correction]

    def score_corrections(self, placements: torch.Tensor, corrections: Sequence[str]) -> dict[str, Scores]:
        """Scores of placements int64 [p, blocks] under each correction, which share the layer's product.

        A correction is what stands in for missing blocks: `none`; `scale` divides each output's sum by the share of
        its inputs held; `mean` adds to the bias what the missing blocks would add on average, by that share.
        """
        by_kind: dict[str, list[list[Outcomes]]] = {kind: [[] for _ in placements] for kind in corrections}
        blocks_at = invert(placements.to(self.device), self.layout.positions)
        for begin, end in self._layers.head.parts():
            part, targets = self._layers.head.at(begin, end), self.targets.of(begin, end)
            for number, block_at in enumerate(blocks_at):
                for kind, logits in zip(corrections, self._logits(part, block_at, corrections), strict=True):
                    by_kind[kind][number].append(targets.outcomes(logits[None]))
        return {
            kind: Scores.joined(Outcomes.joined(parts).scores for parts in outcomes)
            for kind, outcomes in by_kind.items()
        }

    def logits(self, placement: torch.Tensor, correction: str = "none") -> torch.Tensor:
        """Logits [n, classes] of one placement [blocks]."""
        block_at, head = invert(placement.to(self.device), self.layout.positions), self._layers.head
        return torch.cat([self._logits(head.at(*span), block_at, [correction])[0] for span in head.parts()])

    def _logits(self, part: Features, block_at: torch.Tensor, corrections: Sequence[str]) -> list[torch.Tensor]:
        """Logits [images, classes] of a part of the images under each correction."""
        weights = self._layers.folded(self._layers.assembled(block_at), part)
        corrected = [self._layers.correct(weights, block_at, kind) for kind in corrections]
        chunks = zip(*self._layers.forward(part, weights, corrected), strict=True)
        return [torch.cat(each) for each in chunks]


def correction_of(puzzle: Puzzle) -> str:
    """Where blocks are missing, the sums of each row are divided by the share held, which the pirate knows."""
    return "scale" if len(puzzle.blocks) < puzzle.layout.positions else "none"
