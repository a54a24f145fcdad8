"""What the pirate knows and may query. Imports no torch: Snakemake names files by it."""

import re
from typing import Literal

from pydantic import Field

from scatterproof.config.base import PositiveShare, Strict


class ThreatModel(Strict):
    """What the pirate knows and may query."""

    share: PositiveShare = Field(1.0, description="share of the blocks held")
    scatter: Literal["layer", "dense"] = Field("layer", description="one dense layer, or all of them, blocks mixed")
    images: int = Field(0, ge=0, description="images held")
    knows: Literal["none", "labels", "logits"] = Field(
        "none", description="of its images: nothing, their labels, or the victim's logits (one query each)"
    )
    base_model: bool = Field(False, description="whether a public base model of the victim is at hand")

    @property
    def name(self) -> str:
        """Short name, such as `layer-0.25-100-labels`."""
        base = "-base" if self.base_model else ""
        return f"{self.scatter}-{self.share:g}-{self.images}-{self.knows}{base}"


def knows_of(name: str) -> str:
    """What the pirate knows of its images under a threat of this name, also one with traffic."""
    return granted_knowledge(name).removesuffix("-base")


def granted_knowledge(name: str) -> str:
    """The same with `-base` where a public base model is at hand, as the column `knows` of the tables has it."""
    match = re.search(r"-((none|labels|logits)(-base)?)(\+|$)", name)
    if match is None:
        raise ValueError(f"no threat's name: {name}")
    return match[1]
