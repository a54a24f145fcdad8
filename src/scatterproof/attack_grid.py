"""Which attacks a study runs on which threats: the config, and the jobs that it makes. Imports no torch."""

from itertools import product
from typing import Annotated, Literal

from pydantic import Field, model_validator

from scatterproof.strict import PositiveShare, Strict
from scatterproof.threat import ThreatModel

DirectName = Literal["fingerprint"]
Known = Literal["none", "labels", "logits"]


class AttackGrid(Strict):
    """Attacks x shares of blocks held x images x what is known of them."""

    attacks: list[DirectName] = Field(["fingerprint"], min_length=1, description="attacks to run")
    keep: list[PositiveShare] = Field([1.0], min_length=1, description="shares of the blocks held")
    images: list[Annotated[int, Field(ge=0)]] = Field(
        [100], min_length=1, description="images that the pirate holds; 0: it makes up noise of its own"
    )
    knows: list[Known] = Field(
        ["none"], min_length=1, description="of its images: nothing, their labels, or the victim's logits"
    )


class AttacksConfig(Strict):
    """Attacks that compute a copy from the blocks, each on the threats that grant what it needs."""

    grids: list[AttackGrid] = Field([], description="what is run; empty: no attacks")
    victims: list[str] = Field(["victim"], min_length=1, description="victims attacked: `victim`, or controls")
    victim_seeds: int | None = Field(None, ge=1, description="how many of each victim's seeds; default all")

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


def attacks_on(config: AttacksConfig, scatter: Literal["layer", "dense"]) -> dict[str, tuple[ThreatModel, list[str]]]:
    """For each threat, by its name, the threat and the attacks to run on it, each once."""
    found: dict[str, tuple[ThreatModel, list[str]]] = {}
    for grid in config.grids:
        for keep, images, knows in product(grid.keep, grid.images, grid.knows):
            nothing: Known = "none"
            threat = ThreatModel(share=keep, scatter=scatter, images=images, knows=knows if images else nothing)
            names = found.setdefault(threat.name, (threat, []))[1]
            names += [name for name in grid.attacks if name not in names]
    return found
