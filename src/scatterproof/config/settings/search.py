"""Settings of the searches over placements.

How a search goes on stands in its `...Moves`, which `search` and `attacks` share; what `search.grids` varies, and
`attacks` sets once, is added by its settings.
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from scatterproof.config.base import Count, Share, Strict
from scatterproof.config.settings.base import ANY_SCATTER, Needs, Settings

Fitness = Literal["accuracy", "loss"]


class SearchSettings(Settings):
    """What all searches share. They climb on all images that the threat grants."""

    needs: ClassVar[Needs] = Needs(scatter=ANY_SCATTER, images=1, knows=("labels",))

    fitness: Fitness = Field("loss", description="what is climbed: accuracy, or minus the cross-entropy")
    evaluations: int = Field(10_000, ge=1, description="placements that may be evaluated")


class GeneticMoves(Strict):
    """Genetic search over permutations."""

    crossover: Literal["order", "partially_mapped", "cycle"] = Field(
        "cycle", description="`cycle` and `partially_mapped` keep most absolute positions, `order` is made for tours"
    )
    crossover_rate: Share = Field(0.9, description="share of the pairs that are crossed; the rest are copied")
    mutation: Literal["swap", "inversion", "scramble"] = Field("swap", description="mutation of permutations")
    mutation_rate: Share = Field(0.9, description="share of the children that are mutated, once each")
    tournament: Count = Field(2, description="individuals that compete to be a parent")
    elite: Share = Field(0.1, description="share of the parents, the best, that compete with the children")


class ClimbMoves(Strict):
    """Hill climbing."""

    batch: Count = Field(100, description="exchanges of a generation")
    at_once: Count = Field(10, description="exchanges scored on one placement, of which the best may be made")
    proposals: Literal["random", "gradient"] = Field(
        "random", description="`gradient`: the exchanges that promise most to first order, from one backward pass"
    )


class AnnealMoves(Strict):
    """Simulated annealing."""

    batch: Count = Field(100, description="exchanges of a generation")
    at_once: Count = Field(4, description="exchanges scored on one placement, taken in order until one is accepted")
    hot: float = Field(0.5, gt=0, description="first temperature, times the spread of random exchanges' changes")
    cold: float = Field(0.005, gt=0, description="last temperature, likewise")


class ReinforceMoves(Strict):
    """PPO on the exchange of two blocks."""

    steps: int = Field(256, ge=2, description="exchanges between two updates of the policy")
    walks: Count = Field(16, description="walks that share a rollout; they divide `steps`")
    episode: Count = Field(8, description="exchanges after which a walk starts again")
    restart: Literal["best", "start"] = Field(
        "best", description="from the best placement found so far, or from the run's start"
    )
    patience: Count = Field(8, description="rollouts without a new best after which policy and walks begin anew")
    learning_rate: float = Field(3e-3, ge=0, description="of Adam; 0 is a policy that never learns")
    epochs: Count = Field(10, description="passes over a rollout")
    minibatch: int = Field(128, ge=2, description="exchanges per update; they divide `steps`")
    entropy: float = Field(0.01, ge=0, description="weight of the entropy bonus")
    discount: Share = Field(0.9, description="what the next reward is worth now")
    hidden: list[Count] = Field([64, 64], description="sizes of the policy's and the value's layers")

    @model_validator(mode="after")
    def _parts_divide_the_rollout(self) -> "ReinforceMoves":
        if self.steps % self.walks or self.steps % self.minibatch:
            raise ValueError(
                f"steps {self.steps}: expected a multiple of walks {self.walks} and minibatch {self.minibatch}"
            )
        return self


class RandomSettings(SearchSettings):
    """Random placements, the best kept."""

    batch: Count = Field(100, description="placements of a generation")


class GeneticSettings(SearchSettings, GeneticMoves):
    """Genetic search over permutations."""

    population: int = Field(100, ge=2, description="individuals")
    spread: int = Field(
        2, ge=0, description="exchanges part each individual of the first population from a start, where one is given"
    )

    @model_validator(mode="after")
    def _parents_compete(self) -> "GeneticSettings":
        if self.tournament > self.population:
            raise ValueError(f"tournament {self.tournament}: expected 1 to the population of {self.population}")
        return self


class ClimbSettings(SearchSettings, ClimbMoves):
    """Hill climbing."""


class AnnealSettings(SearchSettings, AnnealMoves):
    """Simulated annealing."""


class ReinforceSettings(SearchSettings, ReinforceMoves):
    """PPO on the exchange of two blocks."""
