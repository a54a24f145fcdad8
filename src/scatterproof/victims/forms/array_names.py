"""The arrays of an .npz by the names that people give them: train_images, X_test, testY and the like."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from scatterproof.victims.download import DatasetError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
BESIDE = ("mask", "segments")  # of token ids: which are there at all, and of which of two texts each is
_KINDS = {
    "x": (
        "x", "xs", "images", "image", "imgs", "img", "data", "inputs", "features", "inputids", "tokens", "ids",
        "pixelvalues",
    ),
    "y": ("y", "ys", "labels", "label", "targets", "target"),
    "mask": ("attentionmask", "mask", "masks"),
    "segments": ("tokentypeids", "segmentids"),
}  # fmt: skip
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
    """Under which name each of the four arrays stands, those beside token ids by role, and what else was there.

    layout: what x_train and x_test hold of several named inputs, as `victim.inputs` says it.
    """

    x_train: str
    y_train: str
    x_test: str
    y_test: str
    beside: Mapping[str, str] = field(default_factory=dict)
    surplus: tuple[str, ...] = ()
    layout: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_role(self) -> dict[str, str]:
        """Each array that is read, by what it is."""
        return {role: getattr(self, role) for role in ARRAYS} | dict(self.beside)

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
        by_role |= {f"{kind}_test": by_role[f"{kind}_val"] for kind in _KINDS if f"{kind}_val" in by_role}
    missing = [role for role in ARRAYS if role not in by_role]
    if missing:
        shown = ", ".join(present) or "none"
        raise DatasetError(
            f"{path}: missing {', '.join(missing)} (present: {shown}), expected {', '.join(ARRAYS)}"
            + _nearest(missing, [name for name in present if [name] not in by_role.values()])
        )
    names = {role: _only(path, role, by_role[role]) for role in ARRAYS}
    beside = _beside(path, by_role)
    used = {*names.values(), *beside.values()}
    return ArrayNames(**names, beside=beside, layout={}, surplus=tuple(name for name in present if name not in used))


def _beside(path: Path, by_role: Mapping[str, list[str]]) -> dict[str, str]:
    """The arrays beside token ids, each in both splits. Raises: DatasetError where one split lacks one."""
    names: dict[str, str] = {}
    for kind in BESIDE:
        train, test = f"{kind}_train", f"{kind}_test"
        there = [role for role in (train, test) if role in by_role]
        if len(there) == 1:
            name = by_role[there[0]][0]
            raise DatasetError(f"{path}: {name} is there for one split alone, expected one for training and test each")
        names |= {role: _only(path, role, by_role[role]) for role in there}
    return names


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
