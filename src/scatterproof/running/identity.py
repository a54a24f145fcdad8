"""What must be equal for a resumed run to equal an uninterrupted one, and in what two such identities differ."""

import json
from typing import Any


def differing(old: str, new: str) -> str:
    """The keys in which two identities (JSON) differ, with both values."""
    before, after = _flat(json.loads(old)), _flat(json.loads(new))
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    return ", ".join(f"{key} was {before.get(key)!r}, is {after.get(key)!r}" for key in keys)


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
