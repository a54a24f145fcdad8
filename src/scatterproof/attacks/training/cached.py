"""The missing layers as a task to train: what lies before them is computed once, only the tail runs in training.

Where the first layer's input holds each channel several times, the weight is folded over the copies, as scoring does.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from scatterproof.attacks.training.fitting import Tensors
from scatterproof.evaluation.split import SplitModel, features, split_at, whole
from scatterproof.evaluation.trainable import copies
from scatterproof.puzzle import Puzzle
from scatterproof.running.seeds import seed_of
from scatterproof.victims.models import build_model, dense_layers

CHUNK = 500  # images through the head at once


@dataclass(frozen=True)
class Cached:
    """A `fitting.Task` over the missing layers' weights, by path, the first one folded.

    seen: what the head makes of the images, tensors [n, ...], the first folded; biases: of the missing layers.
    """

    split: SplitModel
    seen: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    biases: dict[str, torch.Tensor | None]
    copies: int

    def inputs(self, index: torch.Tensor, train: bool) -> tuple[torch.Tensor, ...]:
        """The same in training: a changed image would need the head again."""
        return tuple(values[index.to(values.device)] for values in self.seen)

    def logits(self, parameters: Tensors, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Logits [k, classes]."""
        first = self.split.first
        rest = {f"{name}.weight": weight for name, weight in parameters.items() if name != first}
        if first is not None:
            inputs = (F.linear(inputs[0], parameters[first], self.biases[first]), *inputs[1:])
        logits: torch.Tensor = functional_call(self.split.tail, rest, inputs) if rest else self.split.tail(*inputs)
        return logits

    def folded(self, weights: Tensors) -> dict[str, torch.Tensor]:
        """The layers' own weights as this task takes them: the first one's copies summed."""
        return {
            name: weight.view(len(weight), -1, self.copies).sum(-1) if name == self.split.first else weight
            for name, weight in weights.items()
        }

    def unfolded(self, weights: Tensors) -> dict[str, torch.Tensor]:
        """Of folded weights, or of a change of them, the least of the layers' own that do the same."""
        return {
            name: weight.repeat_interleave(self.copies, 1) / self.copies if name == self.split.first else weight
            for name, weight in weights.items()
        }


def cache(puzzle: Puzzle, device: torch.device) -> Cached:
    """The puzzle's missing layers as a task on its images, by labels or by the victim's logits."""
    model = puzzle.model().to(device).requires_grad_(False)
    split = split_at(model, list(puzzle.layout.grids))
    seen = _seen(puzzle, split, device)
    if seen is None:
        split = whole(model)
        seen = _seen(puzzle, split, device)
        assert seen is not None
    count = copies(seen[0]) if split.first else 1
    if count > 1:
        seen = (seen[0][..., ::count].contiguous(), *seen[1:])
    layers = dense_layers(model)
    return Cached(
        split, seen, targets(puzzle).to(device), {name: layers[name].bias for name in puzzle.layout.grids}, count
    )


def _seen(puzzle: Puzzle, split: SplitModel, device: torch.device) -> tuple[torch.Tensor, ...] | None:
    return features(split, (puzzle.inputs(part.to(device)) for part in puzzle.images.split(CHUNK)))


def targets(puzzle: Puzzle) -> torch.Tensor:
    """What is trained towards: the labels int64 [n], or the victim's probabilities [n, classes] (distillation: Hinton
    et al. 2015, https://arxiv.org/abs/1503.02531)."""
    if puzzle.labels is not None:
        return puzzle.labels
    assert puzzle.logits is not None
    return puzzle.logits.float().softmax(1)


def fresh_weights(puzzle: Puzzle, key: tuple[int | str, ...]) -> dict[str, torch.Tensor]:
    """The missing layers as a new network of the same kind begins with them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("fresh weights", *key))
        model: nn.Module = build_model(puzzle.config, puzzle.classes)
    layers = dense_layers(model)
    return {name: layers[name].weight.detach().clone() for name in puzzle.layout.grids}
