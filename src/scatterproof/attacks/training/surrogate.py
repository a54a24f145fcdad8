"""Surrogates: networks of several architectures trained from nothing on the pirate's images alone, taught by labels or
by the victim's answers. The floor: it takes nothing of the victim's weights.

Knockoff Nets (Orekondy et al. 2019, https://arxiv.org/abs/1812.02766): the best surrogate need not be of the victim's
own architecture, so several are trained, and the best on images held out counts.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from scatterproof.attacks.base import Attack, Copy, Run
from scatterproof.attacks.training.cached import targets
from scatterproof.attacks.training.fitting import split
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.training import SurrogateModel, SurrogateSettings
from scatterproof.config.victim import VictimConfig
from scatterproof.puzzle import Puzzle
from scatterproof.running.seeds import seed_of
from scatterproof.victims.data import Dataset, Split
from scatterproof.victims.inputs import input_kind
from scatterproof.victims.training import Trained, measure, train_victim

EPOCHS = 4  # at least so many, each of as many passes over few images as it takes: a checkpoint is written after each


class Surrogate(Attack[SurrogateSettings]):
    """The best of several surrogates by accuracy on images held out.

    models: keys of the victim's configuration that differ, such as its `width`, one surrogate each; updates: at least;
    train: keys of the victim's training recipe that differ; held_out: share of the images that chooses.
    """

    name: ClassVar[str] = "surrogate"
    Settings = SurrogateSettings
    reads: ClassVar[tuple[Known, ...]] = ("labels", "logits")

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """The best, once all are trained: the pirate pays for each. Raises: DivergenceError."""
        dataset = self.dataset(puzzle, run)
        best, copy, earlier = (-1.0, 0.0), Copy({}), 0.0
        for config in self.configs(puzzle):
            trained = self._train(config, dataset, puzzle, run)
            earlier += trained.minutes_before
            accuracy, loss = measure(trained.model, dataset, dataset.test, config.input_size, run.machine.device)
            print(f"{self.name}: {config.model}, width {config.width:g}: {100 * accuracy:.1f} % of the images held out")
            if (accuracy, -loss) > best:
                tensors = {name: value.cpu() for name, value in trained.model.state_dict().items()}
                best, copy = (accuracy, -loss), Copy(tensors, config)
        yield replace(copy, earlier=earlier)

    def configs(self, puzzle: Puzzle) -> list[VictimConfig]:
        """The surrogates, each trained for at least so many updates, and for as many epochs as that is."""
        images = len(puzzle.images) - max(1, round(self.settings.held_out * len(puzzle.images)))
        recipe = puzzle.config.train.model_copy(update=dict(self.settings.train))
        epochs = max(
            EPOCHS, round(self.settings.updates * recipe.batch_size / images / self.passes(images, recipe.batch_size))
        )
        train = recipe.model_copy(update={"epochs": epochs})
        same = {"model_args": {}, "layer": "largest", "train": train}
        return [puzzle.config.model_copy(update=same | each.keys) for each in self.models(puzzle)]

    def models(self, puzzle: Puzzle) -> list[SurrogateModel]:
        """Their architectures: the victim's own in place of the default, which takes images, where there are none."""
        if input_kind(puzzle.images) == "images" or self.settings.models != SurrogateSettings().models:
            return self.settings.models
        return [SurrogateModel(model=puzzle.config.model, model_args=puzzle.config.model_args)]

    def passes(self, images: int, batch: int) -> int:
        """Over the images in one epoch: many where they are few, so that an epoch is worth its checkpoint."""
        return max(1, round(self.settings.updates * batch / EPOCHS / images))

    def dataset(self, puzzle: Puzzle, run: Run) -> Dataset:
        """The pirate's images: those trained on as the `victim`'s, those held out as `test`, all else empty."""
        train, held = split(len(puzzle.images), self.settings.held_out, ("attack", self.name, *run.key))
        taught = targets(puzzle)
        hard = taught if taught.ndim == 1 else taught.argmax(1)
        recipe = puzzle.config.train.model_copy(update=dict(self.settings.train))
        train = train.repeat(self.passes(len(train), recipe.batch_size))
        return Dataset(
            name="pirate",
            classes=puzzle.classes,
            victim=Split(puzzle.images[train], taught[train]),
            pirate=Split(puzzle.images[:0], hard[:0]),
            test=Split(puzzle.images[held], hard[held]),
            mean=puzzle.mean,
            std=puzzle.std,
            source=puzzle.threat.name,
            split_seed=0,
        )

    def _train(self, config: VictimConfig, dataset: Dataset, puzzle: Puzzle, run: Run) -> Trained:
        """One surrogate; where the run has a folder, from its checkpoint there."""
        identity = self.identity(puzzle, run) + config.model_dump_json()
        digest = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
        seed, machine = seed_of("attack", self.name, *run.key) % 2**32, run.machine
        with TemporaryDirectory() as temporary:
            config = config.model_copy(update={"frozen_layers": []})  # the pirate draws and keeps no secret
            checkpoint = (run.work or Path(temporary)) / f"{self.name}.{digest}.pt"
            return train_victim(
                config, seed, dataset, machine.device, machine.threads, checkpoint, "attacks.surrogate.train"
            )
