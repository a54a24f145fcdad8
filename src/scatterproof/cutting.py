"""Cutting a victim into a puzzle and its answer.

The shuffle's generator is derived from the victim and the threat alone, never from an attack's seed.
"""

import torch
from torch import nn

from scatterproof.blocks import Layout, Placement
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.puzzle import Answer, Protected, Puzzle
from scatterproof.running.seeds import torch_generator
from scatterproof.victims.checkpoints import ModelError
from scatterproof.victims.data import Dataset, to_input
from scatterproof.victims.models import dense_layers, find_layer, find_layers


def scattered_layers(model: nn.Module, config: VictimConfig, scatter: str) -> list[str]:
    """Paths of the dense layers that are scattered: the study's one, or every one that `victim.layers` names.

    Raises: ModelError where the study's is none, or a weight is shared with another tensor of the network.
    """
    layer = find_layer(model, config.layer)
    names = find_layers(model, config.layers) if scatter == "dense" else [layer]
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
    protected: Protected | None = None,
    seen: dict[str, torch.Tensor] | None = None,
) -> tuple[Puzzle, Answer]:
    """Cut, draw the blocks held, shuffle them, and split what the pirate gets from what it must not see.

    victim: what names the model: the study's seed, the victim's name and its seed. With the block size and what the
    threat's name says is scattered, defended and held, it seeds the draw, and nothing else does: wherever a puzzle is
    made it is the same, and threats that hold as many blocks hold the same ones, in the same order.
    base: the public model that the victim started from; protected: what the threat's defence has made of the layers, in
    blocks of this size; seen: the activations of requests; each given where the threat grants it alone.
    Raises: ValueError where the block is larger than the layer, the pirate has fewer images than granted, or the threat
    grants what is not given.
    """
    _check_granted(threat, dataset, base, protected, seen)
    names = scattered_layers(model, config, threat.scatter)
    layers = dense_layers(model)
    weights = {name: layers[name].weight.detach().cpu() for name in names}
    layout = Layout.square({name: weight.shape for name, weight in weights.items()}, block_size)
    hidden = {f"{name}.weight" for name in names}
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items() if key not in hidden}
    scattered, secret = torch.arange(layout.positions), {}
    if protected is not None:
        weights, state, secret = protected.weights, state | protected.state, protected.secret
        scattered = scattered[~torch.isin(scattered, protected.at_home)]
    held = max(1, round(threat.share * len(scattered)))
    key = ("shuffle", *victim, block_size, threat.scatter, threat.share)
    generator = torch_generator(*key, *([threat.defence.label] if threat.defended else []))
    order = scattered[torch.randperm(len(scattered), generator=generator)[:held]]
    images = dataset.pirate.images[: threat.images]
    puzzle = Puzzle(
        blocks=layout.cut(weights)[order].contiguous(),
        shapes=layout.shapes()[order].contiguous(),
        layout=layout,
        state=state,
        images=images,
        labels=dataset.pirate.labels[: threat.images] if threat.knows == "labels" else None,
        logits=logits_on(model, config, dataset, images) if threat.knows == "logits" else None,
        # not where the whole model lies
        config=config.model_copy(update={"kind": "train", "checkpoint": None, "base": None}),
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        threat=threat,
        base={name: dense_layers(base)[name].weight.detach().cpu() for name in names}
        if base is not None and threat.base_model
        else None,
        seen=seen or {},
        task=dataset.task,
    )
    return puzzle, Answer(Placement(order, layout.positions), layout, dict(secret))


def _check_granted(
    threat: ThreatModel,
    dataset: Dataset,
    base: nn.Module | None,
    protected: Protected | None,
    seen: dict[str, torch.Tensor] | None,
) -> None:
    """Raises: ValueError where the threat grants what is not given, or hands on what it does not grant."""
    if threat.base_model and base is None:
        raise ValueError("the threat grants a base model, and none is given")
    if threat.images > len(dataset.pirate.labels):
        raise ValueError(f"the threat grants {threat.images} images, the pirate has {len(dataset.pirate.labels)}")
    if threat.defended != (protected is not None):
        raise ValueError(f"the threat's defence is {threat.defence.label}, and the layer given is not protected so")
    if bool(threat.requests) != bool(seen):
        raise ValueError(f"the threat grants activations of {threat.requests} requests, and others are given")


@torch.inference_mode()
def logits_on(model: nn.Module, config: VictimConfig, dataset: Dataset, images: torch.Tensor) -> torch.Tensor:
    """A model's answers [n, classes] to images uint8 [n, C, H, W], on the CPU."""
    device = next(model.parameters()).device
    chunks = [to_input(part.to(device), config.input_size, dataset.mean, dataset.std) for part in images.split(500)]
    return torch.cat([model(chunk).float().cpu() for chunk in chunks])
