"""Networks: the VGG family, torchvision's classifiers, folders of transformers, a user's own; their checkpoints."""

import difflib
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scatterproof.config.victim import HF, VictimConfig, layer_pattern
from scatterproof.victims.checkpoints import FLOATS, ModelError, check_finite, dtype_name, read_checkpoint
from scatterproof.victims.networks.attention import with_projections
from scatterproof.victims.networks.named_inputs import with_named_inputs
from scatterproof.victims.networks.vgg import VGG16
from scatterproof.victims.vision import allow_torchvision

SHOWN = 8  # differences of a checkpoint that an error names


def _vgg(config: VictimConfig, classes: int) -> nn.Module:
    return VGG16(classes, config.width, config.model == "vgg16_bn", config.dropout, copy_free=config.input_size == 28)


FAMILIES: dict[str, Callable[[VictimConfig, int], nn.Module]] = {"vgg16": _vgg, "vgg16_bn": _vgg}


def nearest(name: str, others: Sequence[str]) -> str:
    """For an error: the name that is most like this one, in brackets; empty where none is."""
    return "".join(f" (nearest: {near})" for near in difflib.get_close_matches(name, others, 1))


def build_model(config: VictimConfig, classes: int) -> nn.Module:
    """An untrained network that maps inputs, of images float [N, 3, size, size], to logits [N, classes].

    Of a folder of transformers the configuration alone is read.

    Raises: ModelError where the model does not exist or cannot be built.
    """
    if config.model in FAMILIES:
        return FAMILIES[config.model](config, classes)
    if config.model.startswith(HF):
        from scatterproof.victims.hf.text_network import hf_network

        return hf_network(config, classes)
    source, _, name = config.model.partition(":")
    if source == "torchvision":
        from scatterproof.victims.vision import torchvision

        if name not in torchvision.models.list_models(module=torchvision.models):
            near = nearest(name, torchvision.models.list_models(module=torchvision.models))
            raise ModelError(f"victim.model '{config.model}': torchvision has no classifier '{name}'{near}")
        build = torchvision.models.get_model_builder(name)
        arguments = {"num_classes": classes} | config.model_args
    else:
        build, arguments = _own_function(config), config.model_args
    try:
        model = build(**arguments)
    except Exception as error:  # a user's function may fail in any way it likes
        raise ModelError(f"victim.model '{config.model}' with {arguments} failed: {_first_line(error)}") from None
    if not isinstance(model, nn.Module):
        raise ModelError(f"victim.model '{config.model}' returned {type(model).__name__}, expected an nn.Module")
    model = with_projections(model)
    return with_named_inputs(model, config.inputs, f"victim.model '{config.model}'") if config.inputs else model


def _own_function(config: VictimConfig) -> Any:
    allow_torchvision()
    module, _, name = config.model.partition(":")
    if str(Path.cwd()) not in sys.path:  # a script's own folder is there, the one it was called from is not
        sys.path.append(str(Path.cwd()))
    expected = f"victim.model '{config.model}': expected MODULE:FUNCTION that can be imported"
    try:
        source = importlib.import_module(module)
    except Exception as error:  # whatever the module raises while it is imported
        raise ModelError(f"{expected}: {_first_line(error)}") from None
    if not hasattr(source, name):
        near = nearest(name, [each for each, value in vars(source).items() if callable(value)])
        raise ModelError(f"{expected}: module '{module}' has no attribute '{name}'{near}")
    return getattr(source, name)


def dense_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Every dense layer by its path, in the order of the forward pass as far as registration shows it.

    A layer whose weight is computed (weight norm, say) holds no block of it, and is none.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "weight" in module._parameters
    }


def layer_inputs(model: nn.Module, layer: nn.Module, batches: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """What the layer reads [n, inputs] in each call while the model runs on these; empty if it is never called.

    What stands for padding is left out where the model says what that is.
    """
    seen: list[torch.Tensor] = []

    def see(_: nn.Module, positional: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        inputs = (*positional, *named.values())[0]
        seen.append(inputs.reshape(-1, inputs.shape[-1]))

    real, kept = getattr(model, "real", None), []
    with layer.register_forward_pre_hook(see, with_kwargs=True), torch.inference_mode():
        for batch in batches:
            model(batch)
            mask = None if real is None else real(batch).flatten()
            kept += [each if mask is None or len(each) != len(mask) else each[mask] for each in seen]
            seen.clear()
    return kept


def find_layer(model: nn.Module, path: str) -> str:
    """The path of the dense layer that the study names, `largest` resolved.

    Raises: ModelError where the path is no dense layer.
    """
    layers = dense_layers(model)
    if path == "largest":
        largest = largest_layer(model)
        if largest is None:
            raise ModelError(
                "victim.layer 'largest': the model has no dense layer (nn.Linear) with a weight of its own"
            )
        return largest
    if path not in layers:
        try:
            what = type(model.get_submodule(path)).__name__
        except AttributeError:
            what = "nothing"
        raise ModelError(f"victim.layer '{path}' is {what}, expected a dense layer, one of: {', '.join(layers)}")
    return path


def largest_layer(model: nn.Module) -> str | None:
    """The path of the largest dense layer that shares its weight with nothing, as a tied one does with an embedding."""
    counts = Counter(id(value) for value in model.state_dict(keep_vars=True).values())
    own = {name: layer for name, layer in dense_layers(model).items() if counts[id(layer.weight)] == 1}
    return max(own, key=lambda name: own[name].weight.numel()) if own else None


def find_layers(model: nn.Module, patterns: Sequence[str] | None, key: str = "victim.layers") -> list[str]:
    """The paths of the dense layers that these patterns name, in the network's order; None: of all of them.

    `*` stands for any part of a name between two dots, `**` for any names. key: of the study that has the patterns.
    Raises: ModelError where one names none.
    """
    names = list(dense_layers(model))
    if patterns is None:
        return names
    named = [(pattern, [name for name in names if layer_pattern(pattern).fullmatch(name)]) for pattern in patterns]
    for pattern, some in named:
        if not some:
            raise ModelError(f"{key} '{pattern}': names no dense layer{nearest(pattern, names)}, expected one")
    return [name for name in names if any(name in some for _, some in named)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load a state dict into a model of the same architecture.

    Raises: ModelError that names each tensor that is missing, left over, or of another shape.
    """
    own = model.state_dict()
    surplus = [name for name in state if name not in own]
    missing = [name for name in own if name not in state]
    differences = [f"{name} is missing{nearest(name, surplus)}" for name in missing[:SHOWN]]
    differences += [f"{name} is missing" for name in missing[SHOWN:]]
    differences += [f"{name} is not in the model" for name in surplus]
    differences += [
        f"{name} is {list(state[name].shape)}, the model has {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if differences:
        shown = "; ".join(differences[:SHOWN])
        shown += f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise ModelError(f"{source}: checkpoint of another architecture: {shown}")
    for name, value in own.items():
        if state[name].dtype != value.dtype:
            _check_dtype(state[name], value, f"{source}: {name}")
    model.load_state_dict(state)


def _check_dtype(value: torch.Tensor, own: torch.Tensor, where: str) -> None:
    """Values of another type mean the same in the model's: floats that stay finite, integers that stay equal."""
    if own.dtype in FLOATS and value.dtype in FLOATS:
        check_finite(value.to(own.dtype), None, f"{where}, {dtype_name(value.dtype)} as {dtype_name(own.dtype)},")
        return
    whole = not (own.is_floating_point() or own.is_complex() or value.is_complex())
    if not whole or not torch.equal(value.to(own.dtype).to(value.dtype), value):
        raise ModelError(f"{where} is {dtype_name(value.dtype)}, expected {dtype_name(own.dtype)} as in the model")


def load_checkpoint(model: nn.Module, path: str, key: str) -> None:
    """Load a user's checkpoint into a model of the same architecture. key: of the study. Raises: ModelError."""
    load_weights(model, read_checkpoint(path, key, model), f"{key} '{path}'")


def load_base(model: nn.Module, path: str) -> None:
    """Load a public model's weights, its last dense layer left out where it has another shape: other classes.

    Raises: ModelError where anything else does not fit.
    """
    source = f"victim.base '{path}'"
    state = read_checkpoint(path, "victim.base", model)
    layers = dense_layers(model)
    last = list(layers)[-1] if layers else ""
    own = model.state_dict()
    other = {
        name
        for name in own
        if name.rpartition(".")[0] == last and name in state and state[name].shape != own[name].shape
    }
    head = {name for name in own if other and name.rpartition(".")[0] == last}
    load_weights(model, {**state, **{name: own[name] for name in head}}, source)


def read_victim(config: VictimConfig, seed: int, classes: int, images: torch.Tensor, what: str = "images") -> nn.Module:
    """The network with the user's own weights for this seed, in eval mode, tried on inputs as `answer` does.

    Raises: ModelError, also where the weights can't be those of a trained network.
    """
    if config.checkpoint is None:
        from scatterproof.victims.hf.weights import read_folder

        source = f"victim.model '{config.model}'"
        model: nn.Module = read_folder(config, classes)
        layer = find_layer(model, config.layer)
    else:
        path = config.checkpoint.replace("{seed}", str(seed))
        model, source = build_model(config, classes), f"victim.checkpoint '{path}'"
        layer = find_layer(model, config.layer)
        load_checkpoint(model, path, "victim.checkpoint")
    weight = dense_layers(model)[layer].weight.detach().flatten()
    if len(weight) > 1 and bool((weight == weight[0]).all()):
        raise ModelError(f"{source}: {layer}.weight is {float(weight[0])} throughout, expected weights that differ")
    logits = answer(model.eval(), config, images, what)
    if isinstance(logits, torch.Tensor) and not bool(logits.isfinite().all()):
        raise ModelError(f"{source}: the model answers NaN or infinity, expected finite logits")
    return model


def answer(model: nn.Module, config: VictimConfig, images: torch.Tensor, what: str = "images") -> Any:
    """What the model makes of a network's inputs. what: they are, for errors. Raises: ModelError."""
    try:
        with torch.inference_mode():
            return model(images)
    except Exception as error:  # a user's model may fail in any way it likes
        shape = list(images.shape)
        raise ModelError(f"victim.model '{config.model}' fails on {what} {shape}: {_first_line(error)}") from None


def load_model(config: VictimConfig, classes: int, path: Path | str) -> nn.Module:
    """The network with a checkpoint's weights, in eval mode. Raises: ModelError."""
    model = build_model(config, classes)
    load_checkpoint(model, str(path), "model")
    return model.eval()
