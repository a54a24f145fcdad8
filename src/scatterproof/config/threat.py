"""What the pirate knows and may query. Imports no torch: Snakemake names files by it."""

import re
from typing import Any, Literal, NamedTuple

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from scatterproof.config.base import PositiveShare, Strict
from scatterproof.config.settings.defences import UNDEFENDED, AnyDefence

Activations = Literal["none", "inputs", "both"]
Part = Literal["scatter", "share", "images", "knows", "base", "defence", "activations", "stream"]

WITH_STREAM = "+stream"  # in the name of a hijack's threat: what follows is the traffic that it grants
_DRAW = "~"  # in the name of a threat's puzzle that is not the first one cut: what follows is its number
_NAME = re.compile(
    r"(?P<scatter>layer|dense)-(?P<share>\d+(?:\.\d+)?(?:e-\d+)?)-(?P<images>\d+)-(?P<knows>none|labels|logits)"
    r"(?:-(?P<base>base))?(?:-(?P<defence>.+?))??(?:-(?P<activations>(?:inputs|both)-\d+))?(?P<stream>\+stream-.+)?"
)


class ThreatModel(Strict):
    """What the pirate knows and may query."""

    share: PositiveShare = Field(1.0, description="share of the blocks on devices that the pirate holds")
    scatter: Literal["layer", "dense"] = Field("layer", description="one dense layer, or all of them, blocks mixed")
    images: int = Field(0, ge=0, description="images held")
    knows: Literal["none", "labels", "logits"] = Field(
        "none", description="of its images: nothing, their labels, or the victim's logits (one query each)"
    )
    base_model: bool = Field(False, description="whether a public base model of the victim is at hand")
    defence: AnyDefence = Field(UNDEFENDED, description="what is done to the layer before it is scattered")
    activations: Activations = Field(
        "none",
        description="what the pirate sees of requests: nothing, the scattered layer's inputs, or its inputs and those "
        "of the layer that reads it",
    )
    requests: int = Field(0, ge=0, description="requests whose activations it sees")

    @model_validator(mode="after")
    def _requests_are_seen(self) -> "ThreatModel":
        if (self.activations == "none") != (self.requests == 0):
            raise ValueError(f"requests: {self.requests}, activations: {self.activations}: expected both or neither")
        if self.activations != "none" and self.scatter != "layer":
            raise ValueError("activations: those of one layer are seen, expected scatter: layer")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_parts(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """No word of what is absent: a threat without a defence stays, as text, what it was before there were any."""
        values: dict[str, Any] = handler(self)
        if self.defence == UNDEFENDED:
            del values["defence"]
        if self.activations == "none":
            del values["activations"], values["requests"]
        return values

    @property
    def name(self) -> str:
        """Short name, such as `layer-0.25-100-labels-rescale-10`."""
        parts = [self.scatter, f"{self.share:g}", str(self.images), self.knows]
        parts += ["base"] if self.base_model else []
        parts += [self.defence.label] if self.defended else []
        parts += [self.activations, str(self.requests)] if self.requests else []
        return "-".join(parts)

    @property
    def granted(self) -> str:
        """What is known of the images, with `-base` where a public base model is at hand: the tables' `knows`."""
        return f"{self.knows}-base" if self.base_model else self.knows

    @property
    def defended(self) -> bool:
        """Whether anything is done to the layer."""
        return bool(self.defence != UNDEFENDED)

    @property
    def undefended(self) -> "ThreatModel":
        """The same threat to the layer as it is."""
        return self.model_copy(update={"defence": UNDEFENDED})


class Parts(NamedTuple):
    """The parts of a threat's name, as text; one that the threat has not is empty.

    base: `base`; defence: its label; activations: with the requests, such as `inputs-25`; stream: all of it, such as
    `+stream-1-10+relays=2`.
    """

    scatter: str
    share: str
    images: str
    knows: str
    base: str
    defence: str
    activations: str
    stream: str


def parts_of(name: str) -> Parts:
    """The parts of a threat's name, also of one with traffic. Raises: ValueError."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"no threat's name: {name}")
    return Parts(**match.groupdict(default=""))


def rest_of(name: str, *but: Part) -> str:
    """A threat's name without the parts that a table or a figure varies over, such as `share` and `images`.

    Two threats have the same rest where they differ in nothing else. Raises: ValueError.
    """
    parts = parts_of(name)._replace(**dict.fromkeys(but, ""))
    return "-".join(filter(None, parts[:-1])) + parts.stream


def knows_of(name: str) -> str:
    """What the pirate knows of its images under a threat of this name, also one with traffic."""
    return parts_of(name).knows


def granted_knowledge(name: str) -> str:
    """The same with `-base` where a public base model is at hand, as the column `knows` of the tables has it."""
    parts = parts_of(name)
    return f"{parts.knows}-base" if parts.base else parts.knows


def drawn(name: str, draw: int) -> str:
    """The name of a draw of what has this name, cut from one victim more than once; the first draw's is the name."""
    return f"{name}{_DRAW}{draw}" if draw else name


def draw_of(name: str) -> int:
    """Which draw the name is of: 0 is the first."""
    return int(name.partition(_DRAW)[2] or 0)


def without_draw(name: str) -> str:
    """What it is a draw of."""
    return name.partition(_DRAW)[0]


def key_of_draw(draw: int) -> tuple[int | str, ...]:
    """What seeds it beside all else: nothing for the first, which stays as it is where more are asked for."""
    return ("draw", draw) if draw else ()
