"""Retraining: its configuration, and the trainings that it makes. Imports no torch: Snakemake parses this."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scatterproof.config.base import Strict

OWN = "own"  # the victim's own recipe

RecipeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class RetrainingConfig(Strict):
    """What attacks are compared with: a network like the victim trained from nothing, on its images or the pirate's.

    The victim's own training is the first curve and needs no key. A recipe is a set of `victim.train` keys that differ.
    """

    recipes: dict[RecipeName, dict[str, Any]] = Field(
        {}, description="further recipes by name, trained on the victim's images, such as `short: {epochs: 4}`"
    )
    pirate_images: list[Annotated[int, Field(ge=2)]] = Field(
        [], description="numbers of the pirate's labelled images to train on alone; empty: none"
    )
    pirate_recipes: dict[RecipeName, dict[str, Any]] = Field(
        {},
        description="likewise, on the pirate's images alone: few images want more epochs; empty: the victim's own",
    )
    victims: list[str] = Field(["victim"], min_length=1, description="victims retrained: `victim`, or further ones")
    victim_seeds: int | None = Field(None, ge=1, description="trainings of each kind, one a seed; default all seeds")
    runs_per_job: int = Field(
        1, ge=1, description="trainings per job, within `run.train_minutes`; a killed one goes on from its last epoch"
    )

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "RetrainingConfig":
        for key, values in (("victims", self.victims), ("pirate_images", self.pirate_images)):
            if len(set(values)) != len(values):
                raise ValueError(f"retraining.{key} {values}: a value stands twice")
        for key, recipes in (("recipes", self.recipes), ("pirate_recipes", self.pirate_recipes)):
            if OWN in recipes:
                raise ValueError(f"retraining.{key}.{OWN}: the name '{OWN}' is taken by the victim's own recipe")
        return self

    @property
    def images_needed(self) -> int:
        """Images that the pirate must hold."""
        return max(self.pirate_images, default=0)

    def keys_of(self, run: "RetrainingRun") -> Mapping[str, Any]:
        """The keys of `victim.train` that the run's recipe changes."""
        if run.recipe == OWN:
            return {}
        return (self.recipes if run.source == "recipe" else self.pirate_recipes)[run.recipe]


@dataclass(frozen=True)
class RetrainingRun:
    """One training from nothing: on all of the victim's images (`recipe`), or on the pirate's first `images`."""

    source: Literal["recipe", "pirate"]
    recipe: str
    images: int | None

    @property
    def key(self) -> str:
        """The key of the study that its recipe stands under."""
        if self.recipe == OWN:
            return "victim.train"
        return f"retraining.{'recipes' if self.source == 'recipe' else 'pirate_recipes'}.{self.recipe}"


def retraining_runs(config: RetrainingConfig) -> list[RetrainingRun]:
    """Every training for one seed of one victim."""
    runs = [RetrainingRun("recipe", recipe, None) for recipe in config.recipes]
    for recipe in config.pirate_recipes or [OWN]:
        runs += [RetrainingRun("pirate", recipe, images) for images in config.pirate_images]
    return runs


def retraining_jobs(config: RetrainingConfig) -> list[list[RetrainingRun]]:
    """The trainings of each job for one seed of one victim."""
    runs, size = retraining_runs(config), config.runs_per_job
    return [runs[first : first + size] for first in range(0, len(runs), size)]


def retraining_json(runs: Iterable[RetrainingRun]) -> str:
    """Runs as text, for a rule's parameter."""
    return json.dumps([asdict(run) for run in runs])


def retraining_from_json(text: str) -> list[RetrainingRun]:
    """The inverse of `retraining_json`."""
    return [RetrainingRun(**each) for each in json.loads(text)]
