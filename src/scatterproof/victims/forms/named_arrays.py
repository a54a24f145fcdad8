"""Arrays of several named inputs, x_train.NAME and x_test.NAME, brought to rows of numbers float32 [N, numbers]."""

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scatterproof.victims.download import DatasetError
from scatterproof.victims.forms.values import to_features

NAMED = re.compile(r"x_(?P<part>train|test)\.(?P<name>.+)|x\.(?P<column>.+)_(?P<split>train|test|validation)")
MOST = 2**24  # up to which float32 holds every integer
Arrays = dict[str, NDArray[Any]]


def named_arrays(
    path: Path, present: Sequence[str], read: Callable[[str], NDArray[Any]]
) -> tuple[Arrays, dict[str, str]]:
    """Rows as `x_train` and `x_test`, and what they hold as `victim.inputs` says it; nothing where no input has a name.

    Raises: DatasetError.
    """
    found: dict[str, dict[str, str]] = {}
    for array in present:
        match = NAMED.fullmatch(array)
        if match:
            found.setdefault(match["part"] or match["split"], {})[match["name"] or match["column"]] = array
    if not found:
        return {}, {}
    train, test = found.get("train", {}), found.get("test") or found.get("validation", {})
    for here, there in ((train, test), (test, train)):
        for name, array in here.items():
            if name not in there:
                near = "".join(f" (nearest: {there[each]})" for each in difflib.get_close_matches(name, there, 1))
                raise DatasetError(
                    f"{path}: {array} is there for one split alone{near}, expected it for training and test"
                )
    rows, layouts = {}, []
    for role, names in (("x_train", train), ("x_test", test)):
        rows[role], layout = _packed(path, {name: (names[name], read(names[name])) for name in sorted(names)})
        layouts.append(layout)
    for name, text in layouts[0].items():
        if layouts[1][name] != text:
            raise DatasetError(f"{path}: {test[name]} is {layouts[1][name]}, expected {text} as in {train[name]}")
    return rows, layouts[0]


def _packed(path: Path, arrays: dict[str, tuple[str, NDArray[Any]]]) -> tuple[NDArray[np.float32], dict[str, str]]:
    columns, layout = [], {}
    first, values = next(iter(arrays.values()))
    count = len(values) if values.ndim else 0
    for name, (array, values) in arrays.items():
        if not values.ndim or len(values) != count or not count:
            raise DatasetError(f"{path}: {array} is {list(values.shape)}, expected [{count or 'N'}, ...] as {first}")
        whole = values.dtype.kind in "iub"
        if whole and values.size and max(abs(int(values.max())), abs(int(values.min()))) > MOST:
            raise DatasetError(f"{path}: {array} has integers beyond {MOST}, expected none")
        columns.append(
            to_features(f"{path}: {array}", (values.astype(np.int64) if whole else values).reshape(count, -1))[0]
        )
        layout[name] = f"{'int' if whole else 'float'}[{','.join(map(str, values.shape[1:]))}]"
    return np.concatenate(columns, axis=1), layout
