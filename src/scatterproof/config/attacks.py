"""Which attacks a study runs on which threats: their settings, the grids, and the jobs. Imports no torch."""

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from scatterproof.config.base import Count, PositiveShare, Strict
from scatterproof.config.settings.base import Known, Needs, Settings
from scatterproof.config.settings.blocks import (
    FingerprintSettings,
    PriorSettings,
    RefineSettings,
    RelaxSettings,
    SeedSearchSettings,
)
from scatterproof.config.settings.ceilings import Form, granted_forms
from scatterproof.config.settings.defences import UNDEFENDED, AnyDefence
from scatterproof.config.settings.search import (
    AnnealSettings,
    ClimbSettings,
    GeneticSettings,
    RandomSettings,
    ReinforceSettings,
)
from scatterproof.config.settings.training import (
    BlocksSettings,
    BorrowSettings,
    FinetuneSettings,
    LayerSettings,
    NothingSettings,
    ProbeSettings,
    RegressSettings,
    SurrogateSettings,
)
from scatterproof.config.threat import Activations, ThreatModel, drawn

NOTHING, BORROW = "nothing", "borrow"
ALWAYS = (NOTHING, BORROW, "layer", "regress")  # so that a verdict always has something to be set against


class AttackSettings(Strict):
    """Every attack's settings, under the attack's name: this is the list of the attacks."""

    fingerprint: FingerprintSettings = Field(FingerprintSettings(), description="settings, also where others call it")
    prior: PriorSettings = Field(PriorSettings(), description="none")
    seed_search: SeedSearchSettings = Field(SeedSearchSettings(), description="settings")
    relax: RelaxSettings = Field(RelaxSettings(), description="settings")
    refine: RefineSettings = Field(RefineSettings(), description="settings")
    nothing: NothingSettings = Field(NothingSettings(), description="settings")
    borrow: BorrowSettings = Field(BorrowSettings(), description="none")
    regress: RegressSettings = Field(RegressSettings(), description="settings")
    probe: ProbeSettings = Field(ProbeSettings(), description="settings")
    layer: LayerSettings = Field(LayerSettings(), description="settings, also of the first stage of `finetune`")
    finetune: FinetuneSettings = Field(FinetuneSettings(), description="settings")
    blocks: BlocksSettings = Field(BlocksSettings(), description="settings")
    surrogate: SurrogateSettings = Field(SurrogateSettings(), description="settings")
    random: RandomSettings = Field(RandomSettings(), description="settings")
    hill_climbing: ClimbSettings = Field(ClimbSettings(), description="settings")
    annealing: AnnealSettings = Field(AnnealSettings(), description="settings")
    genetic: GeneticSettings = Field(GeneticSettings(), description="settings")
    reinforce: ReinforceSettings = Field(ReinforceSettings(), description="settings")

    def of(self, name: str) -> Settings:
        """An attack's settings by its name."""
        settings: Settings = getattr(self, name)
        return settings


NEEDS: Mapping[str, Needs] = {name: field.annotation.needs for name, field in AttackSettings.model_fields.items()}  # type: ignore[union-attr]
if TYPE_CHECKING:
    AttackName = str
else:
    AttackName = Literal[tuple(AttackSettings.model_fields)]


class AttackGrid(Strict):
    """Attacks x shares of blocks held x images x what is known of them; each attack wherever its needs are granted."""

    attacks: list[AttackName] = Field(["fingerprint"], min_length=1, description="attacks to run")
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
    defences: list[AnyDefence] = Field(
        [UNDEFENDED],
        min_length=1,
        description="what is done to the layer before it is scattered: a defence's name, or its name with its settings",
    )
    activations: list[Activations] = Field(
        ["none"],
        min_length=1,
        description="what the pirate sees of requests: nothing, the layer's inputs, or its inputs and those of the "
        "layer that reads it",
    )
    requests: list[Count] = Field([100], min_length=1, description="requests whose activations it sees")
    ceilings: list[Form] = Field(
        [],
        description="forms of the told ceiling, the pirate who is told every place and key: the blocks as they are "
        "(`told`), trained on (`told+train`), with a core on what is known (`told+core`), without labels "
        "(`told+free`); each where the images allow it",
    )


class AttacksConfig(AttackSettings):
    """Attacks, with the blocks or without, and the verdict on each threat."""

    grids: list[AttackGrid] = Field([], description="what is run; empty: no attacks")
    victims: list[str] = Field(["victim"], min_length=1, description="victims attacked: `victim`, or further ones")
    victim_seeds: int | None = Field(None, ge=1, description="how many of each victim's seeds; default all")
    block_size: int | None = Field(
        None, ge=1, description="side of the blocks attacked, one of `block_sizes`; default the study's main one"
    )
    draws: int = Field(
        1,
        ge=1,
        description="how often each victim's layer is scattered, each time with its own shuffle, key of the defence "
        "and images of the pirate; ten or more give a verdict on one checkpoint, as five victim seeds do on a recipe",
    )
    control_shuffles: int = Field(
        20,
        ge=10,
        description="layers drawn anew, on which each attack that reads the blocks must find nothing; with fewer than "
        "ten one that finds nothing would too often fail by luck",
    )
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
        return max((threat.images + threat.requests for g in self.grids for threat in grid_threats(g)), default=0)


def attack_settings_json(config: AttacksConfig) -> str:
    """Every attack's settings as text, for a rule's parameter."""
    return config.model_dump_json(include=set(AttackSettings.model_fields))


def grid_threats(grid: AttackGrid, scatter: Literal["layer", "dense"] = "layer") -> list[ThreatModel]:
    """The threats of a grid. Without images nothing is known of them, and without activations no request is seen."""
    nothing: Known = "none"
    seen = [(kind, requests if kind != "none" else 0) for kind in grid.activations for requests in grid.requests]
    parts = product(grid.keep, grid.images, grid.knows, grid.base_model, grid.defences, dict.fromkeys(seen))
    return [
        ThreatModel(
            share=keep,
            scatter=scatter,
            images=images,
            knows=knows if images else nothing,
            base_model=base,
            defence=defence,
            activations=kind,
            requests=requests,
        )
        for keep, images, knows, base, defence, (kind, requests) in parts
    ]


def taught_by(attack: str, knows: str) -> str:
    """What an attack learns from where the pirate knows so much, labels or logits; empty for one that needs neither."""
    return "" if attack not in NEEDS or "none" in NEEDS[attack].knows else knows


def attacks_on(config: AttacksConfig, scatter: Literal["layer", "dense"]) -> dict[str, tuple[ThreatModel, list[str]]]:
    """For each threat, by its name, the threat and the attacks to run on it, each once.

    Raises: ValueError where no threat of its grid grants what an attack needs.
    """
    by_threat: dict[str, tuple[ThreatModel, list[str]]] = {}
    for grid in config.grids:
        threats = grid_threats(grid, scatter)
        for attack in grid.attacks:
            if all(NEEDS[attack].missing(threat) for threat in threats):
                raise ValueError(f"attacks.grids: {attack} needs {NEEDS[attack].missing(threats[-1])}")
        for threat in threats:
            names = by_threat.setdefault(threat.name, (threat, []))[1]
            wanted = [name for name in (*grid.attacks, *ALWAYS) if not NEEDS[name].missing(threat)]
            names += [name for name in dict.fromkeys(wanted) if name not in names]
    return by_threat


def ceilings_on(config: AttacksConfig, scatter: Literal["layer", "dense"]) -> dict[str, list[Form]]:
    """For each threat that has a told ceiling, by its name, the forms that its images allow, each once."""
    forms: dict[str, list[Form]] = {}
    for grid in config.grids:
        for threat in grid_threats(grid, scatter) if grid.ceilings else []:
            wanted = {*grid.ceilings, *forms.get(threat.name, [])}
            forms[threat.name] = granted_forms(wanted, threat.images, threat.knows)
    return {name: each for name, each in forms.items() if each}


def attack_jobs(config: AttacksConfig, scatter: Literal["layer", "dense"]) -> list[dict[str, list[str]]]:
    """The jobs for one seed of one victim: for each the attacks on each of its threats, by the name of the threat's
    draw."""
    attacked = attacks_on(config, scatter).items()
    pairs = [(drawn(name, draw), attacks) for draw in range(config.draws) for name, (_, attacks) in attacked]
    size = config.threats_per_job
    return [dict(pairs[first : first + size]) for first in range(0, len(pairs), size)]
