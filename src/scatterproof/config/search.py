"""The searches of a study: their configuration, and the runs that it makes. Imports no torch: Snakemake parses this."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from scatterproof.config.base import Count, PositiveShare, Strict
from scatterproof.config.settings.search import (
    AnnealMoves,
    AnnealSettings,
    ClimbMoves,
    ClimbSettings,
    Fitness,
    GeneticMoves,
    GeneticSettings,
    RandomSettings,
    ReinforceMoves,
    ReinforceSettings,
    SearchSettings,
)
from scatterproof.config.threat import ThreatModel

SearchName = Literal["random", "hill_climbing", "annealing", "genetic", "reinforce"]
SETTINGS: Mapping[str, type[SearchSettings]] = {
    "random": RandomSettings,
    "hill_climbing": ClimbSettings,
    "annealing": AnnealSettings,
    "genetic": GeneticSettings,
    "reinforce": ReinforceSettings,
}


class SearchGrid(Strict):
    """Attacks x fitness x images x share kept x seeds; and x populations for the genetic search."""

    attacks: list[SearchName] = Field(["genetic"], min_length=1, description="searches to run")
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
            raise ValueError(f"populations {self.populations}: a population needs at least 2 individuals")
        return self


class SearchConfig(Strict):
    """P2: heuristic searches over placements, each granted labelled images and the same evaluations."""

    grids: list[SearchGrid] = Field([], description="what is run; empty: no searches")
    victims: list[str] = Field(["victim"], min_length=1, description="victims searched: `victim`, or further ones")
    victim_seeds: int | None = Field(None, ge=1, description="how many of each victim's seeds; default all")
    genetic: GeneticMoves = Field(GeneticMoves(), description="settings")
    hill_climbing: ClimbMoves = Field(ClimbMoves(), description="settings")
    annealing: AnnealMoves = Field(AnnealMoves(), description="settings")
    reinforce: ReinforceMoves = Field(ReinforceMoves(), description="settings")
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

    @model_validator(mode="after")
    def _runs_can_be_made(self) -> "SearchConfig":
        for run in search_runs(self):
            try:
                settings_of(self, run)
            except ValidationError as error:
                problem = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"search.{run.attack}.{problem}") from None
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

    @property
    def name(self) -> str:
        """Of the run in the file of its job's results."""
        population = f"-p{self.population}" if self.population else ""
        return f"{self.attack}-{self.fitness}{population}-i{self.images}-k{self.keep:g}-s{self.seed}-{self.evaluations}"


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
    by_name = {}
    for keep in sorted({run.keep for run in search_runs(config)}):
        images = max(run.images for run in search_runs(config) if run.keep == keep)
        threat = ThreatModel(share=keep, scatter=scatter, images=images, knows="labels")
        by_name[threat.name] = threat
    return by_name


def plateau_threat(config: PlateauConfig, scatter: Literal["layer", "dense"]) -> ThreatModel:
    """All blocks and the labelled images that the plateau is measured on."""
    return ThreatModel(share=1.0, scatter=scatter, images=max(config.images), knows="labels")


def runs_json(runs: Sequence[SearchRun]) -> str:
    """Runs as text, for a rule's parameter."""
    return json.dumps([asdict(run) for run in runs])


def settings_json(config: SearchConfig, runs: Sequence[SearchRun]) -> str:
    """What these runs depend on besides, for a rule's parameter: other attacks' settings are not in it."""
    sections = {run.attack for run in runs} - {"random"}
    return config.model_dump_json(include={"precision", *sections})


def runs_from_json(text: str) -> list[SearchRun]:
    """The inverse of `runs_json`."""
    return [SearchRun(**each) for each in json.loads(text)]


def settings_of(config: SearchConfig, run: SearchRun) -> SearchSettings:
    """The settings of the run's attack: the study's, and what the grid varies. Raises: ValidationError."""
    moves: Strict | None = getattr(config, run.attack, None)
    varied: dict[str, Any] = {"fitness": run.fitness, "evaluations": run.evaluations}
    if run.attack == "genetic":
        varied["population"] = run.population
    return SETTINGS[run.attack].model_validate((moves.model_dump() if moves else {}) | varied)
