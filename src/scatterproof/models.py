"""Networks: the VGG family with a width multiplier, torchvision's classifiers, a user's own; their checkpoints."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from scatterproof.errors import UserError
from scatterproof.study import VictimConfig

# VGG configuration D of Simonyan & Zisserman 2014, https://arxiv.org/abs/1409.1556, as torchvision orders it.
_VGG16: list[int | str] = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]


class ModelError(UserError):
    """A network or checkpoint that does not fit the study, in one line."""


def build_model(config: VictimConfig, classes: int) -> nn.Module:
    """An untrained network that maps float [N, 3, size, size] to logits [N, classes].

    Raises: ModelError where the model does not exist or cannot be built.
    """
    if config.model in ("vgg16", "vgg16_bn"):
        return _vgg16(config, classes)
    source, _, name = config.model.partition(":")
    if source == "torchvision":
        from scatterproof.vision import torchvision

        if name not in torchvision.models.list_models(module=torchvision.models):
            raise ModelError(f"victim.model '{config.model}': torchvision has no classifier '{name}'")
        build = torchvision.models.get_model_builder(name)
        model = build(**({"num_classes": classes} | config.model_args))
    else:
        model = _own_function(config)(**config.model_args)
    if not isinstance(model, nn.Module):
        raise ModelError(f"victim.model '{config.model}' returned {type(model).__name__}, expected an nn.Module")
    return model


def _own_function(config: VictimConfig) -> Any:
    module, _, name = config.model.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"victim.model '{config.model}': expected MODULE:FUNCTION that can be imported: {error}"
        ) from None


def _vgg16(config: VictimConfig, classes: int) -> nn.Module:
    from scatterproof.vision import torchvision

    vgg = torchvision.models.vgg
    plan = [item if isinstance(item, str) else _scaled(item, config.width) for item in _VGG16]
    features = vgg.make_layers(plan, batch_norm=config.model == "vgg16_bn")
    if config.input_size == 28:
        _drop_last_poolings(features, 3)
    model = vgg.VGG(features, num_classes=classes, init_weights=False, dropout=config.dropout)
    hidden, flat = _scaled(4096, config.width), _scaled(512, config.width) * 49
    model.classifier[0] = nn.Linear(flat, hidden)
    model.classifier[3] = nn.Linear(hidden, hidden)
    model.classifier[6] = nn.Linear(hidden, classes)
    _initialise(model, config.width)
    assert isinstance(model, nn.Module)
    return model


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _drop_last_poolings(features: nn.Sequential, count: int) -> None:
    """Turn the last poolings into identities, so that parameter names stay torchvision's (28 -> 14 -> 7 pixels)."""
    poolings = [i for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    for i in poolings[-count:]:
        features[i] = nn.Identity()


def _initialise(model: nn.Module, width: float) -> None:
    """torchvision's own VGG initialisation; narrow dense layers get the spread that keeps its signal size."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01 / width**0.5)
            nn.init.zeros_(module.bias)


def dense_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Every dense layer by its path, in the order of the forward pass as far as registration shows it."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def find_layer(model: nn.Module, path: str) -> str:
    """The path of the dense layer that the study names, `largest` resolved.

    Raises: ModelError where the path is no dense layer.
    """
    layers = dense_layers(model)
    if path == "largest":
        if not layers:
            raise ModelError("victim.layer 'largest': the model has no dense layer (nn.Linear)")
        return max(layers, key=lambda name: layers[name].weight.numel())
    if path not in layers:
        try:
            what = type(model.get_submodule(path)).__name__
        except AttributeError:
            what = "nothing"
        raise ModelError(f"victim.layer '{path}' is {what}, expected a dense layer, one of: {', '.join(layers)}")
    return path


def read_checkpoint(path: Path | str) -> dict[str, torch.Tensor]:
    """A state dict from safetensors, or from what torch.load(weights_only=True) accepts.

    Raises: ModelError where the file is missing, damaged, holds other objects, or no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"victim.checkpoint '{path}': no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"victim.checkpoint '{path}': not readable: {_first_line(error)}") from None
    except Exception as error:  # pickle.UnpicklingError and its kin: anything but plain tensors
        raise ModelError(f"victim.checkpoint '{path}': refused: {_first_line(error)}") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(f"victim.checkpoint '{path}': expected a state dict of tensors")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load a state dict into a model of the same architecture.

    Raises: ModelError that names each tensor that is missing, left over, or of another shape.
    """
    own = model.state_dict()
    differences = [f"{name} is missing" for name in own if name not in state]
    differences += [f"{name} is not in the model" for name in state if name not in own]
    differences += [
        f"{name} is {list(state[name].shape)}, the model has {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if differences:
        shown = "; ".join(differences[:8]) + (f"; and {len(differences) - 8} more" if len(differences) > 8 else "")
        raise ModelError(f"{source}: checkpoint of another architecture: {shown}")
    model.load_state_dict(state)
