"""Victims trained here on real digits, and the verdicts on them without Snakemake."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from scatterproof.attacks.base import Machine
from scatterproof.auditing import in_process
from scatterproof.config.attacks import AttacksConfig
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.victim import VictimConfig
from scatterproof.victims.data import Dataset, read_dataset
from scatterproof.victims.training import train_victim

PERCEPTRON = VictimConfig(
    model="small:perceptron",
    input_size=8,
    layer="3",
    dropout=0.0,
    train={"lr": 0.05, "epochs": 24, "schedule": "onecycle", "augment": "none", "batch_size": 64},
)
CPU = torch.device("cpu")


def read_digits() -> Dataset:
    """Real handwritten digits, as the workflow reads them."""
    return read_dataset(DatasetConfig(kind="digits"))


class Victims(in_process.Victims):
    """Networks of one recipe, one for each seed."""

    @classmethod
    def trained(cls, config: VictimConfig, dataset: Dataset, seeds: int, folder: Path) -> "Victims":
        """Trained as the workflow trains them."""
        made = [train_victim(config, seed, dataset, CPU, 1, folder / f"{seed}.pt") for seed in range(seeds)]
        return cls(config, dataset, [each.model for each in made], [each.minutes for each in made])


def verdicts(victims: Victims, size: int, **attacks: Any) -> pd.DataFrame:
    """`tables/verdict.csv` of a study with these `attacks`, by the threats' names."""
    config = AttacksConfig(block_size=size, control_shuffles=10, **attacks)
    study = in_process.InProcess(victims, size, config, Machine(CPU, 1))
    return study.verdicts().set_index("threat")
