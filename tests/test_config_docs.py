"""`config/` says what the model of a study says, and every study in it is one."""

import json
from pathlib import Path
from typing import Literal

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, Field

from scatterproof.command import config_docs
from scatterproof.config.study import Study, read_study

CONFIG = Path(__file__).parents[1] / "config"
STUDIES = sorted(CONFIG.glob("*.yaml"))


@pytest.mark.parametrize("name", config_docs.files())
def test_is_not_stale(name: str) -> None:
    assert (CONFIG / name).read_text(encoding="utf-8") == config_docs.files()[name], "run `make config-docs`"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_validates(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith(config_docs.MODELINE + "\n")
    study = read_study(path)
    assert study.study == path.stem
    schema = json.loads((CONFIG / "study.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema, jsonschema.Draft202012Validator)


def test_defaults_are_the_models() -> None:
    assert read_study(CONFIG / "defaults.yaml") == Study(study="defaults")


def test_schema_refuses_what_the_model_refuses() -> None:
    validator = jsonschema.Draft202012Validator(config_docs.json_schema())
    for bad in ({}, {"study": "x", "sede": 1}, {"study": "x", "prune": {"keep": [1.5]}}, {"study": "a/b"}):
        assert not validator.is_valid(bad), bad


def test_every_key_is_explained() -> None:
    def check(model: type[BaseModel]) -> None:
        assert model.__doc__, f"{model.__name__} has no docstring"
        for key, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{key} has no description"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                check(field.annotation)

    check(Study)


class _Leaf(BaseModel):
    """A leaf."""

    colour: Literal["red", "green"] = Field("red", description="either | or")
    share: float | None = Field(None, ge=0, lt=1, description="a share")


class _Tree(BaseModel):
    """A tree."""

    name: str = Field(description="its name")
    title: str = Field("t", description="a key called title")
    leaf: _Leaf = Field(_Leaf(), description="one leaf")
    leaves: list[_Leaf] = Field([], description="many leaves")
    named: dict[str, _Leaf] = Field({}, description="leaves by name")
    counts: list[int] = Field([1], min_length=1, description="counts")


def test_page_of_any_model() -> None:
    page = config_docs.markdown(_Tree)
    assert "| `name` | text | required | its name |" in page
    assert "| `title` | text | `t` | a key called title |" in page
    assert "| `leaf` | [section](#leaf) |  | one leaf |" in page
    assert "| `leaves` | list of [sections](#leaves) |  | many leaves |" in page
    assert "| `named` | mapping of [sections](#named) |  | leaves by name |" in page
    assert "| `counts` | list of whole numbers, not empty | `[1]` | counts |" in page
    assert page.count("| `colour` | `red` \\| `green` | `red` | either \\| or |") == 3
    assert "| `share` | number ≥ 0, < 1 or none | none | a share |" in page
    assert yaml.safe_load(config_docs.defaults(_Tree))["leaf"] == {"colour": "red", "share": None}
