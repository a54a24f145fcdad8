"""What the pirate holds, and the truth that it never sees.

The puzzle carries only what the threat model grants: the layers that were not scattered, the scattered layers' biases,
the blocks held in a shuffled order, the pirate's images, and labels or logits computed beforehand. The answer is
another file. The shuffle's generator is derived from the victim and the threat alone, never from an attack's seed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from scatterproof.running.seeds import torch_generator
from scatterproof.victims.checkpoints import ModelError
from scatterproof.victims.data import Dataset, to_input
from scatterproof.victims.models import build_model, dense_layers, find_layer, load_weights


class PuzzleError(UserError):
    """A file that is no puzzle or answer, in one line."""


@dataclass(frozen=True)
class Puzzle:
    """What the pirate holds.

    blocks [held, height, width] in shuffled order, edges padded with zeros; shapes int64 [held, 2]; state: every
    tensor of the network but the scattered weights; images uint8 [n, C, H, W]; labels int64 [n] or logits
    [n, classes] where the threat grants them; base: the scattered weights of the public model that the victim started
    from, by the layer's name, where the threat grants it; mean, std: the network's input normalisation.
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

    def model(self) -> nn.Module:
        """The network in eval mode, the scattered weights zero."""
        model = build_model(self.config, self.classes)
        layers = dense_layers(model)
        empty = {f"{name}.weight": torch.zeros_like(layers[name].weight) for name in self.layout.grids}
        load_weights(model, self.state | empty, "puzzle")
        return model.eval()

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images as the network takes them."""
        return to_input(images, self.config.input_size, self.mean, self.std)

    @cached_property
    def digest(self) -> str:
        """Of all that the pirate holds; equal for equal puzzles."""
        digest = hashlib.blake2b(f"{self.config.model_dump_json()} {self.classes}".encode(), digest_size=16)
        given = (self.blocks, self.shapes, self.images, self.labels, self.logits)
        named = (part[name] for part in (self.state, self.base or {}) for name in sorted(part))
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
        meta = {
            "config": self.config.model_dump(),
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "threat": self.threat.model_dump(),
        }
        _save(path, "puzzle", tensors, self.layout, meta)

    @classmethod
    def load(cls, path: Path) -> "Puzzle":
        """Read a puzzle. Raises: PuzzleError."""
        tensors, layout, meta = _load(path, "puzzle")
        state, base = (
            {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
            for start in ("state/", "base/")
        )
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
        )


def with_images(puzzle: Puzzle, count: int) -> Puzzle:
    """The same puzzle with the first so many of its images."""
    first = slice(count)
    labels, logits = (None if each is None else each[first] for each in (puzzle.labels, puzzle.logits))
    threat = puzzle.threat.model_copy(update={"images": len(puzzle.images[first])})
    return replace(puzzle, images=puzzle.images[first], labels=labels, logits=logits, threat=threat)


@dataclass(frozen=True)
class Answer:
    """The truth: where each block of the puzzle belongs."""

    placement: Placement
    layout: Layout

    def save(self, path: Path) -> None:
        """Write atomically as one safetensors file."""
        _save(path, "answer", {"placement": self.placement.positions}, self.layout, {})

    @classmethod
    def load(cls, path: Path) -> "Answer":
        """Read an answer. Raises: PuzzleError."""
        tensors, layout, _ = _load(path, "answer")
        return cls(Placement(tensors["placement"], layout.positions), layout)


def scattered_layers(model: nn.Module, config: VictimConfig, scatter: str) -> list[str]:
    """Paths of the dense layers that are scattered: the study's one, or every one.

    Raises: ModelError where the study's is none, or a weight is shared with another tensor of the network.
    """
    layer = find_layer(model, config.layer)
    names = list(dense_layers(model)) if scatter == "dense" else [layer]
    state = model.state_dict(keep_vars=True)
    for name in names:
        shared = [key for key, value in state.items() if value is state[f"{name}.weight"] and key != f"{name}.weight"]
        if shared:  # the pirate would hold it under its other name
            raise ModelError(f"victim.layer '{name}': its weight is also {shared[0]}, expected one that is not shared")
    return names


def make_puzzle(
    model: nn.Module,
    config: VictimConfig,
    dataset: Dataset,
    threat: ThreatModel,
    block_size: int,
    victim: tuple[int | float | str, ...],
    base: nn.Module | None = None,
) -> tuple[Puzzle, Answer]:
    """Cut, draw the blocks held, shuffle them, and split what the pirate gets from what it must not see.

    victim: what names the model: the study's seed, the victim's name and its seed. With the block size and what the
    threat's name says is scattered and held, it seeds the draw, and nothing else does: wherever a puzzle is made it is
    the same, and threats that hold as many blocks hold the same ones, in the same order.
    base: the public model that the victim started from, given where the threat grants it alone.
    Raises: ValueError where the block is larger than the layer, the pirate has fewer images than granted, or the threat
    grants a base model and there is none.
    """
    if threat.base_model and base is None:
        raise ValueError("the threat grants a base model, and none is given")
    if threat.images > len(dataset.pirate.labels):
        raise ValueError(f"the threat grants {threat.images} images, the pirate has {len(dataset.pirate.labels)}")
    names = scattered_layers(model, config, threat.scatter)
    layers = dense_layers(model)
    weights = {name: layers[name].weight.detach().cpu() for name in names}
    layout = Layout.square({name: weight.shape for name, weight in weights.items()}, block_size)
    held = max(1, round(threat.share * layout.positions))
    generator = torch_generator("shuffle", *victim, block_size, threat.scatter, threat.share)
    order = torch.randperm(layout.positions, generator=generator)[:held]
    images = dataset.pirate.images[: threat.images]
    hidden = {f"{name}.weight" for name in names}
    puzzle = Puzzle(
        blocks=layout.cut(weights)[order].contiguous(),
        shapes=layout.shapes()[order].contiguous(),
        layout=layout,
        state={
            key: value.detach().cpu().contiguous() for key, value in model.state_dict().items() if key not in hidden
        },
        images=images,
        labels=dataset.pirate.labels[: threat.images] if threat.knows == "labels" else None,
        logits=logits_on(model, config, dataset, images) if threat.knows == "logits" else None,
        config=config.model_copy(
            update={"kind": "train", "checkpoint": None, "base": None}
        ),  # not where the whole model lies
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        threat=threat,
        base={name: dense_layers(base)[name].weight.detach().cpu() for name in names}
        if base is not None and threat.base_model
        else None,
    )
    return puzzle, Answer(Placement(order, layout.positions), layout)


@torch.inference_mode()
def logits_on(model: nn.Module, config: VictimConfig, dataset: Dataset, images: torch.Tensor) -> torch.Tensor:
    """A model's answers [n, classes] to images uint8 [n, C, H, W], on the CPU."""
    device = next(model.parameters()).device
    chunks = [to_input(part.to(device), config.input_size, dataset.mean, dataset.std) for part in images.split(500)]
    return torch.cat([model(chunk).float().cpu() for chunk in chunks])


def _save(path: Path, kind: str, tensors: Mapping[str, torch.Tensor], layout: Layout, meta: dict[str, Any]) -> None:
    grids = {name: [g.outputs, g.inputs, g.height, g.width] for name, g in layout.grids.items()}
    # One key only: safetensors writes several in random order, and equal puzzles should be equal files.
    header = {"scatterproof": json.dumps({"kind": kind, "version": 1, "layout": grids, "meta": meta})}
    with atomic(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, header)


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
