"""A defence applied to the scattered layers of a network, and the network as it is then served."""

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from scatterproof.blocks import BlockGrid, Layout
from scatterproof.config.settings.defences import DefenceSettings, defence_of
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import scattered_layers
from scatterproof.defences import make_defence
from scatterproof.defences.base import Defence, DefenceError, Floats, Layer, Secret, whole_work
from scatterproof.evaluation.split import features, following_layer, is_homogeneous, split_at
from scatterproof.evaluation.trainable import copies
from scatterproof.puzzle import Protected
from scatterproof.running.seeds import numpy_generator
from scatterproof.victims.data import Dataset, to_input
from scatterproof.victims.models import dense_layers, layer_inputs


def protect_network(
    model: nn.Module,
    layout: Layout,
    settings: DefenceSettings,
    images: torch.Tensor,
    key: tuple[int | float | str, ...],
    telling: Mapping[str, Floats] | None = None,
) -> Protected:
    """What a defence makes of the scattered layers of a network, one after the other.

    images float [n, 3, size, size]: as the network takes them, to tell which of a layer's inputs are copies; key: of
    the secret's draw; telling: what each layer's blocks tell, for a defence that chooses by it (`telling.py`).
    Raises: DefenceError.
    """
    defence, model = make_defence(settings), copy.deepcopy(model).cpu()
    folded = {name: _copies(model, name, images) for name in layout.grids}
    weights: dict[str, torch.Tensor] = {}
    secret: dict[str, torch.Tensor] = {}
    at_home = []
    work, before = np.zeros(2), np.zeros(2)
    on_devices, started = 0.0, time.perf_counter()
    for name, grid in layout.grids.items():
        layer = replace(described(model, name, grid, folded[name]), telling=(telling or {}).get(name))
        rng = numpy_generator("defence", *key, settings.label, name, grid.height)
        held = defence.protect(layer, rng)
        _write(model, name, held.weight, held.bias, held.reader)
        weights[name] = torch.from_numpy(np.ascontiguousarray(held.weight))
        secret |= {f"{name}/{each}": torch.from_numpy(np.ascontiguousarray(v)) for each, v in held.secret.items()}
        at_home.append(torch.from_numpy(held.at_home) + layout.offsets[name])
        work, before = work + defence.trusted_work(layer, held.secret), before + whole_work(layer)
        on_devices += defence.device_share(layer, held.secret) * layer.weight.size
    total = sum(grid.outputs * grid.inputs for grid in layout.grids.values())
    about = {
        "defence": settings.model_dump(),
        "setup_seconds": time.perf_counter() - started,
        "trusted_flops_share": float(work[0] / before[0]),
        "trusted_bytes_share": float(work[1] / before[1]),
        "device_flops_share": on_devices / total,
    }
    for name in layout.grids:  # a layer that is scattered itself may have been another's reader
        weights[name] = dense_layers(model)[name].weight.detach().clone()
    state = {name: value for name, value in model.state_dict().items() if name.removesuffix(".weight") not in weights}
    return Protected(weights, state, torch.cat(at_home), secret, layout, about)


def described(model: nn.Module, name: str, grid: BlockGrid, copied: int = 1) -> Layer:
    """A dense layer of a network as a defence sees it."""
    tail = split_at(model, [name]).tail
    reader = following_layer(tail)
    if reader is not None and split_at(model, [reader]).first is None:  # called twice: no change of it would be right
        reader = None
    layers = dense_layers(model)
    bias = layers[name].bias
    return Layer(
        name=name,
        weight=_array(layers[name].weight),
        bias=None if bias is None else _array(bias),
        height=grid.height,
        width=grid.width,
        reader=None if reader is None or _shared(model, reader) else _array(layers[reader].weight),
        homogeneous=is_homogeneous(tail),
        copies=copied,
    )


def check_defence(model: nn.Module, layout: Layout, settings: DefenceSettings) -> None:
    """Raises: DefenceError where a scattered layer can't be protected so; on the meta device too."""
    for name, grid in layout.grids.items():
        make_defence(settings).check(described(model, name, grid))


class ServedLayer(nn.Module):
    """A dense layer as devices and trusted party serve it together."""

    def __init__(self, defence: Defence, secret: Secret, on_devices: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.defence, self.secret = defence, secret
        self.on_devices, self.bias = _array(on_devices), bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs [..., outputs] of inputs [..., inputs]."""
        flat = _array(inputs.reshape(-1, inputs.shape[-1]))
        outputs = torch.from_numpy(self.defence.serve(flat, self.secret, lambda x: x @ self.on_devices.T))
        outputs = outputs if self.bias is None else outputs + self.bias
        return outputs.view(*inputs.shape[:-1], -1)


def served_network(model: nn.Module, protected: Protected) -> nn.Module:
    """The network with its scattered layers served, on the CPU, in eval mode."""
    defence = make_defence(defence_of(protected.about["defence"]))
    model = copy.deepcopy(model).cpu()
    model.load_state_dict(protected.state | {f"{name}.weight": w for name, w in protected.weights.items()})
    layout = protected.layout
    present = torch.arange(layout.positions)
    present[protected.at_home] = -1
    blocks = layout.cut(protected.weights)
    lines = torch.cat([blocks, torch.zeros_like(blocks[:1])]).flatten(0, 1)
    on_devices = layout.assemble(lines, present)
    for name, layer in dense_layers(model).items():
        if name in layout.grids:
            bias = None if layer.bias is None else layer.bias.detach()
            made = ServedLayer(defence, secret_of(protected.secret, name), on_devices[name], bias)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, made)
    return model.eval()


def secret_of(secret: Mapping[str, torch.Tensor], name: str) -> dict[str, Any]:
    """What the trusted party knows of one layer, as arrays."""
    start = f"{name}/"
    return {key.removeprefix(start): value.numpy() for key, value in secret.items() if key.startswith(start)}


def see_requests(
    model: nn.Module, layer: str, images: torch.Tensor, both: bool, protected: Protected | None
) -> dict[str, torch.Tensor]:
    """What the neighbours of a layer are given for requests: `inputs` [n, inputs], where `both` also `following`
    [n, outputs], the inputs of the layer that reads it, in the basis in which it is served.

    images float [n, 3, size, size]. Raises: DefenceError where no dense layer reads the outputs.
    """
    reader = following_layer(split_at(model, [layer]).tail)
    served = model if protected is None else served_network(model, protected)
    seen = {"inputs": torch.cat(layer_inputs(served, served.get_submodule(layer), [images]))}
    if both:
        if reader is None:
            raise DefenceError(f"activations: both, but no dense layer alone reads the outputs of {layer}")
        seen["following"] = torch.cat(layer_inputs(served, served.get_submodule(reader), [images]))
    return seen


def seen_under(
    threat: ThreatModel, model: nn.Module, config: VictimConfig, dataset: Dataset, protected: Protected | None
) -> dict[str, torch.Tensor]:
    """What the pirate sees of requests under a threat: of images that nobody else's numbers are made from, the pirate's
    own after those that the threat grants. Raises: DefenceError."""
    if not threat.requests:
        return {}
    asked = dataset.pirate.images[threat.images : threat.images + threat.requests]
    images = to_input(asked, config.input_size, dataset.mean, dataset.std)
    (layer,) = scattered_layers(model, config, threat.scatter)
    return see_requests(model, layer, images, threat.activations == "both", protected)


def _copies(model: nn.Module, name: str, images: torch.Tensor) -> int:
    split = split_at(model, [name])
    kept = features(split, [images])
    return copies(kept[0]) if split.first is not None and kept is not None else 1


def _write(model: nn.Module, name: str, weight: Floats, bias: Floats | None, reader: Floats | None) -> None:
    """What a defence has made of a layer and its reader, into the network."""
    layers = dense_layers(model)
    after = following_layer(split_at(model, [name]).tail)
    layers[name].weight.data = torch.from_numpy(np.ascontiguousarray(weight))
    if bias is not None:
        layers[name].bias.data = torch.from_numpy(np.ascontiguousarray(bias))
    if reader is not None and after is not None:
        layers[after].weight.data = torch.from_numpy(np.ascontiguousarray(reader))


def _shared(model: nn.Module, name: str) -> bool:
    state = model.state_dict(keep_vars=True)
    own = state[f"{name}.weight"]
    return any(value is own for key, value in state.items() if key != f"{name}.weight")


def _array(values: torch.Tensor) -> Floats:
    array: Floats = values.detach().cpu().float().numpy() if not values.is_meta else np.empty(values.shape, np.float32)
    return array
