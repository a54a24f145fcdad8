"""The searches of a study: their configuration, and the runs that it makes. Imports no torch: Snakemake parses this."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scatterproof.config.base import Count, PositiveShare, Share, Strict
from scatterproof.config.threat import ThreatModel

AttackName = Literal["random", "hill_climbing", "annealing", "genetic", "reinforce"]
Fitness = Literal["accuracy", "loss"]


class SearchGrid(Strict):
    """Attacks x fitness x images x share kept x seeds; and x populations for the genetic search."""

    attacks: list[AttackName] = Field(["genetic"], min_length=1, description="searches to run")
    fitness: list[Fitness] = Field(
        ["accuracy"], min_length=1, description="what a search climbs: accuracy, or minus the cross-entropy"
    )
    populations: list[Count] = Field([100], min_length=1, description="`genetic` only: individuals, at least 2")
    images: list[Count] = Field([100], min_length=1, description="labelled images of the pirate's that fitness is on")
    keep: list[PositiveShare] = Field([1.0], min_length=1, description="shares of the blocks held")
    seeds: int = Field(5, ge=1, description="runs of each kind per victim")
    evaluations: int = Field(10000, ge=1, description="placements that each run may evaluate")

    @model_validator(mode="after")
    def _populations_breed(self) -> "SearchGrid":
        if "genetic" in self.attacks and min(self.populations) < 2:
            raise ValueError(f"search.grids: populations {self.populations}: a population needs at least 2 individuals")
        return self


class GeneticConfig(Strict):
    """Genetic search over permutations."""

    crossover: Literal["order", "partially_mapped", "cycle"] = Field(
        "cycle", description="`cycle` and `partially_mapped` keep most absolute positions, `order` is made for tours"
    )
    crossover_rate: Share = Field(0.9, description="share of the pairs that are crossed; the rest are copied")
    mutation: Literal["swap", "inversion", "scramble"] = Field("swap", description="mutation of permutations")
    mutation_rate: Share = Field(0.9, description="share of the children that are mutated, once each")
    tournament: int = Field(2, ge=1, description="individuals that compete to be a parent")
    elite: Share = Field(0.1, description="share of the parents, the best, that compete with the children")


class ClimbConfig(Strict):
    """Hill climbing."""

    batch: int = Field(100, ge=1, description="exchanges of a generation")
    at_once: int = Field(10, ge=1, description="exchanges scored on one placement, of which the best may be made")
    proposals: Literal["random", "gradient"] = Field(
        "random", description="`gradient`: the exchanges that promise most to first order, from one backward pass"
    )


class AnnealConfig(Strict):
    """Simulated annealing."""

    batch: int = Field(100, ge=1, description="exchanges of a generation")
    at_once: int = Field(4, ge=1, description="exchanges scored on one placement, taken in order until one is accepted")
    hot: float = Field(0.5, gt=0, description="first temperature, times the spread of random exchanges' changes")
    cold: float = Field(0.005, gt=0, description="last temperature, likewise")


class ReinforceConfig(Strict):
    """PPO on the exchange of two blocks."""

    steps: int = Field(256, ge=2, description="exchanges between two updates of the policy")
    walks: int = Field(16, ge=1, description="walks that share a rollout; they divide `steps`")
    episode: int = Field(8, ge=1, description="exchanges after which a walk starts again")
    restart: Literal["best", "start"] = Field(
        "best", description="from the best placement found so far, or from the run's start"
    )
    patience: int = Field(8, ge=1, description="rollouts without a new best after which policy and walks begin anew")
    learning_rate: float = Field(3e-3, ge=0, description="of Adam; 0 is a policy that never learns")
    epochs: int = Field(10, ge=1, description="passes over a rollout")
    minibatch: int = Field(128, ge=2, description="exchanges per update; they divide `steps`")
    entropy: float = Field(0.01, ge=0, description="weight of the entropy bonus")
    discount: Share = Field(0.9, description="what the next reward is worth now")

    @model_validator(mode="after")
    def _parts_divide_the_rollout(self) -> "ReinforceConfig":
        if self.steps % self.walks or self.steps % self.minibatch:
            raise ValueError(
                f"search.reinforce.steps {self.steps}: expected a multiple of walks {self.walks} and minibatch "
                f"{self.minibatch}"
            )
        return self


class SearchConfig(Strict):
    """P2: heuristic searches over placements, each granted labelled images and the same evaluations."""

    grids: list[SearchGrid] = Field([], description="what is run; empty: no searches")
    victims: list[str] = Field(["victim"], min_length=1, description="victims searched: `victim`, or controls")
    victim_seeds: int | None = Field(None, ge=1, description="how many of each victim's seeds; default all")
    genetic: GeneticConfig = Field(GeneticConfig(), description="hyperparameters")
    hill_climbing: ClimbConfig = Field(ClimbConfig(), description="hyperparameters")
    annealing: AnnealConfig = Field(AnnealConfig(), description="hyperparameters")
    reinforce: ReinforceConfig = Field(ReinforceConfig(), description="hyperparameters")
    precision: Literal["fp32", "bf16", "tf32"] = Field("fp32", description="arithmetic of fitness; tf32 needs CUDA")
    runs_per_job: int = Field(10, ge=1, description="searches per job; a killed one goes on from its checkpoint")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "SearchConfig":
        if len(set(self.victims)) != len(self.victims):
            raise ValueError(f"search.victims {self.victims}: a name stands twice")
        keeps = {keep for grid in self.grids for keep in grid.keep}
        if len({f"{keep:g}" for keep in keeps}) != len(keeps):
            raise ValueError(f"search.grids: keep {sorted(keeps)}: two shares are equal to six digits")
        return self

    @property
    def images_needed(self) -> int:
        """Images that the pirate must hold."""
        return max((max(grid.images) for grid in self.grids), default=0)


class PlateauConfig(Strict):
    """L: from how many right blocks and images on a search can tell a right exchange from a wrong one."""

    correct: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [], description="shares of the blocks that are right already; empty: no plateau"
    )
    images: list[Count] = Field([10, 30, 100], min_length=1, description="images that fitness is measured on")
    draws: int = Field(200, ge=10, description="random placements per share and victim")

    @property
    def images_needed(self) -> int:
        """Images that the pirate must hold."""
        return max(self.images) if self.correct else 0


@dataclass(frozen=True)
class SearchRun:
    """One search: population is 0 where the attack has none."""

    attack: str
    fitness: Fitness
    population: int
    images: int
    keep: float
    seed: int
    evaluations: int


def search_runs(config: SearchConfig) -> list[SearchRun]:
    """Every run on one victim, each once."""
    runs = []
    for grid in config.grids:
        for attack, fitness, images, keep in product(grid.attacks, grid.fitness, grid.images, grid.keep):
            populations = grid.populations if attack == "genetic" else [0]
            runs += [
                SearchRun(attack, fitness, population, images, keep, seed, grid.evaluations)
                for population, seed in product(populations, range(grid.seeds))
            ]
    return list(dict.fromkeys(runs))


def search_jobs(config: SearchConfig, scatter: Literal["layer", "dense"]) -> dict[tuple[str, int], list[SearchRun]]:
    """The runs of each job on one victim, by the threat's name and the slice's number."""
    jobs = {}
    for threat in threats(config, scatter).values():
        mine = [run for run in search_runs(config) if run.keep == threat.share]
        for number, first in enumerate(range(0, len(mine), config.runs_per_job)):
            jobs[threat.name, number] = mine[first : first + config.runs_per_job]
    return jobs


def threats(config: SearchConfig, scatter: Literal["layer", "dense"]) -> dict[str, ThreatModel]:
    """What the pirate is granted, by name: a threat for each share kept, with all images that a run on it asks for."""
    found = {}
    for keep in sorted({run.keep for run in search_runs(config)}):
        images = max(run.images for run in search_runs(config) if run.keep == keep)
        threat = ThreatModel(share=keep, scatter=scatter, images=images, knows="labels")
        found[threat.name] = threat
    return found


def plateau_threat(config: PlateauConfig, scatter: Literal["layer", "dense"]) -> ThreatModel:
    """All blocks and the labelled images that the plateau is measured on."""
    return ThreatModel(share=1.0, scatter=scatter, images=max(config.images), knows="labels")


def runs_json(runs: Sequence[SearchRun]) -> str:
    """Runs as text, for a rule's parameter."""
    return json.dumps([asdict(run) for run in runs])


def settings_json(config: SearchConfig, runs: Sequence[SearchRun]) -> str:
    """What these runs depend on besides, for a rule's parameter: other attacks' hyperparameters are not in it."""
    sections = {run.attack for run in runs} - {"random"}
    return config.model_dump_json(include={"precision", *sections})


def runs_from_json(text: str) -> list[SearchRun]:
    """The inverse of `runs_json`."""
    return [SearchRun(**each) for each in json.loads(text)]


def hyperparameters(config: SearchConfig, run: SearchRun) -> Mapping[str, Any]:
    """The fields of the run's attack that the study sets."""
    found: dict[str, Any] = {"images": run.images, "fitness": run.fitness}
    if run.attack == "genetic":
        own = config.genetic.model_dump()
        own["elite"] = round(own["elite"] * run.population)
        return found | own | {"population": run.population}
    if run.attack == "random":
        return found
    section: Strict = getattr(config, run.attack)
    return found | section.model_dump()
