"""A linear probe on the withheld layer's inputs, trained on the pirate's images. See base.py for what it is for."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from scatterproof.attacks.base import AttackError, Copy, Run
from scatterproof.attacks.training.base import Training
from scatterproof.attacks.training.cached import cache
from scatterproof.attacks.training.fitting import Fit, Start, Tensors
from scatterproof.attacks.training.probing import probe_config, probe_tensors
from scatterproof.config.settings.training import ProbeSettings
from scatterproof.puzzle import Puzzle
from scatterproof.running.seeds import torch_generator


class Probe(Training[ProbeSettings]):
    """A linear probe: one new dense layer from the withheld layer's inputs to the classes, nothing after it used.

    Alain & Bengio 2016, https://arxiv.org/abs/1610.01644.
    """

    name = "probe"
    Settings = ProbeSettings

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """The one step. Raises: AttackError where the network can't be cut before the layer."""
        task = cache(puzzle, run.machine.device)
        if task.split.first is None:
            raise AttackError("probe needs a network that torch.fx can trace and cut before the layer")
        inputs = task.seen[0].flatten(1)
        spread = inputs.shape[1] ** -0.5
        weight = spread * torch.randn(puzzle.classes, inputs.shape[1], generator=torch_generator(*self.key(run)))
        starts = {"fresh": Start.fresh({"weight": weight.to(inputs), "bias": inputs.new_zeros(puzzle.classes)})}
        task_of_it = _Linear(inputs, task.targets)
        fit = Fit(task_of_it, starts, self.recipe, self.key(run), self.finished(puzzle, run))
        _, trained = fit.run()
        own = trained["weight"].repeat_interleave(task.copies, 1) / task.copies
        tensors = probe_tensors(puzzle, own.cpu(), trained["bias"].cpu())
        yield Copy(tensors, probe_config(puzzle, own.shape[1]), fit.minutes)


@dataclass(frozen=True)
class _Linear:
    """A `fitting.Task`: one dense layer."""

    seen: torch.Tensor
    targets: torch.Tensor

    def inputs(self, index: torch.Tensor, train: bool) -> tuple[torch.Tensor, ...]:
        return (self.seen[index.to(self.seen.device)],)

    def logits(self, parameters: Tensors, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return F.linear(inputs[0], parameters["weight"], parameters["bias"])
