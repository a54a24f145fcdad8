"""Which attacks a study runs on which threats: what each needs, the config, and the jobs. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scatterproof.config.base import PositiveShare, Strict
from scatterproof.config.threat import ThreatModel

Known = Literal["none", "labels", "logits"]
OnBlocks = Literal["fingerprint", "prior", "relax", "refine", "blocks"]
Withheld = Literal["nothing", "borrow", "probe", "layer", "finetune", "surrogate"]
DirectName = Literal[OnBlocks, Withheld]
Role = Literal["blocks", "withheld", "ceiling"]

NOTHING, BORROW = "nothing", "borrow"
TAUGHT = ("labels", "logits")


@dataclass(frozen=True)
class Knowledge:
    """What a threat must grant for an attack to run, and whether the attack reads the blocks.

    role: `blocks`, or `withheld`: the same pirate without the blocks, which the base class keeps from it; scatter: what
    may be scattered; images: how many at least; knows: what must be known of the images, any of these; base_model:
    whether it takes a public base model.
    """

    role: Role = "blocks"
    scatter: tuple[str, ...] = ("layer",)
    images: int = 0
    knows: tuple[str, ...] = ("none", "labels", "logits")
    base_model: bool = False

    def missing(self, threat: ThreatModel) -> str:
        """What the threat doesn't grant, in words; empty where it grants all."""
        if threat.scatter not in self.scatter:
            return f"what is scattered to be {' or '.join(self.scatter)}, the threat scatters {threat.scatter}"
        if threat.images < self.images:
            return f"at least {self.images} images, the threat grants {threat.images}"
        if threat.knows not in self.knows:
            return f"{' or '.join(self.knows)} of its images, the threat grants {threat.knows}"
        if self.base_model and not threat.base_model:
            return "a public base model, the threat grants none"
        return ""


KNOWLEDGE: Mapping[str, Knowledge] = {
    "fingerprint": Knowledge(scatter=("layer", "dense")),
    "prior": Knowledge(base_model=True),
    "relax": Knowledge(images=20, knows=("labels", "logits")),
    "refine": Knowledge(images=20, knows=("labels", "logits")),
    NOTHING: Knowledge("withheld", scatter=("layer", "dense")),
    BORROW: Knowledge("withheld", scatter=("layer", "dense"), base_model=True),
    "probe": Knowledge("withheld", ("layer", "dense"), images=5, knows=TAUGHT),
    "layer": Knowledge("withheld", ("layer", "dense"), images=5, knows=TAUGHT),
    "finetune": Knowledge("withheld", ("layer", "dense"), images=5, knows=TAUGHT),
    "blocks": Knowledge(images=5, knows=TAUGHT),
    "surrogate": Knowledge("withheld", ("layer", "dense"), images=50, knows=TAUGHT),
}
ALWAYS = (NOTHING, BORROW, "layer")  # so that a verdict always has something to be set against
NO_HYPERPARAMETERS = {
    "grids",
    "victims",
    "victim_seeds",
    "threats_per_job",
    "control_shuffles",
}  # keys that no running attack reads


Rate = Annotated[float, Field(gt=0)]


class TrainingConfig(Strict):
    """`probe`, `layer` and `blocks`: dense layers trained on features that are computed once."""

    updates: int = Field(300, ge=8, description="steps of each training")
    batch: int = Field(64, ge=1, description="images per step")
    rates: list[Rate] = Field(
        [0.03, 0.1],
        min_length=1,
        description="learning rates that images held out choose from, as shares of the weights' own size",
    )
    decays: list[Annotated[float, Field(ge=0)]] = Field(
        [0.0], min_length=1, description="likewise: weight decay towards the start, per step at rate 1"
    )
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the pirate's images that chooses")


class BlocksConfig(TrainingConfig):
    """`blocks`: training that starts from the blocks as the fingerprint places them."""

    rates: list[Rate] = Field(
        [0.01, 0.05],
        min_length=1,
        description="learning rates that images held out choose from, as shares of the weights' own size",
    )
    decays: list[Annotated[float, Field(ge=0)]] = Field(
        [0.0, 3.0], min_length=1, description="likewise: weight decay towards the start, per step at rate 1"
    )


class FinetuneConfig(TrainingConfig):
    """`finetune`: all layers trained, after the missing one as `layer` trains it."""

    updates: int = Field(60, ge=8, description="steps of each training of all layers")
    rates: list[Rate] = Field(
        [0.003],
        min_length=1,
        description="learning rates that images held out choose from, as shares of the weights' own size",
    )


class SurrogateModel(Strict):
    """One surrogate's architecture: keys of `victim`; those left out are the victim's own."""

    model: str | None = Field(None, description="as `victim.model`")
    width: float | None = Field(None, gt=0, le=4, description="as `victim.width`")
    model_args: dict[str, Any] = Field({}, description="as `victim.model_args`")

    @property
    def keys(self) -> dict[str, Any]:
        """Those that differ."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


class SurrogateConfig(Strict):
    """`surrogate`: networks trained from nothing on the pirate's images, of which the best counts."""

    models: list[SurrogateModel] = Field(
        [SurrogateModel(model="vgg16_bn")], min_length=1, description="their architectures"
    )
    updates: int = Field(400, ge=1, description="steps of each training, at least; and at least eight passes")
    train: dict[str, Any] = Field(
        {"schedule": "onecycle"}, description="keys of `victim.train` that differ, but for the epochs"
    )
    held_out: float = Field(0.1, gt=0, lt=1, description="share of the pirate's images that chooses")

    @model_validator(mode="after")
    def _epochs_follow(self) -> "SurrogateConfig":
        if "epochs" in self.train:
            raise ValueError("attacks.surrogate.train.epochs: they follow from attacks.surrogate.updates")
        return self


class RefineConfig(Strict):
    """Moves from the fingerprint's placement."""

    held_out: float = Field(0.3, gt=0, lt=1, description="share of the images that tell when to stop")
    rates: list[Annotated[float, Field(gt=0)]] = Field(
        [0.003, 0.01, 0.03],
        min_length=1,
        description="of the training of the layer that guides the fingerprint, each tried: the change of its outputs "
        "by the first step, as a share of their spread",
    )
    steps_trained: int = Field(100, ge=1, description="steps of that training")
    proposals: int = Field(256, ge=1, description="exchanges of two blocks, and likewise of three, that a sweep scores")
    sweeps: int = Field(40, ge=1, description="sweeps at most")
    patience: int = Field(3, ge=1, description="sweeps without a gain on the held-out images after which it ends")


class RelaxConfig(Strict):
    """Gumbel-Sinkhorn over the placement."""

    held_out: float = Field(0.3, gt=0, lt=1, description="share of the images that tell when to stop")
    steps_taken: int = Field(60, ge=1, description="steps of Adam at most")
    samples: int = Field(2, ge=1, description="Gumbel samples of a step")
    rate: float = Field(0.1, gt=0, description="learning rate of the logits")
    hot: float = Field(1.0, gt=0, description="first temperature")
    cold: float = Field(0.2, gt=0, description="last temperature")
    noise: float = Field(0.3, ge=0, description="size of the Gumbel noise")
    start: Literal["fingerprint", "nothing"] = Field("fingerprint", description="the first logits: its scores, or zero")


class AttackGrid(Strict):
    """Attacks x shares of blocks held x images x what is known of them; each attack wherever its needs are granted."""

    attacks: list[DirectName] = Field(["fingerprint"], min_length=1, description="attacks to run")
    keep: list[PositiveShare] = Field([1.0], min_length=1, description="shares of the blocks held")
    images: list[Annotated[int, Field(ge=0)]] = Field(
        [100], min_length=1, description="images that the pirate holds; 0: it makes up noise of its own"
    )
    knows: list[Known] = Field(
        ["none"], min_length=1, description="of its images: nothing, their labels, or the victim's logits"
    )
    base_model: list[bool] = Field(
        [False], min_length=1, description="whether the public model that the victim started from is at hand"
    )


class AttacksConfig(Strict):
    """Attacks that compute a copy of the model, with the blocks or without, and the verdict on each threat."""

    grids: list[AttackGrid] = Field([], description="what is run; empty: no attacks")
    victims: list[str] = Field(["victim"], min_length=1, description="victims attacked: `victim`, or controls")
    victim_seeds: int | None = Field(None, ge=1, description="how many of each victim's seeds; default all")
    block_size: int | None = Field(
        None, ge=1, description="side of the blocks attacked, one of `block_sizes`; default the study's main one"
    )
    control_shuffles: int = Field(
        20,
        ge=10,
        description="layers drawn anew, on which each attack that reads the blocks must find nothing; with fewer than "
        "ten one that finds nothing would too often fail by luck",
    )
    refine: RefineConfig = Field(RefineConfig(), description="hyperparameters")
    relax: RelaxConfig = Field(RelaxConfig(), description="hyperparameters")
    threats_per_job: int = Field(
        1, ge=1, description="threats per job; a killed job goes on with the attacks that it had not finished"
    )
    layer: TrainingConfig = Field(TrainingConfig(), description="hyperparameters of `layer` and `probe`")
    blocks: BlocksConfig = Field(BlocksConfig(), description="hyperparameters")
    finetune: FinetuneConfig = Field(FinetuneConfig(), description="hyperparameters")
    surrogate: SurrogateConfig = Field(SurrogateConfig(), description="hyperparameters")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "AttacksConfig":
        if len(set(self.victims)) != len(self.victims):
            raise ValueError(f"attacks.victims {self.victims}: a name stands twice")
        keeps = {keep for grid in self.grids for keep in grid.keep}
        if len({f"{keep:g}" for keep in keeps}) != len(keeps):
            raise ValueError(f"attacks.grids: keep {sorted(keeps)}: two shares are equal to six digits")
        return self

    @property
    def images_needed(self) -> int:
        """Images that the pirate must hold."""
        return max((max(grid.images) for grid in self.grids), default=0)


def hyperparameters(config: AttacksConfig, attack: str) -> dict[str, Any]:
    """Of an attack by its name, those that the study sets."""
    if attack in ("probe", "layer"):
        return _fields(config.layer)
    if attack == "finetune":
        return _fields(config.finetune) | {"layer": _fields(config.layer)}
    if attack == "surrogate":
        return _fields(config.surrogate) | {"models": tuple(each.keys for each in config.surrogate.models)}
    families: dict[str, Strict] = {"blocks": config.blocks, "refine": config.refine, "relax": config.relax}
    return _fields(families[attack]) if attack in families else {}


def _fields(config: Strict) -> dict[str, Any]:
    """Lists as tuples: attacks are compared and hashed by what they are."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.model_dump().items()}


def grid_threats(grid: AttackGrid, scatter: Literal["layer", "dense"]) -> list[ThreatModel]:
    """The threats of a grid. Without images nothing is known of them."""
    nothing: Known = "none"
    return [
        ThreatModel(share=keep, scatter=scatter, images=images, knows=knows if images else nothing, base_model=base)
        for keep, images, knows, base in product(grid.keep, grid.images, grid.knows, grid.base_model)
    ]


def taught_by(attack: str, knows: str) -> str:
    """What an attack learns from where the pirate knows so much, labels or logits; empty for one that needs neither."""
    return "" if attack not in KNOWLEDGE or "none" in KNOWLEDGE[attack].knows else knows


def attacks_on(config: AttacksConfig, scatter: Literal["layer", "dense"]) -> dict[str, tuple[ThreatModel, list[str]]]:
    """For each threat, by its name, the threat and the attacks to run on it, each once.

    Raises: ValueError where no threat of its grid grants what an attack needs.
    """
    found: dict[str, tuple[ThreatModel, list[str]]] = {}
    for grid in config.grids:
        threats = grid_threats(grid, scatter)
        for attack in grid.attacks:
            if all(KNOWLEDGE[attack].missing(threat) for threat in threats):
                raise ValueError(f"attacks.grids: {attack} needs {KNOWLEDGE[attack].missing(threats[-1])}")
        for threat in threats:
            names = found.setdefault(threat.name, (threat, []))[1]
            wanted = [name for name in (*grid.attacks, *ALWAYS) if not KNOWLEDGE[name].missing(threat)]
            names += [name for name in dict.fromkeys(wanted) if name not in names]
    return found


def attack_jobs(config: AttacksConfig, scatter: Literal["layer", "dense"]) -> list[dict[str, list[str]]]:
    """The jobs for one seed of one victim: for each the attacks on each of its threats, by the threat's name."""
    found = [(name, attacks) for name, (_, attacks) in attacks_on(config, scatter).items()]
    size = config.threats_per_job
    return [dict(found[first : first + size]) for first in range(0, len(found), size)]
