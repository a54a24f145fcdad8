"""What the attacks that train layers share: how they train, where they start, and how their weights are named.

`probe`, `layer` and `finetune` are what any attack on the blocks has to beat: they succeed as well where the layer was
never handed out, even encrypted. Each attack is taught by labels, or by the victim's logits where the threat grants
those.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

import torch

from scatterproof.attacks.base import Attack, Copy, Run
from scatterproof.attacks.training.cached import Cached, fresh_weights
from scatterproof.attacks.training.fitting import Fit, Recipe, Start, Tensors
from scatterproof.blocks import factors, input_shares, invert, lines_of
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.training import TrainingSettings
from scatterproof.puzzle import Puzzle

S = TypeVar("S", bound=TrainingSettings)


class Training(Attack[S]):
    """What the attacks here share: how they train. See `fitting.Recipe`."""

    reads: ClassVar[tuple[Known, ...]] = ("labels", "logits")

    @property
    def recipe(self) -> Recipe:
        """How each training goes."""
        return recipe_of(self.settings)

    def key(self, run: Run) -> tuple[int | str, ...]:
        """Of all draws."""
        return ("attack", self.name, *run.key)

    def finished(self, puzzle: Puzzle, run: Run) -> Path | None:
        """The file that keeps what the finished trainings came to."""
        return None if run.work is None else run.work / f"{self.file_name(puzzle, run)}.json"

    def continued(self, task: Cached, start: Tensors, puzzle: Puzzle, run: Run) -> Copy:
        """The layers trained from these weights of their own; as they are where that helps no image held out."""
        fit = Fit(task, {"start": Start.at(task.folded(start))}, self.recipe, self.key(run), self.finished(puzzle, run))
        choice, trained = fit.run()
        print(f"{self.name}: {choice.updates} updates at {choice.rate:g}, decay {choice.decay:g}; held-out loss "
              f"{choice.start_loss:.3f} -> {choice.loss:.3f}")  # fmt: skip
        change = task.unfolded({name: value - fit.starts["start"].anchor[name] for name, value in trained.items()})
        return Copy(named({name: weight + change[name] for name, weight in start.items()}), earlier=fit.minutes)


def recipe_of(settings: TrainingSettings) -> Recipe:
    """How trainings with these settings go."""
    return Recipe(settings.updates, settings.batch, tuple(settings.rates), tuple(settings.decays), settings.held_out)


def fresh_start(puzzle: Puzzle, task: Cached, key: tuple[int | str, ...]) -> Start:
    """The missing layers as a new network begins with them."""
    fresh = {name: weight.to(task.targets.device) for name, weight in fresh_weights(puzzle, key).items()}
    return Start.fresh(task.folded(fresh))


def assembled(puzzle: Puzzle, placement: torch.Tensor) -> dict[str, torch.Tensor]:
    """The scattered layers' weights with block b at placement[b], int64 [blocks]; each row's sum is divided by the
    share of its inputs that is held."""
    block_at = invert(placement.cpu(), puzzle.layout.positions)
    weights = puzzle.layout.assemble(lines_of(puzzle.blocks), block_at)
    shares = input_shares(puzzle.layout, block_at)
    return {name: weight * factors(shares[name])[:, None] for name, weight in weights.items()}


def named(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by their layers' paths as the network's tensors."""
    return {f"{name}.weight": weight.cpu() for name, weight in weights.items()}
