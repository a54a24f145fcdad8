"""What the pirate holds, and the truth that it never sees.

The puzzle carries only what the threat model grants: the layers that were not scattered, the scattered layers' biases,
the blocks held in a shuffled order, the pirate's images, and labels or logits computed beforehand. The answer is
another file, and so is what a defence's owner keeps.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from scatterproof.blocks import BlockGrid, Layout, Placement
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.running.files import atomic
from scatterproof.victims.checkpoints import unshared
from scatterproof.victims.data import to_input
from scatterproof.victims.models import build_model, dense_layers, load_weights
from scatterproof.victims.tasks import Task


class PuzzleError(UserError):
    """A file that is no puzzle or answer, in one line."""


@dataclass(frozen=True)
class Puzzle:
    """What the pirate holds.

    blocks [held, height, width] in shuffled order, edges padded with zeros; shapes int64 [held, 2]; state: every
    tensor of the network but the scattered weights; images: inputs of any kind, images uint8 [n, C, H, W], features
    float32 [n, ...] or token ids int64 [n, T], whose type and shape say the kind also where there are none; labels
    int64 [n] or logits [n, classes] where the threat grants them; base: the scattered weights of the public model that
    the victim started from, by the layer's name, where the threat grants it; seen: what the pirate saw of requests,
    where the threat grants it: `inputs` [n, inputs] of the scattered layer, and `following` [n, outputs], what they
    became on their way to the layer that reads them; mean, std: the normalisation of images, empty for other kinds;
    task: what the network's answers are for.
    """

    blocks: torch.Tensor
    shapes: torch.Tensor
    layout: Layout
    state: dict[str, torch.Tensor]
    images: torch.Tensor
    labels: torch.Tensor | None
    logits: torch.Tensor | None
    config: VictimConfig
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    threat: ThreatModel
    base: dict[str, torch.Tensor] | None = None
    seen: dict[str, torch.Tensor] = field(default_factory=dict)
    task: Task = "classification"

    def model(self) -> nn.Module:
        """The network in eval mode, the scattered weights zero."""
        model = build_model(self.config, self.classes)
        layers = dense_layers(model)
        empty = {f"{name}.weight": torch.zeros_like(layers[name].weight) for name in self.layout.grids}
        load_weights(model, self.state | empty, "puzzle")
        return model.eval()

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Inputs of the puzzle's kind as the network takes them."""
        return to_input(images, self.config.input_size, self.mean, self.std)

    @cached_property
    def digest(self) -> str:
        """Of all that the pirate holds; equal for equal puzzles."""
        digest = hashlib.blake2b(f"{self.config.model_dump_json()} {self.classes}".encode(), digest_size=16)
        given = (self.blocks, self.shapes, self.images, self.labels, self.logits)
        named = (part[name] for part in (self.state, self.base or {}, self.seen) for name in sorted(part))
        for tensor in (*given, *named):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write atomically as one safetensors file."""
        tensors = {f"state/{name}": value for name, value in self.state.items()}
        tensors |= {"blocks": self.blocks, "shapes": self.shapes, "images": self.images}
        optional = {"labels": self.labels, "logits": self.logits}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        tensors |= {f"base/{name}": value for name, value in (self.base or {}).items()}
        tensors |= {f"seen/{name}": value for name, value in self.seen.items()}
        meta = {
            "config": self.config.model_dump(),
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "threat": self.threat.model_dump(),
            "task": self.task,
        }
        _save(path, "puzzle", tensors, self.layout, meta)

    @classmethod
    def load(cls, path: Path) -> "Puzzle":
        """Read a puzzle. Raises: PuzzleError."""
        tensors, layout, meta = _load(path, "puzzle")
        state, base, seen = (_under(start, tensors) for start in ("state/", "base/", "seen/"))
        return cls(
            blocks=tensors["blocks"],
            shapes=tensors["shapes"],
            layout=layout,
            state=state,
            images=tensors["images"],
            labels=tensors.get("labels"),
            logits=tensors.get("logits"),
            config=VictimConfig.model_validate(meta["config"]),
            classes=meta["classes"],
            mean=tuple(meta["mean"]),
            std=tuple(meta["std"]),
            threat=ThreatModel.model_validate(meta["threat"]),
            base=base or None,
            seen=seen,
            task=meta.get("task", "classification"),
        )


def with_images(puzzle: Puzzle, count: int) -> Puzzle:
    """The same puzzle with the first so many of its images."""
    first = slice(count)
    labels, logits = (None if each is None else each[first] for each in (puzzle.labels, puzzle.logits))
    threat = puzzle.threat.model_copy(update={"images": len(puzzle.images[first])})
    return replace(puzzle, images=puzzle.images[first], labels=labels, logits=logits, threat=threat)


@dataclass(frozen=True)
class Answer:
    """The truth: where each block of the puzzle belongs, and what a defence's trusted party alone knows."""

    placement: Placement
    layout: Layout
    secret: dict[str, torch.Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write atomically as one safetensors file."""
        secret = {f"secret/{name}": value for name, value in self.secret.items()}
        _save(path, "answer", {"placement": self.placement.positions} | secret, self.layout, {})

    @classmethod
    def load(cls, path: Path) -> "Answer":
        """Read an answer. Raises: PuzzleError."""
        tensors, layout, _ = _load(path, "answer")
        return cls(Placement(tensors["placement"], layout.positions), layout, _under("secret/", tensors))


@dataclass(frozen=True)
class Protected:
    """What a defence has made of the scattered layers, in the hands of the owner.

    weights: what the devices hold in place of each scattered layer's, by its name; state: other tensors of the network
    that changed with them, which everybody knows; at_home int64: positions of blocks that no device holds; secret: what
    the trusted party alone knows, by `LAYER/NAME`; about: the defence's settings, the seconds that it took, and what
    each request costs.
    """

    weights: dict[str, torch.Tensor]
    state: dict[str, torch.Tensor]
    at_home: torch.Tensor
    secret: dict[str, torch.Tensor]
    layout: Layout
    about: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write atomically as one safetensors file."""
        parts = {"weights": self.weights, "state": self.state, "secret": self.secret}
        tensors = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        _save(path, "protected layer", tensors | {"at_home": self.at_home}, self.layout, self.about)

    @classmethod
    def load(cls, path: Path) -> "Protected":
        """Read a protected layer. Raises: PuzzleError."""
        tensors, layout, about = _load(path, "protected layer")
        weights, state, secret = (_under(start, tensors) for start in ("weights/", "state/", "secret/"))
        return cls(weights, state, tensors["at_home"], secret, layout, about)


def _under(start: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _save(path: Path, kind: str, tensors: Mapping[str, torch.Tensor], layout: Layout, meta: dict[str, Any]) -> None:
    grids = {name: [g.outputs, g.inputs, g.height, g.width] for name, g in layout.grids.items()}
    # One key only: safetensors writes several in random order, and equal puzzles should be equal files.
    header = {"scatterproof": json.dumps({"kind": kind, "version": 1, "layout": grids, "meta": meta})}
    with atomic(path) as temporary:
        save_file(unshared(tensors), temporary, header)


def _load(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], Layout, dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("scatterproof", "{}"))
            if header.get("kind") != kind:
                raise PuzzleError(f"{path}: no {kind}, found {header.get('kind', 'another safetensors file')}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise PuzzleError(f"{path}: no {kind}: {' '.join(str(error).split())}") from None
    layout = Layout({name: BlockGrid(*sizes) for name, sizes in header["layout"].items()})
    return tensors, layout, header["meta"]
