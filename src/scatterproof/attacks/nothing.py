"""The pirate that does without the layer: what every copy must beat.

It puts something in the layer's place that it knows without any block: zero, so that its bias alone is left; its mean,
where running statistics after it tell what that does; its inputs passed on, as if a residual led around it; or fresh
weights, of several draws. What its own images speak for is taken: by their labels or the victim's logits where it has
those, else by what the answers say of the images, their mutual information (Bridle et al., NeurIPS 1991,
https://papers.nips.cc/paper/1991/hash/a8abb4bb284b5b27aa7cb790dc20f80b-Abstract.html). Answers that say little speak
for nothing: where no residual leads around the layer, draws whose answers say more are no more often right. The layer
then is zero, as it is without images.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import fx, nn
from torch.func import functional_call
from torch.nn import functional as F

from scatterproof.attacks.base import Attack, Copy, Reached, Run
from scatterproof.attacks.training.base import named
from scatterproof.attacks.training.cached import fresh_weights, targets
from scatterproof.attacks.training.fitting import held_out_loss
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.training import NothingSettings
from scatterproof.evaluation.split import ELEMENTWISE_MODULES, SplitModel, features, split_at, whole
from scatterproof.evaluation.trainable import copies
from scatterproof.puzzle import Puzzle
from scatterproof.victims.models import dense_layers

MOST_IMAGES = 500  # that it looks at
SPEAKING = 0.5  # of what the classes could say of an image, below which answers speak for nothing
ZERO = "zero"
Tensors = dict[str, torch.Tensor]


class Nothing(Attack[NothingSettings]):
    """The network with the scattered layers zero, or with what its own images prefer to that."""

    name: ClassVar[str] = "nothing"
    Settings = NothingSettings
    reads: ClassVar[tuple[Known, ...]] = ("none", "labels", "logits")

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Reached]:
        """The one step."""
        if not len(puzzle.images):
            yield Copy({})
            return
        rest = Rest.of(puzzle, run.machine.device)
        stand_ins = self.stand_ins(puzzle, rest, run)
        scores = {name: score(puzzle, rest.logits(tensors)) for name, tensors in stand_ins.items()}
        best = max(scores, key=lambda name: scores[name])  # of equals the first
        if puzzle.threat.knows == "none" and scores[best] < SPEAKING * _most(puzzle):
            best = ZERO
        print(f"{self.name}: {best} of {', '.join(f'{name} {value:.3f}' for name, value in scores.items())}")
        yield Copy({name: value.cpu() for name, value in stand_ins[best].items()})

    def stand_ins(self, puzzle: Puzzle, rest: "Rest", run: Run) -> dict[str, Tensors]:
        """By name, the tensors that are laid over the network's."""
        grids, made = puzzle.layout.grids, {ZERO: {}, "mean": _means(rest.model, puzzle.layout.grids)}
        copied = {name: rest.copies if name == rest.split.first else 1 for name in grids}
        made["skip"] = named({name: passing(each.outputs, each.inputs, copied[name]) for name, each in grids.items()})
        for draw in range(self.settings.redraws):
            made[f"redraw {draw}"] = named(fresh_weights(puzzle, ("attack", self.name, *run.key, draw)))
        return made


@dataclass(frozen=True)
class Rest:
    """The network without the scattered layers, and what lies before them computed once on the pirate's images."""

    model: nn.Module
    split: SplitModel
    seen: tuple[torch.Tensor, ...]
    copies: int

    @classmethod
    def of(cls, puzzle: Puzzle, device: torch.device) -> "Rest":
        model = puzzle.model().to(device).requires_grad_(False)
        images = (puzzle.inputs(puzzle.images[:MOST_IMAGES].to(device)),)
        split = split_at(model, list(puzzle.layout.grids))
        seen = features(split, images)
        if seen is None:
            split, seen = whole(model), images
        return cls(model, split, seen, copies(seen[0]) if split.first else 1)

    @torch.inference_mode()
    def logits(self, tensors: Tensors) -> torch.Tensor:
        """Logits [n, classes] with these tensors laid over the network's."""
        here = {name: value.to(self.seen[0].device) for name, value in tensors.items()}
        seen, first = tuple(each.clone() for each in self.seen), self.split.first
        if first is not None:
            layer = dense_layers(self.model)[first]
            outputs = F.linear(seen[0], here.pop(f"{first}.weight", layer.weight), layer.bias)
            seen = (outputs, *seen[1:])
        logits: torch.Tensor = functional_call(self.split.tail, here, seen)
        return logits


def score(puzzle: Puzzle, logits: torch.Tensor) -> float:
    """What the pirate's images say for these logits of theirs, higher is better: minus their loss, or in nats what the
    answers say of the images: the entropy of all of them together less that of each. Minus infinity where one isn't
    finite."""
    if puzzle.threat.knows != "none":
        return -held_out_loss(logits, targets(puzzle)[: len(logits)].to(logits.device))
    if puzzle.task in ("regression", "embedding"):  # numbers say nothing of an input that could be weighed
        return 0.0 if bool(logits.isfinite().all()) else -torch.inf
    values = logits.double()
    chances = values.softmax(1) if puzzle.task == "classification" else values.sigmoid()
    surprise = torch.special.entr
    if puzzle.task == "multilabel":
        each, together = ((surprise(of) + surprise(1 - of)).sum(-1).mean() for of in (chances, chances.mean(0)))
    else:
        each, together = (surprise(of).sum(-1).mean() for of in (chances, chances.mean(0)))
    return float((together - each).nan_to_num(nan=-torch.inf))


def _most(puzzle: Puzzle) -> float:
    """What answers can say of an image at most, in nats."""
    return puzzle.classes * log(2) if puzzle.task == "multilabel" else log(puzzle.classes)


def passing(outputs: int, inputs: int, copied: int) -> torch.Tensor:
    """A weight [outputs, inputs] that passes the first inputs on, each with all its copies; outputs beyond them get
    nothing."""
    weight = torch.eye(outputs, inputs // copied)
    return weight.repeat_interleave(copied, 1) / copied


def _means(model: nn.Module, layers: Iterable[str]) -> Tensors:
    """The running means of batch norms after these layers, made equal to what the zero layers put out, which never
    changes: the norms then give what they give for the mean. None where no batch norm follows through functions of
    single values."""
    means: Tensors = {}
    for name in layers:
        layer, tail = dense_layers(model)[name], split_at(model, [name]).tail
        constant = torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias.detach().clone()
        for module, path in _in_line(tail):
            if (
                isinstance(module, nn.BatchNorm1d)
                and module.num_features == len(constant)
                and module.track_running_stats
            ):
                means[f"{path}.running_mean"] = constant
            if not isinstance(module, ELEMENTWISE_MODULES):
                break
            constant = module(constant)
    return means


def _in_line(tail: nn.Module) -> Iterator[tuple[nn.Module | None, str]]:
    """The modules, and their paths, that one after the other alone read the cut layer's outputs; None for what is no
    module."""
    if not isinstance(tail, fx.GraphModule):
        return
    node = next(iter(tail.graph.nodes))
    while len(node.users) == 1:
        node = next(iter(node.users))
        yield (tail.get_submodule(str(node.target)) if node.op == "call_module" else None), str(node.target)
