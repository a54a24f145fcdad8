"""What every attack's settings share: what the attack needs of a threat, and a section of the study."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from scatterproof.config.base import Strict
from scatterproof.config.threat import Activations, ThreatModel

Known = Literal["none", "labels", "logits"]
Role = Literal["blocks", "withheld", "ceiling", "told"]
Rate = Annotated[float, Field(gt=0)]

ANY_KNOWN: tuple[Known, ...] = ("none", "labels", "logits")
TAUGHT: tuple[Known, ...] = ("labels", "logits")
ANY_SCATTER = ("layer", "dense")
ANY_ACTIVATIONS: tuple[Activations, ...] = ("none", "inputs", "both")


@dataclass(frozen=True)
class Needs:
    """What a threat must grant for an attack to run, and whether the attack reads the blocks.

    role: `blocks`, or `withheld`: the same pirate without the blocks, which the base class keeps from it; scatter: what
    may be scattered; images: how many at least; knows: what must be known of the images, any of these; base_model:
    whether it takes a public base model; activations: what must be seen of requests, any of these.
    """

    role: Role = "blocks"
    scatter: tuple[str, ...] = ("layer",)
    images: int = 0
    knows: tuple[Known, ...] = ANY_KNOWN
    base_model: bool = False
    activations: tuple[Activations, ...] = ANY_ACTIVATIONS

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
        if threat.activations not in self.activations:
            return f"activations of requests, {' or '.join(self.activations)}, the threat grants {threat.activations}"
        return ""


class Settings(Strict):
    """An attack's settings. Each default stands here alone."""

    needs: ClassVar[Needs] = Needs()
