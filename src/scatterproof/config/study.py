"""The study: one validated description of everything that is run, from one YAML file.

Imports no torch: Snakemake parses this in every job.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from scatterproof.config.attacks import AttacksConfig, attacks_on
from scatterproof.config.base import PositiveShare, Share, Strict, problems
from scatterproof.config.cost import CostConfig
from scatterproof.config.dataset import DatasetConfig, refuse_augment
from scatterproof.config.fineness import FinenessConfig
from scatterproof.config.retraining import RetrainingConfig, RetrainingRun, retraining_runs
from scatterproof.config.run import BudgetConfig, RunConfig
from scatterproof.config.search import PlateauConfig, SearchConfig
from scatterproof.config.stream import StreamConfig
from scatterproof.config.victim import TrainConfig, VictimConfig
from scatterproof.errors import UserError


class StudyError(UserError):
    """A study that cannot be run, said in one line per problem: file, key, value, what was expected."""


Correction = Literal["none", "scale", "mean"]


class PruneConfig(Strict):
    """P1: the pirate holds a random part of the blocks and knows their places."""

    keep: list[Share] = Field([0.1, 0.25, 0.5, 0.75, 1.0], min_length=1, description="shares of the blocks held")
    repeats: int = Field(5, ge=1, description="random draws per share and victim")
    corrections: list[Correction] = Field(
        ["none", "scale", "mean"],
        min_length=1,
        description="what the pirate does about missing blocks: nothing; divide each row's sum by its share held; "
        "or add the mean that the missing blocks would have added, as estimated from the held ones",
    )
    images: int = Field(100, ge=0, description="unlabelled images of the pirate's that `mean` is estimated on")

    @model_validator(mode="after")
    def _mean_has_images(self) -> "PruneConfig":
        if "mean" in self.corrections and self.images == 0:
            raise ValueError("prune.images is 0, but the correction 'mean' needs at least 1")
        return self

    @property
    def images_needed(self) -> int:
        """Images that the pirate must hold for the corrections asked for."""
        return self.images if "mean" in self.corrections else 0


class ShuffleConfig(Strict):
    """S1: the pirate holds a part of the blocks; of those a share is displaced."""

    keep: list[Share] = Field([0.1, 0.25, 0.5, 0.75, 1.0], min_length=1, description="shares of the blocks held")
    moved: list[Share] = Field([1.0], min_length=1, description="of the blocks held, the shares put at random places")
    repeats: int = Field(5, ge=1, description="random draws per share and victim")


class TheoryConfig(Strict):
    """The talk's clue probability, for these holdings and populations."""

    keep: list[PositiveShare] = Field([0.1], min_length=1, description="shares of the blocks held")
    populations: list[Annotated[int, Field(ge=1)]] = Field(
        [10, 20, 50, 100], min_length=1, description="population sizes"
    )


class Study(Strict):
    """Everything that one `snakemake` run does."""

    study: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the study and of its folder under `results/`"
    )
    seed: int = Field(0, ge=0, description="seed of every random draw but the victims' own")
    dataset: DatasetConfig = Field(DatasetConfig(), description="the images")
    victim: VictimConfig = Field(VictimConfig(), description="the victim")
    further_victims: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], dict[str, Any]] = Field(
        {},
        description="further victims by name, each a set of `victim` keys that differ, such as "
        "`copy_free: {input_size: 28}`",
    )
    scatter: Literal["layer", "dense"] = Field(
        "layer", description="what is scattered: one dense layer, or every dense layer at once, blocks mixed"
    )
    block_sizes: list[Annotated[int, Field(ge=1)]] = Field(
        [256], min_length=1, description="sides of the square blocks; the first is the study's main one"
    )
    prune: PruneConfig = Field(PruneConfig(), description="P1")
    shuffle: ShuffleConfig = Field(ShuffleConfig(), description="S1")
    theory: TheoryConfig = Field(TheoryConfig(), description="T")
    search: SearchConfig = Field(SearchConfig(), description="P2")
    plateau: PlateauConfig = Field(PlateauConfig(), description="L")
    attacks: AttacksConfig = Field(AttacksConfig(), description="reassembly from the weights")
    fineness: FinenessConfig = Field(FinenessConfig(), description="F")
    stream: StreamConfig = Field(StreamConfig(), description="P3, S3")
    retraining: RetrainingConfig = Field(RetrainingConfig(), description="what the attacks are compared with")
    run: RunConfig = Field(RunConfig(), description="machine")
    cost: CostConfig = Field(CostConfig(), description="assumptions of the account")
    budget: BudgetConfig = Field(BudgetConfig(), description="cluster")

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, keys: Any) -> Any:
        if not isinstance(keys, Mapping) or "controls" not in keys:
            return keys
        if "further_victims" in keys:
            raise ValueError("controls: the older name of further_victims, which is given too; expected one of them")
        return {"further_victims" if key == "controls" else key: value for key, value in keys.items()}

    @model_validator(mode="after")
    def _names_are_known(self) -> "Study":
        if self.scatter == "dense" and "mean" in self.prune.corrections:
            raise ValueError("prune.corrections: 'mean' needs scatter: layer")
        for name in self.further_victims:
            if name == "victim":
                raise ValueError("further_victims.victim: the name 'victim' is taken by the victim itself")
            self.victim_config(name)
        refuse_augment(self.model_dump(exclude_unset=True), self.dataset.inputs)
        for key in ("search", "attacks", "fineness", "stream", "retraining"):
            for name in getattr(self, key).victims:
                if name not in self.names:
                    expected = " or ".join(self.names)
                    raise ValueError(f"{key}.victims: '{name}' is no victim of this study, expected {expected}")
        self._check_retraining()
        self._check_surrogates()
        attacks_on(self.attacks, self.scatter)
        if self.attacked_size not in self.block_sizes:
            raise ValueError(f"attacks.block_size: {self.attacked_size} is none of block_sizes {self.block_sizes}")
        for name in self.attacks.victims if any(True in grid.base_model for grid in self.attacks.grids) else []:
            if self.victim_config(name).base is None:
                raise ValueError(
                    f"attacks.grids.base_model: true, but the victim '{name}' has no base: expected victim.base, "
                    "'initialisation' or a checkpoint's path"
                )
        if self.scatter == "dense" and self.stream.grids:
            raise ValueError("stream.grids: the stream of one layer is served, scatter: dense needs stream.grids: []")
        if self.scatter == "dense" and self.search.precision != "fp32":
            raise ValueError(f"search.precision: scatter: dense is scored in fp32, not {self.search.precision}")
        for key, part in (("search", self.search), ("attacks", self.attacks)):
            climbs = any("hill_climbing" in grid.attacks for grid in part.grids)
            if self.scatter == "dense" and climbs and part.hill_climbing.proposals == "gradient":
                raise ValueError(f"{key}.hill_climbing.proposals: 'gradient' needs scatter: layer")
        if self.search.precision == "tf32" and self.run.device == "cpu":
            raise ValueError("search.precision: tf32 needs CUDA, and run.device is cpu")
        if len(set(self.block_sizes)) != len(self.block_sizes):
            raise ValueError(f"block_sizes {self.block_sizes}: a size stands twice")
        return self

    def victim_config(self, name: str) -> VictimConfig:
        """The victim named `victim`, or a further victim: the victim with its own keys laid over it."""
        if name == "victim":
            return self.victim
        changes = dict(self.further_victims[name])
        if isinstance(changes.get("train"), Mapping):
            changes["train"] = self.victim.train.model_dump() | dict(changes["train"])
        try:
            return VictimConfig.model_validate(self.victim.model_dump() | changes)
        except ValidationError as error:
            raise ValueError("; ".join(problems(error, f"further_victims.{name}.", VictimConfig))) from None

    def _check_retraining(self) -> None:
        for name in self.retraining.victims:
            for run in retraining_runs(self.retraining):
                self.retraining_config(name, run)

    def _check_surrogates(self) -> None:
        surrogate = self.attacks.surrogate
        runs = any("surrogate" in grid.attacks for grid in self.attacks.grids)
        if not runs and surrogate == AttacksConfig().surrogate:  # the default ones need not fit
            return
        for name in self.attacks.victims:
            victim = self.victim_config(name).model_dump() | {"kind": "train", "checkpoint": None}
            for each in surrogate.models:
                try:
                    VictimConfig.model_validate(victim | each.keys | {"train": victim["train"] | surrogate.train})
                except ValidationError as error:
                    raise ValueError("; ".join(problems(error, "attacks.surrogate."))) from None

    def retraining_config(self, name: str, run: RetrainingRun) -> VictimConfig:
        """The victim `name` as a run of retraining trains it: from nothing, by its recipe."""
        victim = self.victim_config(name)
        try:
            train = TrainConfig.model_validate(victim.train.model_dump() | dict(self.retraining.keys_of(run)))
        except ValidationError as error:
            raise ValueError("; ".join(problems(error, f"{run.key}."))) from None
        return victim.model_copy(update={"kind": "train", "checkpoint": None, "base": None, "train": train})

    @property
    def images_needed(self) -> dict[str, int]:
        """How many images of the pirate's each key asks for."""
        return {
            "prune.images": self.prune.images_needed,
            "search.grids.images": self.search.images_needed,
            "plateau.images": self.plateau.images_needed,
            "retraining.pirate_images": self.retraining.images_needed,
            "attacks.grids.images": self.attacks.images_needed,
            "fineness.images": self.fineness.images_needed,
            "stream.images": self.stream.images_needed,
        }

    @property
    def names(self) -> list[str]:
        """The names of the victim and the further ones."""
        return ["victim", *self.further_victims]

    @property
    def victims(self) -> list[tuple[str, int]]:
        """Every (name, seed) that is trained or read."""
        return [(name, seed) for name in self.names for seed in self.victim_config(name).seeds]

    @property
    def searched(self) -> list[tuple[str, int]]:
        """Every (name, seed) that placements are searched on."""
        return self._chosen(self.search.victims, self.search.victim_seeds)

    @property
    def attacked(self) -> list[tuple[str, int]]:
        """Every (name, seed) that attacks are run on."""
        return self._chosen(self.attacks.victims, self.attacks.victim_seeds)

    @property
    def attacked_size(self) -> int:
        """Side of the blocks that are attacked."""
        return self.attacks.block_size or self.block_sizes[0]

    @property
    def fineness_victims(self) -> list[tuple[str, int]]:
        """Every (name, seed) that is cut into blocks of several sizes."""
        return self._chosen(self.fineness.victims, self.fineness.victim_seeds) if self.fineness.block_sizes else []

    @property
    def controlled(self) -> list[tuple[str, int]]:
        """The (name, seed) whose layer the attacks' controls are made from: the first of each victim's."""
        return self._chosen(self.attacks.victims, 1)

    @property
    def streamed(self) -> list[tuple[str, int]]:
        """Every (name, seed) that is served by devices."""
        return self._chosen(self.stream.victims, self.stream.victim_seeds)

    @property
    def stream_controlled(self) -> list[tuple[str, int]]:
        """The (name, seed) whose layer the hijacks' controls are made from: the first of each victim's."""
        return self._chosen(self.stream.victims, 1) if self.stream.grids else []

    def _chosen(self, names: list[str], most: int | None) -> list[tuple[str, int]]:
        return [(name, seed) for name in names for seed in self.victim_config(name).seeds[:most]]

    @property
    def retrained(self) -> list[tuple[str, int]]:
        """Every (name, seed) that is trained again from nothing."""
        return self._chosen(self.retraining.victims, self.retraining.victim_seeds)


def parse_study(config: Mapping[str, Any], source: str) -> Study:
    """Validate a study; `source` names the file in errors.

    Raises: StudyError, with one line per problem.
    """
    try:
        return Study.model_validate(dict(config))
    except ValidationError as error:
        raise StudyError("\n".join(f"{source}: {line}" for line in problems(error, model=Study))) from None


def read_study(path: Path | str) -> Study:
    """Read a study from a YAML file. Raises: StudyError; OSError where the file can't be read."""
    return parse_study(load_mapping(path), str(path))


def load_mapping(path: Path | str) -> dict[str, Any]:
    """A YAML file's keys, none given twice. Raises: StudyError that names the line; OSError."""
    try:
        config = yaml.load(Path(path).read_text(encoding="utf-8"), _Once)
    except yaml.MarkedYAMLError as error:
        raise StudyError(f"{path}: line {getattr(error.problem_mark, 'line', 0) + 1}: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # of bytes that are no text, of a date that is none
        raise StudyError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise StudyError(f"{path}: expected a mapping of keys, got {type(config).__name__}")
    return config


class _Once(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in given and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            given.add(key.value)
        return super().construct_mapping(node, deep)
