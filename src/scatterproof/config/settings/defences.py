"""Which defences a study may name, with their settings. Imports no torch."""

import json
import re
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, PositiveFloat, TypeAdapter, field_validator

from scatterproof.config.base import PositiveShare, Strict


class DefenceSettings(Strict):
    """What every defence's settings share. Each default stands here alone.

    trusted: whether a trusted party takes part in each request.
    """

    trusted: ClassVar[bool] = True
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """All settings but the name."""
        return self.model_dump(exclude={"name"})

    @property
    def label(self) -> str:
        """Short name for files and threats, such as `rescale-10`."""
        return "-".join([self.name, *map(_short, self.parameters.values())])

    @property
    def words(self) -> str:
        """The parameters for a table, such as `factor=10`."""
        return ", ".join(f"{key}={_short(value)}" for key, value in self.parameters.items())


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class NoneSettings(DefenceSettings):
    """No defence: the devices hold the layer's own blocks."""

    trusted: ClassVar[bool] = False
    name: Literal["none"] = Field("none", description="no defence")


class RescaleSettings(DefenceSettings):
    """The layer's outputs in another order and scale, undone by the layer that reads them."""

    trusted: ClassVar[bool] = False
    name: Literal["rescale"] = Field(
        description="the layer's outputs are permuted and scaled, and the layer that reads them undoes it"
    )
    factor: float = Field(
        10.0,
        ge=1,
        description="scales are drawn log-uniformly between 1/factor and factor; 1: outputs are permuted alone",
    )


class HomeSettings(DefenceSettings):
    """A share of the blocks stays at the trusted party."""

    name: Literal["home"] = Field(description="a share of the blocks stays at the trusted party")
    share: PositiveShare = Field(
        1.0, description="of the layer's blocks; 1: the whole layer, and the devices hold random numbers"
    )
    choice: Literal["drawn", "largest", "telling"] = Field(
        "drawn",
        description="which blocks stay: drawn, those of largest norm, or those that tell the fingerprint most of where "
        "they lie",
    )


class WithholdSettings(DefenceSettings):
    """The strongest singular directions stay at the trusted party."""

    name: Literal["withhold"] = Field(description="the strongest singular directions stay at the trusted party")
    directions: PositiveFloat = Field(
        32.0,
        description="how many; below 1: as many as cost this share of the operations that the whole layer takes",
    )
    fill: Literal["plain", "refilled", "spread"] = Field(
        "plain",
        description="what the devices hold in their place: nothing; random inputs at the next singular value; or "
        "random inputs and outputs at values of the rest of the spectrum",
    )

    @field_validator("directions")
    @classmethod
    def _whole(cls, value: float) -> float:
        if value > 1 and value != round(value):
            raise ValueError("expected a whole number, or a share of the cost below 1")
        return value


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


DEFENCES = (NoneSettings, RescaleSettings, HomeSettings, WithholdSettings)
UNDEFENDED = NoneSettings()
if TYPE_CHECKING:
    AnyDefence = DefenceSettings
else:
    _ANY = Annotated[reduce(or_, DEFENCES), Field(discriminator="name")]
    _NAMES = Literal[tuple(get_args(kind.model_fields["name"].annotation)[0] for kind in DEFENCES)]
    AnyDefence = Annotated[_ANY, BeforeValidator(_named, json_schema_input_type=_NAMES | _ANY)]


def defence_of(values: Any) -> DefenceSettings:
    """A defence's settings from its name, or from a mapping that holds it."""
    settings: DefenceSettings = TypeAdapter(AnyDefence).validate_python(values)
    return settings


def defence_of_label(label: str) -> DefenceSettings:
    """The inverse of `label`. Raises: ValueError."""
    name, *values = re.split(r"(?<!\de)-", label)  # the minus of 1e-05 parts nothing
    keys = [key for each in DEFENCES if get_args(each.model_fields["name"].annotation) == (name,)
            for key in each.model_fields if key != "name"]  # fmt: skip
    settings: DefenceSettings = TypeAdapter(AnyDefence).validate_strings(
        {"name": name} | dict(zip(keys, values, strict=True)), strict=False
    )
    return settings


def defence_of_json(text: str) -> DefenceSettings:
    """The same from JSON, for a rule's parameter."""
    return defence_of(json.loads(text))
