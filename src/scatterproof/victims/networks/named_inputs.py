"""Networks of several named inputs: what a row of numbers holds of each, and how a network gets them by name."""

import difflib
import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from scatterproof.victims.checkpoints import ModelError


class Part(NamedTuple):
    """A named input. whole: whether it is integers; shape: of one example."""

    name: str
    whole: bool
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its numbers in a row."""
        return math.prod(self.shape)


def parts_of(inputs: Mapping[str, str]) -> list[Part]:
    """The inputs of `victim.inputs` in the order of a row, which is that of their names."""
    parts = []
    for name, text in sorted(inputs.items()):
        kind, _, shape = text.removesuffix("]").partition("[")
        parts.append(Part(name, kind == "int", tuple(int(each) for each in shape.split(",") if each)))
    return parts


def with_named_inputs(model: nn.Module, inputs: Mapping[str, str], source: str) -> nn.Module:
    """The same network, which reads rows float [N, numbers] and calls its own `forward` with each input by name.

    source: says which network it is. Raises: ModelError where `forward` takes other arguments.
    """
    own, parts = type(model), parts_of(inputs)
    _check_arguments(own, inputs, source)

    def forward(self: nn.Module, rows: torch.Tensor) -> Any:
        given, begin = {}, 0
        for part in parts:
            one = rows[:, begin : begin + part.size].reshape(-1, *part.shape)
            given[part.name] = one.round().long() if part.whole else one
            begin += part.size
        return own.forward(self, **given)

    model.__class__ = type(own.__name__, (own,), {"forward": forward})  # a module around it would rename its layers
    return model


def _check_arguments(own: type[nn.Module], inputs: Mapping[str, str], source: str) -> None:
    arguments = list(inspect.signature(own.forward).parameters.values())[1:]
    names = [each.name for each in arguments if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    for name in inputs:
        if name not in names and not any(each.kind == each.VAR_KEYWORD for each in arguments):
            raise ModelError(
                f"{source}: its forward has no argument '{name}' of victim.inputs{_nearest(name, names)}, expected one "
                f"of: {', '.join(names)}"
            )
    needed = [each.name for each in arguments if each.name in names and each.default is each.empty]
    for name in needed:
        if name not in inputs:
            raise ModelError(
                f"{source}: its forward needs '{name}', which victim.inputs lacks{_nearest(name, list(inputs))}"
            )


def check_named(inputs: Mapping[str, str], layout: Mapping[str, str], file: str) -> None:
    """The study's inputs are those of the file. Raises: ModelError with the nearest name."""
    shown = "{" + ", ".join(f"{name}: '{text}'" for name, text in layout.items()) + "}"
    if layout and not inputs:
        raise ModelError(f"{file}: holds several named inputs, expected victim.inputs: {shown}")
    if inputs and not layout:
        raise ModelError(f"victim.inputs: {file} has no named inputs, expected arrays x_train.NAME and x_test.NAME")
    for name, text in inputs.items():
        if name not in layout:
            raise ModelError(f"victim.inputs '{name}': not in {file}{_nearest(name, list(layout))}, expected {shown}")
        if text.replace(" ", "") != layout[name]:
            raise ModelError(f"victim.inputs '{name}' is {text}, but in {file} {layout[name]}")
    for name in layout:
        if name not in inputs:
            raise ModelError(f"victim.inputs lacks '{name}' of {file}, expected {shown}")


def _nearest(name: str, others: list[str]) -> str:
    return "".join(f" (nearest: {near})" for near in difflib.get_close_matches(name, others, 1))
