"""All layers trained on the pirate's images, the missing ones first. See base.py for what it is for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.func import functional_call

from scatterproof.attacks.base import Copy, Run
from scatterproof.attacks.training.base import Training, fresh_start, named
from scatterproof.attacks.training.cached import Cached, cache, targets
from scatterproof.attacks.training.fitting import Choice, Fit, Start, Tensors
from scatterproof.attacks.training.layer import Layer
from scatterproof.config.settings.training import FinetuneSettings
from scatterproof.puzzle import Puzzle
from scatterproof.victims.recipe.augment import augment


class Finetune(Training[FinetuneSettings]):
    """Everything is trained, first the missing layers alone, then all from there: so the known ones are not spoilt by a
    layer that is still wrong (Kumar et al. 2022, https://arxiv.org/abs/2202.10054).

    Images are augmented as the victim's were where labels teach; the victim's logits are of the images as they are.
    Batch norms keep their statistics.
    """

    name = "finetune"
    Settings = FinetuneSettings
    calls = (Layer,)

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """The one step. While choosing, neither stage has seen the images held out."""
        task = cache(puzzle, run.machine.device)
        first = self.layer_fit(puzzle, task, run)
        choice = first.choose()
        train, _ = first.split()
        begun = [task.unfolded(first.trained(choice, part)) for part in (train, torch.arange(len(puzzle.images)))]
        _, copy = self.from_layers(puzzle, begun, run.machine.device, self.key(run), self.finished(puzzle, run))
        yield copy

    def from_layers(
        self,
        puzzle: Puzzle,
        begun: Sequence[Tensors],
        device: torch.device,
        key: tuple[int | str, ...],
        finished: Path | None,
    ) -> tuple[Choice, Copy]:
        """The second stage. begun: the missing layers' weights trained without the images held out, and with them."""
        network = _Whole.of(puzzle, device)
        choosing, everything = (
            Fit(network, {"layer": Start.at(network.known | named(part))}, self.recipe, key, file)
            for part, file in zip(begun, (finished, None), strict=True)
        )
        choice = choosing.choose()
        trained = everything.trained(choice, torch.arange(len(puzzle.images)))
        return choice, Copy({name: value.cpu() for name, value in trained.items()}, earlier=choosing.minutes)

    def layer_fit(self, puzzle: Puzzle, task: Cached, run: Run) -> Fit:
        """The first stage: `layer`'s trainings with this attack's images held out."""
        recipe = replace(self.calling(Layer).recipe, held_out=self.settings.held_out)
        return Fit(task, {"fresh": fresh_start(puzzle, task, self.key(run))}, recipe, self.key(run))


@dataclass(frozen=True)
class _Whole:
    """A `fitting.Task` over all parameters of the network; known: those that the pirate holds."""

    puzzle: Puzzle
    model: torch.nn.Module
    targets: torch.Tensor
    known: dict[str, torch.Tensor]

    @classmethod
    def of(cls, puzzle: Puzzle, device: torch.device) -> "_Whole":
        model = puzzle.model().to(device).requires_grad_(False)
        known = {name: value.detach() for name, value in model.named_parameters()}
        return cls(puzzle, model, targets(puzzle).to(device), known)

    def inputs(self, index: torch.Tensor, train: bool) -> tuple[torch.Tensor, ...]:
        kind = self.puzzle.config.train.augment if train and self.puzzle.labels is not None else "none"
        images = augment(self.puzzle.images[index].to(self.targets.device), kind)
        return (self.puzzle.inputs(images),)

    def logits(self, parameters: Tensors, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        logits: torch.Tensor = functional_call(self.model, dict(parameters), inputs)
        return logits
