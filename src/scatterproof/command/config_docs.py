"""Everything in `config/` that follows from the model of a study: its page, its JSON schema, its defaults.

`python -m scatterproof.command.config_docs` writes the three anew. All are drawn from the JSON schema that Pydantic
makes, so a new key or section of the model needs no change here.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from scatterproof.config.study import Study

Schema = dict[str, Any]

MODELINE = "# yaml-language-server: $schema=study.schema.json"

INTRO = """\
<!-- Written by `make config-docs` from the model of a study. Edit src/scatterproof/config/ instead. -->

# Studies

A study is one YAML file in this folder and everything that one run of the workflow does. Its results go to
`results/<study>/`, named by the key `study`. Run one with

<!-- A pattern: NAME stands for the study's name. -->
```bash no-run
make study STUDY=config/NAME.yaml
```

The file has a few keys of its own and one section for each stage, as below. A key that is left out has its default;
an unknown key or a value of the wrong type is refused before anything runs, with the file, the key and the value. To
make a study of your own, copy `demo.yaml`, give it another `study` name, and keep only what differs from the defaults,
which `defaults.yaml` spells out. The first line of each file,

```yaml
{modeline}
```

lets editors check and complete the keys as you type; `study.schema.json` is what they read.

Write numbers such as 0.00001 in full or as `1.0e-5`: YAML reads `1e-5` as text.
"""


def json_schema(model: type[BaseModel] = Study) -> Schema:
    """The JSON schema (2020-12) of a study, for editors and for Snakemake's `validate`."""
    schema = _without_titles(model.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": model.__name__, **schema}


def markdown(model: type[BaseModel] = Study) -> str:
    """The page that explains every key: a table for the study's own keys, then one for each section."""
    schema = json_schema(model)
    parts = [INTRO.format(modeline=MODELINE)]
    for path, section in _sections(schema, schema, ""):
        heading = f"`{path}`" if path else "The study's own keys"
        rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
        for key, field in section["properties"].items():
            default = "" if _nested(field) else _default(field, key in section.get("required", []))
            meaning = field.get("description", "").replace("|", "\\|")
            rows.append(f"| `{key}` | {_type(field, _join(path, key))} | {default} | {meaning} |")
        parts.append(f"## {heading}\n\n{section.get('description', '')}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def defaults(model: type[BaseModel] = Study) -> str:
    """A study with every default written out. Keys that have none get the name `defaults`."""
    required = dict.fromkeys(json_schema(model).get("required", []), "defaults")
    text = yaml.safe_dump(model.model_validate(required).model_dump(mode="json"), sort_keys=False, width=110)
    head = "# Every key at its default, for looking up; written by `make config-docs`. Not a study worth running.\n"
    return f"{MODELINE}\n{head}{text}"


def files(model: type[BaseModel] = Study) -> dict[str, str]:
    """What is to stand in `config/`: file name -> content."""
    return {
        "README.md": markdown(model),
        "study.schema.json": json.dumps(json_schema(model), indent=2, ensure_ascii=False) + "\n",
        "defaults.yaml": defaults(model),
    }


def _without_titles(schema: Any) -> Any:
    """Drop the titles that Pydantic makes from key names: editors show them instead of the meaning."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_titles(field) for name, field in value.items()}
        if key in ("properties", "$defs")
        else value
        if key in ("default", "examples")
        else _without_titles(value)
        for key, value in schema.items()
        if key != "title"
    }


def _sections(root: Schema, section: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every section, each before those within it, with its dotted path."""
    yield path, section
    for key, field in section["properties"].items():
        for name in _nested(field):
            yield from _sections(root, root["$defs"][name], _join(path, key))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _nested(field: Schema) -> list[str]:
    """Names of the models within a field: itself, items of a list, values of a mapping, one of several."""
    names = [field["$ref"].rpartition("/")[2]] if "$ref" in field else []
    inner = [field.get("items"), field.get("additionalProperties"), *field.get("patternProperties", {}).values()]
    for part in [*inner, *field.get("anyOf", []), *field.get("oneOf", []), *field.get("allOf", [])]:
        if isinstance(part, dict):
            names += [name for name in _nested(part) if name not in names]
    return names


def _type(field: Schema, path: str, many: bool = False) -> str:
    """The type of a field in words, with its bounds; in the plural for the items of a list."""
    s = "s" if many else ""
    if "$ref" in field:
        return f"[section{s}](#{path.replace('.', '').lower()})"
    if choices := field.get("enum", [field["const"]] if "const" in field else None):
        return " \\| ".join(_code(choice) for choice in choices)
    if options := field.get("anyOf", field.get("oneOf")):
        return " or ".join(_type(option, path, many) for option in options)
    kind = field.get("type")
    if kind == "array":
        items = f" of {_type(field['items'], path, many=True)}" if field.get("items") else ""
        least = {0: "", 1: ", not empty"}.get(field.get("minItems", 0), f", at least {field.get('minItems')} of them")
        most = f", at most {field['maxItems']} of them" if "maxItems" in field else ""
        return f"list{s}{items}{least}{most}"
    if kind == "object":
        patterns = list(field.get("patternProperties", {}).values())
        values = patterns[0] if patterns else field.get("additionalProperties")
        return (
            f"mapping{s} of {_type(values, path, many=True)}" if isinstance(values, dict) and values else f"mapping{s}"
        )
    names = {"string": "text" + s, "integer": "whole number" + s, "number": "number" + s, "null": "none"}
    return {**names, "boolean": "true or false"}.get(str(kind), "anything") + _bounds(field)


def _bounds(field: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field]
    if "pattern" in field:
        bounds.append("like `" + field["pattern"].replace("|", "\\|") + "`")
    return f" {', '.join(bounds)}" if bounds else ""


def _default(field: Schema, required: bool) -> str:
    if required:
        return "required"
    return "none" if field.get("default") is None else _code(field["default"])


def _code(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "`" + text.replace("|", "\\|") + "`"


def main() -> None:
    """Write the files anew."""
    parser = argparse.ArgumentParser(description="Write the files in config/ that follow from the model of a study.")
    parser.add_argument("folder", nargs="?", default="config", type=Path)
    folder = parser.parse_args().folder
    for name, content in files().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
