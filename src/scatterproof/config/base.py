"""What every model of a study's configuration shares."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """No unknown keys, no coercion of strings to numbers, immutable once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


def problems(error: ValidationError, prefix: str = "", model: type[BaseModel] | None = None) -> list[str]:
    """One line per problem: key, value, what was expected. model: what was read, for the nearest of its keys."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"{prefix}{key}: unknown key{_nearest(item['loc'], model)}")
        elif item["type"] == "value_error":
            message = item["msg"].removeprefix("Value error, ")
            lines.append(message if message.startswith(key) else f"{prefix}{key}.{message}")
        else:
            lines.append(f"{prefix}{key}: {item['msg']}, got {item['input']!r}")
    return lines


def _nearest(place: Sequence[Any], model: type[BaseModel] | None) -> str:
    """The key that is most like an unknown one, of those that may stand there."""
    models = [model] if model else []
    for key in place[:-1]:
        if any(key in one.model_fields for one in models):  # list indices, mapping names and union tags are no fields
            fields = [one.model_fields[key].annotation for one in models if key in one.model_fields]
            models = [found for annotation in fields for found in _models(annotation)]
    known = [name for one in models for name in one.model_fields]
    return "".join(f" (nearest: {name})" for name in difflib.get_close_matches(str(place[-1]), known, 1, 0.7))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation, such as `dict[str, list[Model]] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
