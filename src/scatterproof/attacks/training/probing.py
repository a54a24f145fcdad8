"""The network of the linear probe: the known layers up to the withheld one, and one dense layer from there to logits.

A model that `VictimConfig.model` can name, so that a copy of it is scored as any other.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from scatterproof.attacks.base import AttackError
from scatterproof.config.victim import VictimConfig
from scatterproof.evaluation.split import split_at
from scatterproof.puzzle import Puzzle
from scatterproof.victims.models import build_model

Head = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


class ProbeNetwork(nn.Module):
    """Logits [n, classes] from what the head hands to the withheld layer; tokens are strung together."""

    def __init__(self, head: Head, features: int, classes: int) -> None:
        super().__init__()
        self.head = head
        self.probe = nn.Linear(features, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.probe(self.head(images)[0].flatten(1))
        return logits


def network(victim: Mapping[str, Any], layers: Sequence[str], features: int, classes: int) -> nn.Module:
    """An untrained probe of this victim, in front of the first of these layers."""
    model = build_model(VictimConfig.model_validate(victim), classes).eval()
    return ProbeNetwork(split_at(model, layers).head, features, classes)


def probe_config(puzzle: Puzzle, features: int) -> VictimConfig:
    """What `build_model` makes the puzzle's probe from."""
    arguments = {
        "victim": puzzle.config.model_dump(),
        "layers": list(puzzle.layout.grids),
        "features": features,
        "classes": puzzle.classes,
    }
    model = f"{__name__}:{network.__name__}"
    return VictimConfig(model=model, model_args=arguments, input_size=puzzle.config.input_size)


def probe_tensors(puzzle: Puzzle, weight: torch.Tensor, bias: torch.Tensor) -> dict[str, torch.Tensor]:
    """The state of that network with the known layers and a probe of weight [classes, features] and bias [classes].

    Raises: AttackError where the network can't be cut before the layer.
    """
    split = split_at(puzzle.model(), list(puzzle.layout.grids))
    if split.first is None:
        raise AttackError("probe needs a network that torch.fx can trace and cut before the layer")
    made = ProbeNetwork(split.head, weight.shape[1], len(weight))
    return {**made.state_dict(), "probe.weight": weight, "probe.bias": bias}
