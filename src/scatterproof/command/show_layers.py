"""The command `layers`: the dense layers of a network, what each is of it, and what the fingerprint reads of each."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scatterproof.command.text_table import aligned
from scatterproof.config.base import problems
from scatterproof.config.victim import BUILT_IN, HF, VictimConfig
from scatterproof.errors import UserError
from scatterproof.evaluation.readers import reading_weights
from scatterproof.evaluation.split import following_layer, split_at
from scatterproof.victims.hf.folder import HfFolder
from scatterproof.victims.models import answer, build_model, dense_layers, load_checkpoint, nearest

COLUMNS = ("layer", "outputs", "inputs", "parameter_share", "flop_share", "kind", "inputs_seen", "outputs_read_by")
HEAD = ("layer", "outputs x inputs", "parameters", "FLOPs", "kind", "its inputs", "its outputs are read by")


class LayersError(UserError):
    """A network whose layers can't be shown."""


@dataclass(frozen=True)
class LayerRow:
    """One dense layer. The FLOPs are None where it is not called as a module."""

    layer: str
    outputs: int
    inputs: int
    parameter_share: float
    flop_share: float | None
    kind: str
    inputs_seen: str
    outputs_read_by: str


def show_layers(
    model: str,
    width: float,
    input_size: int,
    classes: int,
    checkpoint: Path | None,
    as_csv: bool,
    model_args: dict[str, Any] | None = None,
) -> int:
    """Print the dense layers of a network named as `victim.model` names it; the exit status. Raises: UserError."""
    config = _config(model, width, input_size, model_args)
    network, images = _network(config, classes, checkpoint)
    rows, parameters, flops = layer_rows(network, config, images)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, column) for column in COLUMNS] for row in rows)
        return 0
    shape = list(images.shape[1:])
    what = f"a text of {shape[0]} tokens" if images.ndim == 2 else f"an image of {shape[-1]} x {shape[-1]}"
    print(f"{model}: {parameters:,} parameters, {flops:,} FLOPs for {what}\n")
    print(aligned([HEAD, *map(_cells, rows)]))
    return 0


def _config(model: str, width: float, input_size: int, model_args: dict[str, Any] | None) -> VictimConfig:
    if model not in BUILT_IN and ":" not in model:
        from scatterproof.victims.vision import torchvision

        others = torchvision.models.list_models(module=torchvision.models)
        near = nearest(model, [*BUILT_IN, *(f"torchvision:{name}" for name in others)])
        near = near or nearest(f"torchvision:{model}", [f"torchvision:{name}" for name in others])
        expected = f"{', '.join(BUILT_IN)}, torchvision:NAME, hf:FOLDER or MODULE:FUNCTION"
        raise LayersError(f"MODEL '{model}': expected {expected}{near}")
    try:
        return VictimConfig(model=model, width=width, input_size=input_size, model_args=model_args or {})
    except ValidationError as error:
        raise LayersError("; ".join(problems(error, "victim."))) from None


def _network(config: VictimConfig, classes: int, checkpoint: Path | None) -> tuple[nn.Module, torch.Tensor]:
    """The network in eval mode and an image for it; a VGG without its memory where no weights are read."""
    size = (1, 3, config.input_size, config.input_size)
    if config.model.startswith(HF):
        folder = HfFolder.read(config.model, weights=False)
        classes = folder.classes or classes
        config = config.model_copy(update={"input_size": folder.image_size or config.input_size})
    if checkpoint is None and config.model in BUILT_IN:
        with torch.device("meta"):
            return build_model(config, classes).eval(), torch.zeros(size)
    model = build_model(config, classes)
    if checkpoint is not None:
        load_checkpoint(model, str(checkpoint), "--checkpoint")
    if config.model.startswith(HF):
        return model.eval(), model.example()[:1]  # type: ignore[operator]
    return model.eval(), torch.zeros(size)


def layer_rows(model: nn.Module, config: VictimConfig, images: torch.Tensor) -> tuple[list[LayerRow], int, int]:
    """Every dense layer of an eval-mode network, its parameters, and the FLOPs of its products on these images.

    Raises: LayersError where it has no dense layer; ModelError where it fails on the images.
    """
    layers = dense_layers(model)
    if not layers:
        raise LayersError(f"victim.model '{config.model}': has no dense layer (nn.Linear)")
    calls, flops, logits = _calls(model, config, layers, images)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = []
    for name, layer in layers.items():
        own = sum(parameter.numel() for parameter in layer.parameters())
        cost = 2 * layer.weight.numel() * sum(calls[name])
        rows.append(
            LayerRow(
                name,
                layer.out_features,
                layer.in_features,
                own / parameters,
                cost / flops if calls[name] else None,
                _kind(model, name, calls[name], len(images), name == logits),
                "on the pirate's images" if calls[name] else "never: it is not called as a module",
                "nothing: they give the logits" if name == logits else _readers(model, name),
            )
        )
    return rows, parameters, flops


def _calls(
    model: nn.Module, config: VictimConfig, layers: dict[str, nn.Linear], images: torch.Tensor
) -> tuple[dict[str, list[int]], int, str | None]:
    """For each layer the rows of inputs of each call; the FLOPs of all products; the layer that gives the logits."""
    calls: dict[str, list[int]] = {name: [] for name in layers}
    order: list[str] = []

    def hook(name: str) -> Any:
        def see(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            calls[name].append(output.numel() // output.shape[-1])
            order.append(name)

        return see

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    model.requires_grad_(False)  # the counter follows weights that are passed on, but for these
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see into it
    try:
        with FlopCounterMode(display=False) as counter:
            logits = answer(model, config, images.to(next(iter(layers.values())).weight.device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
    if not isinstance(logits, torch.Tensor):
        raise LayersError(
            f"victim.model '{config.model}': answers {type(logits).__name__}, expected a tensor of logits"
        )
    last = order[-1] if order and layers[order[-1]].out_features == logits.shape[-1] else None
    return calls, counter.get_total_flops(), last


def _kind(model: nn.Module, name: str, calls: list[int], images: int, last: bool) -> str:
    """What kind of layer it is, in words."""
    layer, above = model.get_submodule(name), model.get_submodule(name.rpartition(".")[0])
    if isinstance(above, nn.MultiheadAttention):  # of a kind that keeps its own form
        return "output of nn.MultiheadAttention"
    if not calls:
        return "not called"
    parts = ["last layer" if last else "hidden layer"]
    if calls[0] > images:
        parts.append(f"of {calls[0] // images} tokens an input")
    if len(calls) > 1:
        parts.append(f"called {len(calls)} times")
    if layer.bias is None:
        parts.append("without a bias")
    return ", ".join(parts)


def _readers(model: nn.Module, name: str) -> str:
    """What the attack finds of those that read a layer's outputs, in words."""
    split = split_at(model, [name])
    if split.first is None:
        return "unknown: the network can't be cut at this layer"
    following = following_layer(split.tail)
    if following is not None:
        return following
    weights = reading_weights(split.tail)
    if weights is not None:
        return f"{len(weights)} outputs of dense layers further down"
    left = "" if dense_layers(model)[name].bias is None else "; its own biases are left"
    return f"no dense layer that is found{left}"


def _cells(row: LayerRow) -> tuple[str, ...]:
    return (
        row.layer,
        f"{row.outputs} x {row.inputs}",
        f"{100 * row.parameter_share:.1f} %",
        "-" if row.flop_share is None else f"{100 * row.flop_share:.1f} %",
        row.kind,
        row.inputs_seen,
        row.outputs_read_by,
    )
