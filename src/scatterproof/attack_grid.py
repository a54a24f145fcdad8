"""Which attacks a study runs on which threats: what each needs, the config, and the jobs. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scatterproof.strict import PositiveShare, Strict
from scatterproof.threat import ThreatModel

Known = Literal["none", "labels", "logits"]
DirectName = Literal["borrow", "fingerprint", "nothing", "prior", "refine", "relax"]
Role = Literal["blocks", "withheld", "ceiling"]

NOTHING, BORROW = "nothing", "borrow"


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
    "fingerprint": Knowledge(),
    "prior": Knowledge(base_model=True),
    "relax": Knowledge(images=20, knows=("labels", "logits")),
    "refine": Knowledge(images=20, knows=("labels", "logits")),
    NOTHING: Knowledge("withheld", scatter=("layer", "dense")),
    BORROW: Knowledge("withheld", scatter=("layer", "dense"), base_model=True),
}
ALWAYS = (NOTHING, BORROW)  # so that a verdict always has something to be set against
NO_HYPERPARAMETERS = {
    "grids",
    "victims",
    "victim_seeds",
    "threats_per_job",
    "control_shuffles",
}  # keys that no running attack reads


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
    control_shuffles: int = Field(
        20, ge=1, description="layers drawn anew, on which each attack that reads the blocks must find nothing"
    )
    refine: RefineConfig = Field(RefineConfig(), description="hyperparameters")
    relax: RelaxConfig = Field(RelaxConfig(), description="hyperparameters")
    threats_per_job: int = Field(
        1, ge=1, description="threats per job; a killed job goes on with the attacks that it had not finished"
    )

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
    families = {"refine": config.refine, "relax": config.relax}
    return families[attack].model_dump() if attack in families else {}


def grid_threats(grid: AttackGrid, scatter: Literal["layer", "dense"]) -> list[ThreatModel]:
    """The threats of a grid. Without images nothing is known of them."""
    nothing: Known = "none"
    return [
        ThreatModel(share=keep, scatter=scatter, images=images, knows=knows if images else nothing, base_model=base)
        for keep, images, knows, base in product(grid.keep, grid.images, grid.knows, grid.base_model)
    ]


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
