"""A study of a few victims in this process: attacked, controlled and judged by what the workflow's scripts call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pandas as pd
from torch import nn

from scatterproof.analysis.tables import attack_table
from scatterproof.analysis.verdict import verdict_table
from scatterproof.attacks.base import Machine, Run, Snapshot
from scatterproof.attacks.runner import make_attack
from scatterproof.blocks import Layout
from scatterproof.config.attacks import AttacksConfig, attacks_on, ceilings_on
from scatterproof.config.threat import ThreatModel, drawn, key_of_draw
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.defences.network import protect_network
from scatterproof.defences.telling import telling_for
from scatterproof.judging.ceilings.forms import ToldPirate
from scatterproof.judging.ceilings.rows import ceiling_rows
from scatterproof.judging.ceilings.told import tell
from scatterproof.judging.ceilings.told_controls import CeilingControls
from scatterproof.judging.controls import Controls, controlled
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Puzzle
from scatterproof.running.device import device_name
from scatterproof.victims.data import Dataset, to_input
from scatterproof.victims.models import dense_layers

STUDY = "in process"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Victims:
    """Networks of one recipe, one for each seed, and the minutes that the training of each took, NaN if unknown."""

    config: VictimConfig
    dataset: Dataset
    models: Sequence[nn.Module]
    minutes: Sequence[float]
    name: str = "victim"


@dataclass(frozen=True)
class InProcess:
    """These victims in blocks of this size on this machine. done: called with what has ended, a draw or a control."""

    victims: Victims
    size: int
    config: AttacksConfig
    machine: Machine
    done: Progress = lambda _: None

    def verdicts(self) -> pd.DataFrame:
        """`tables/verdict.csv`."""
        tables = [self._attacked(seed) for seed in range(len(self.victims.models))]
        return verdict_table(pd.concat(tables), self._controls())

    @property
    def steps(self) -> int:
        """How often `done` is called."""
        draws = len(self.victims.models) * self.config.draws * len(attacks_on(self.config, "layer"))
        return draws + len(controlled(self.config, "layer")) + len(ceilings_on(self.config, "layer"))

    def _attacked(self, seed: int) -> pd.DataFrame:
        """The rows of attacks and ceilings of one victim."""
        tables, forms = [], ceilings_on(self.config, "layer")
        name, device = self.victims.name, device_name(self.machine.device)
        trained = {"device": device, "device_minutes": self.victims.minutes[seed]}
        first: Judge | None = None
        for draw, (threat, names) in product(range(self.config.draws), attacks_on(self.config, "layer").values()):
            key = (0, name, seed, *key_of_draw(draw))
            judge = self._judge(seed, key, threat, self.victims.dataset.redrawn(draw))
            judge = judge if first is None else first.of(judge.puzzle, judge.answer)
            first = judge if first is None else first
            puzzle, run = judge.puzzle, Run(self.machine, (0, name, seed, drawn(threat.name, draw)))
            rows = judge.rows({each: self._steps(each, puzzle, run) for each in names})
            if threat.name in forms:
                pirate = ToldPirate(puzzle, tell(puzzle, judge.answer), self.config, names, run)
                rows += [{**row, "params": ""} for row in ceiling_rows(judge, pirate, forms[threat.name])]
            about = {"study": STUDY, "victim_seed": seed, "victim": name} | _layer(puzzle)
            tables.append(attack_table(rows, about, threat, trained, device).assign(seed=draw))
            self.done(f"draw {draw + 1} of {threat.name}")
        return pd.concat(tables)

    def _steps(self, attack: str, puzzle: Puzzle, run: Run) -> list[Snapshot]:
        return make_attack(self.config, attack).run(puzzle, replace(run, key=(*run.key, attack)))

    def _judge(self, seed: int, key: tuple[int | str, ...], threat: ThreatModel, data: Dataset) -> Judge:
        model, config = self.victims.models[seed], self.victims.config
        protected = None
        if threat.defended:
            shapes = {config.layer: dense_layers(model)[config.layer].weight.shape}
            images = to_input(data.test.images[:20], config.input_size, data.mean, data.std)
            layout = Layout.square(shapes, self.size)
            telling = telling_for(threat.defence, model, config, data, layout)
            protected = protect_network(model, layout, threat.defence, images, key, telling)
        made = make_puzzle(model, config, data, threat, self.size, key, protected=protected)
        return Judge(*made, model, data, self.machine.device)

    def _controls(self) -> pd.DataFrame:
        """Of the first victim."""
        victims, config = self.victims, self.config
        key = (0, victims.name, 0)
        controls = Controls(config, victims.models[0], victims.config, victims.dataset, self.size, key, self.machine)
        rows: list[Mapping[str, Any]] = []
        for name, threat in controlled(config, "layer"):
            rows += controls.rows(name, threat)
            self.done(f"controls of {name}")
        for name, forms in ceilings_on(config, "layer").items():
            rows += CeilingControls(controls).rows(attacks_on(config, "layer")[name][0], forms)
            self.done(f"controls of the told ceiling of {name}")
        table = pd.DataFrame(rows)
        return table.assign(study=STUDY, victim=victims.name, victim_seed=0, block_size=self.size)


def _layer(puzzle: Puzzle) -> dict[str, Any]:
    layers = puzzle.layout.grids
    about = {"layer": "+".join(layers), "block_size": puzzle.layout.block_shape[0]}
    return about | {"frozen": puzzle.config.frozen_among(layers)}
