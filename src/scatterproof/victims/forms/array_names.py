"""The arrays of an .npz by the names that people give them: train_images, X_test, testY and the like."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from scatterproof.victims.download import DatasetError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_KINDS = {
    "x": ("x", "xs", "images", "image", "imgs", "img", "data", "inputs"),
    "y": ("y", "ys", "labels", "label", "targets", "target"),
}
_PARTS = {
    "train": ("train", "training", "tr"),
    "test": ("test", "testing", "te"),
    "val": ("val", "valid", "validation"),
}


def _usual_names() -> Mapping[str, str]:
    """Every usual name, in small letters without what stands between them, and its role."""
    names = {}
    for (kind, kinds), (part, parts) in product(_KINDS.items(), _PARTS.items()):
        for one, other in product(kinds, parts):
            names[one + other] = names[other + one] = f"{kind}_{part}"
    return names


_USUAL = _usual_names()


@dataclass(frozen=True)
class ArrayNames:
    """Under which name each of the four arrays stands, and what else was in the file."""

    x_train: str
    y_train: str
    x_test: str
    y_test: str
    surplus: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """What differs from x_train, y_train, x_test and y_test alone."""
        words = [f"{getattr(self, role)} is {role}" for role in ARRAYS if getattr(self, role) != role]
        return words + ([f"left out {', '.join(self.surplus)}"] if self.surplus else [])


def array_names(path: Path, present: Sequence[str]) -> ArrayNames:
    """Which array is which; validation images are the test's where there are no others.

    Raises: DatasetError where an array is missing, or two may be the same.
    """
    by_role: dict[str, list[str]] = {}
    for name in present:
        role = name if name in ARRAYS else _USUAL.get(re.sub(r"[\W_]", "", name).lower())
        if role is not None:
            by_role.setdefault(role, []).append(name)
    if "x_test" not in by_role and "y_test" not in by_role:
        by_role |= {f"{kind}_test": by_role[f"{kind}_val"] for kind in "xy" if f"{kind}_val" in by_role}
    missing = [role for role in ARRAYS if role not in by_role]
    if missing:
        shown = ", ".join(present) or "none"
        raise DatasetError(
            f"{path}: missing {', '.join(missing)} (present: {shown}), expected {', '.join(ARRAYS)}"
            + _nearest(missing, [name for name in present if [name] not in by_role.values()])
        )
    names = {role: _only(path, role, by_role[role]) for role in ARRAYS}
    return ArrayNames(**names, surplus=tuple(name for name in present if name not in names.values()))


def _only(path: Path, role: str, names: list[str]) -> str:
    if role in names:
        return role
    if len(names) > 1:
        raise DatasetError(
            f"{path}: {' and '.join(names)} may each be {role}, expected one of them, or one named {role}"
        )
    return names[0]


def _nearest(missing: list[str], unused: list[str]) -> str:
    """The name that is most like a missing one, as a question; empty where none is."""
    for role in missing:
        near = difflib.get_close_matches(role, unused, 1)
        if near:
            return f": is '{near[0]}' {role}?"
    return ""
