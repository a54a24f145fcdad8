"""Where in a layer what is not known may lie, and a core fitted there.

A weight that has lost directions shows which: its null space on the shorter side is their span. One whose hole was
filled shows the fill among its leading directions. Where blocks are missing, their entries are what is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from scatterproof.attacks.training.cached import Cached
from scatterproof.attacks.training.fitting import SMALLEST, Start, Tensors, size
from scatterproof.judging.ceilings.told import Directions, ToldLayers, core_sizes, directions

MISSING, NULL, WEAK = "missing", "null", "weak"


@dataclass(frozen=True)
class Span:
    """What a core [a, b] adds to a weight: unit * left @ core @ right, where `free` is.

    left [outputs, a] and right [b, inputs] as the task folds them, None for all; free bool [outputs, inputs], None for
    everywhere; unit: what the core is counted in, so that a core of zero trains as fast as a new layer's would.
    """

    left: torch.Tensor | None
    right: torch.Tensor | None
    free: torch.Tensor | None
    unit: float

    def weight(self, core: torch.Tensor) -> torch.Tensor:
        """[outputs, inputs]."""
        made = core if self.left is None else self.left @ core
        made = made if self.right is None else made @ self.right
        made = made if self.free is None else made * self.free
        return self.unit * made


@dataclass(frozen=True)
class CoreTask:
    """A `fitting.Task` over the cores of layers of which the rest, folded, is known."""

    cached: Cached
    known: Tensors
    spans: Mapping[str, Span]

    @property
    def targets(self) -> torch.Tensor:
        """Of the layers' task."""
        return self.cached.targets

    def inputs(self, index: torch.Tensor, train: bool) -> tuple[torch.Tensor, ...]:
        """Of the layers' task."""
        return self.cached.inputs(index, train)

    def weights(self, cores: Tensors) -> dict[str, torch.Tensor]:
        """The layers, folded."""
        return {name: self.known[name] + span.weight(cores[name]) for name, span in self.spans.items()}

    def logits(self, parameters: Tensors, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Logits [k, classes]."""
        return self.cached.logits(self.weights(parameters), inputs)

    def added(self, cores: Tensors) -> dict[str, torch.Tensor]:
        """What the cores add to the layers' own weights."""
        return self.cached.unfolded({name: span.weight(cores[name]) for name, span in self.spans.items()})

    @property
    def zero(self) -> dict[str, torch.Tensor]:
        """Cores that add nothing."""
        cores = {}
        for name, span in self.spans.items():
            outputs, inputs = self.known[name].shape
            rows = outputs if span.left is None else span.left.shape[1]
            columns = inputs if span.right is None else len(span.right)
            cores[name] = self.known[name].new_zeros(rows, columns)
        return cores


def core_tasks(told: ToldLayers, cached: Cached, fresh: Tensors) -> dict[str, tuple[CoreTask, dict[str, Start]]]:
    """For each support, by its name, the task and its starts. fresh: the layers as a new network has them, folded.

    Where blocks are missing their entries are the support, and begin as nothing or as new; the directions of what is
    known are supports where nothing is missing, and where the defence keeps directions.
    """
    device = cached.targets.device
    weights = {name: weight.to(device) for name, weight in told.weights.items()}
    known = cached.folded(weights)
    units = {name: size(fresh[name]) / SMALLEST for name in known}
    tasks: dict[str, tuple[CoreTask, dict[str, Start]]] = {}
    if told.lacks_blocks:
        absent = cached.folded({name: missing.float().to(device) for name, missing in told.missing.items()})
        spans = {name: Span(None, None, absent[name] > 0, units[name]) for name in known}
        task = CoreTask(cached, known, spans)
        new = {name: fresh[name] * (absent[name] > 0) / units[name] for name in known}
        tasks[MISSING] = task, {"zero": Start.at(task.zero), "fresh": Start.fresh(new)}
    if not told.lacks_blocks or told.rank is not None:
        shown = {name: directions(weight) for name, weight in weights.items()}
        for label, sides in _supports(shown, told.rank).items():
            folded = cached.folded({name: right for name, (_, right) in sides.items() if right is not None})
            spans = {name: Span(left, folded.get(name), None, units[name]) for name, (left, _) in sides.items()}
            task = CoreTask(cached, known, spans)
            tasks[label] = task, {"zero": Start.at(task.zero)}
    return tasks


Sides = tuple[torch.Tensor | None, torch.Tensor | None]


def _supports(shown: Mapping[str, Directions], rank: int | None) -> dict[str, dict[str, Sides]]:
    """By name, for each layer what spans the outputs and what the inputs."""
    most = max(min(len(each.right) for each in shown.values()) - 1, 1)
    supports: dict[str, dict[str, Sides]] = {}
    lost = max(each.lost for each in shown.values())
    if lost:
        supports[f"{NULL} {lost}"] = {name: _weakest(each, lost) for name, each in shown.items()}
    elif rank is not None:
        sizes = core_sizes(rank, most)
        supports = {f"{WEAK} {size}": {name: _weakest(each, size) for name, each in shown.items()} for size in sizes}
    for count in core_sizes(rank, most):
        left = {name: each.left[:, :count] for name, each in shown.items()}
        right = {name: each.right[:count] for name, each in shown.items()}
        supports[f"left {count}"] = {name: (left[name], None) for name in shown}
        supports[f"right {count}"] = {name: (None, right[name]) for name in shown}
        if rank is not None:
            supports[f"both {count}"] = {name: (left[name], right[name]) for name in shown}
    return supports


def _weakest(each: Directions, count: int) -> Sides:
    """The weakest directions of the shorter side."""
    wide = len(each.left) <= each.right.shape[1]
    return (each.left[:, -count:], None) if wide else (None, each.right[-count:])
