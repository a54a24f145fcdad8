"""A study without Snakemake: victims trained here, attacked, controlled and judged by what the rules' scripts call."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from scatterproof.analysis.tables import attack_table
from scatterproof.analysis.verdict import verdict_table
from scatterproof.attacks.base import Machine, Run, Snapshot
from scatterproof.attacks.runner import make_attack
from scatterproof.blocks import Layout
from scatterproof.config.attacks import AttacksConfig, attacks_on, ceilings_on
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.threat import ThreatModel, drawn, key_of_draw
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.defences.network import protect_network
from scatterproof.judging.ceilings.forms import ToldPirate
from scatterproof.judging.ceilings.rows import ceiling_rows
from scatterproof.judging.ceilings.told import tell
from scatterproof.judging.ceilings.told_controls import CeilingControls
from scatterproof.judging.controls import Controls, controlled
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Puzzle
from scatterproof.running.device import device_name
from scatterproof.victims.data import Dataset, read_dataset, to_input
from scatterproof.victims.models import dense_layers
from scatterproof.victims.training import train_victim

PERCEPTRON = VictimConfig(
    model="small:perceptron",
    input_size=8,
    layer="3",
    dropout=0.0,
    train={"lr": 0.05, "epochs": 24, "schedule": "onecycle", "augment": "none", "batch_size": 64},
)
CPU = torch.device("cpu")
MACHINE = Machine(CPU, 1)
DEVICE = device_name(CPU)


def read_digits() -> Dataset:
    """Real handwritten digits, as the workflow reads them."""
    return read_dataset(DatasetConfig(kind="digits"))


@dataclass(frozen=True)
class Victims:
    """Networks of one recipe, one for each seed, and the minutes that the training of each took."""

    config: VictimConfig
    dataset: Dataset
    models: Sequence[nn.Module]
    minutes: Sequence[float]

    @classmethod
    def trained(cls, config: VictimConfig, dataset: Dataset, seeds: int, folder: Path) -> "Victims":
        """Trained as the workflow trains them."""
        made = [train_victim(config, seed, dataset, CPU, 1, folder / f"{seed}.pt") for seed in range(seeds)]
        return cls(config, dataset, [each.model for each in made], [each.minutes for each in made])


def verdicts(victims: Victims, size: int, **attacks: Any) -> pd.DataFrame:
    """`tables/verdict.csv` of a study with these `attacks`, by the threats' names."""
    config = AttacksConfig(block_size=size, control_shuffles=10, **attacks)
    tables = [_attacked(victims, seed, size, config) for seed in range(len(victims.models))]
    return verdict_table(pd.concat(tables), _controls(victims, size, config)).set_index("threat")


def _attacked(victims: Victims, seed: int, size: int, config: AttacksConfig) -> pd.DataFrame:
    """The rows of attacks and ceilings of one victim."""
    tables, forms = [], ceilings_on(config, "layer")
    trained = {"device": DEVICE, "device_minutes": victims.minutes[seed]}
    for draw, (threat, names) in product(range(config.draws), attacks_on(config, "layer").values()):
        judge = _judge(victims, (0, "victim", seed, *key_of_draw(draw)), size, threat, victims.dataset.redrawn(draw))
        puzzle, run = judge.puzzle, Run(MACHINE, (0, "victim", seed, drawn(threat.name, draw)))
        rows = judge.rows({name: _steps(config, name, puzzle, run) for name in names})
        if threat.name in forms:
            pirate = ToldPirate(puzzle, tell(puzzle, judge.answer), config, names, run)
            rows += [{**row, "params": ""} for row in ceiling_rows(judge, pirate, forms[threat.name])]
        about = {"study": "small", "victim_seed": seed, "victim": "victim"} | _layer(puzzle)
        tables.append(attack_table(rows, about, threat, trained, DEVICE).assign(seed=draw))
    return pd.concat(tables)


def _steps(config: AttacksConfig, name: str, puzzle: Puzzle, run: Run) -> list[Snapshot]:
    return make_attack(config, name).run(puzzle, replace(run, key=(*run.key, name)))


def _judge(victims: Victims, key: tuple[int | str, ...], size: int, threat: ThreatModel, data: Dataset) -> Judge:
    model, config = victims.models[int(key[2])], victims.config
    protected = None
    if threat.defended:
        shapes = {config.layer: dense_layers(model)[config.layer].weight.shape}
        images = to_input(data.test.images[:20], config.input_size, data.mean, data.std)
        protected = protect_network(model, Layout.square(shapes, size), threat.defence, images, key)
    return Judge(*make_puzzle(model, config, data, threat, size, key, protected=protected), model, data, CPU)


def _layer(puzzle: Puzzle) -> dict[str, Any]:
    return {"layer": "+".join(puzzle.layout.grids), "block_size": puzzle.layout.block_shape[0]}


def _controls(victims: Victims, size: int, config: AttacksConfig) -> pd.DataFrame:
    """Of the first victim."""
    key = (0, "victim", 0)
    controls = Controls(config, victims.models[0], victims.config, victims.dataset, size, key, MACHINE)
    rows = [row for name, threat in controlled(config, "layer") for row in controls.rows(name, threat)]
    for name, forms in ceilings_on(config, "layer").items():
        rows += CeilingControls(controls).rows(attacks_on(config, "layer")[name][0], forms)
    return pd.DataFrame(rows).assign(study="small", victim="victim", victim_seed=0, block_size=size)
