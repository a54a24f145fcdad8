"""Training a network like the victim from nothing: by another recipe, or on the pirate's images alone."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from scatterproof.config.retraining import RetrainingRun
from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.running.files import read_table, write_csv
from scatterproof.running.seeds import seed_of
from scatterproof.victims.data import Dataset, Split
from scatterproof.victims.training import curve_table, train_victim, training_identity


class RetrainingError(UserError):
    """A training that the dataset has no images for."""


@dataclass(frozen=True)
class Trainer:
    """What all trainings for one seed of one victim share; `work` is the folder of finished ones and checkpoints."""

    dataset: Dataset
    device: torch.device
    device_name: str
    threads: int
    work: Path

    def train(self, run: RetrainingRun, config: VictimConfig, key: tuple[int | str, ...]) -> pd.DataFrame:
        """The curve: epoch, minutes of training so far, train_loss, accuracy on test images, recipe, source, images.

        Weights and order of images depend on `key` alone, so that recipes are compared on the same draws, none of them
        the victim's. A finished training and one under way are named by all that they depend on, the device's name
        included: minutes of two devices are never added. Raises: RetrainingError, DivergenceError, Interrupted.
        """
        config = config.model_copy(update={"frozen_layers": []})  # it need not hide anything
        dataset = _of_the_pirate(self.dataset, run.images) if run.source == "pirate" else self.dataset
        seed = seed_of("retraining", *key)
        identity = training_identity(config, seed, self.device, self.threads, dataset)
        text = "\x1f".join((identity, self.device_name, run.source))
        name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        finished, checkpoint = self.work / f"{name}.csv", self.work / f"{name}.pt"
        if not finished.exists():
            trained = train_victim(config, seed, dataset, self.device, self.threads, checkpoint, run.key)
            write_csv(finished, curve_table(trained.curve))
        checkpoint.unlink(missing_ok=True)
        curve = read_table(str(finished))
        return curve.assign(recipe=run.recipe, source=run.source, images=len(dataset.victim))


def _of_the_pirate(dataset: Dataset, images: int | None) -> Dataset:
    """The dataset with the pirate's first images, those that a puzzle grants, in the place of the victim's."""
    pirate = dataset.pirate
    if images is not None and images > len(pirate):
        raise RetrainingError(
            f"retraining.pirate_images is {images}, but the pirate has {len(pirate)} images: "
            "lower it, or raise dataset.pirate"
        )
    return replace(dataset, victim=Split(pirate.images[:images], pirate.labels[:images]))
