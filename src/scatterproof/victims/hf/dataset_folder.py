"""Folders that `save_to_disk` of the library datasets wrote: their columns as arrays, or as lines of text."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scatterproof.running.files import DATASET_MARKS as MARKS
from scatterproof.victims.download import DatasetError

SPLITS = ("train", "test", "validation")
TEXTS = ("text", "sentence", "content", "document", "review")
TARGETS = ("label", "labels", "target")


def is_dataset_folder(path: Path) -> bool:
    """Whether the library wrote this folder."""
    return any((path / mark).is_file() for mark in MARKS)


def folder_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every column that is an array as COLUMN_SPLIT; texts are left out. Raises: DatasetError."""
    splits = _splits(path)
    if "train" not in splits or len(splits) < 2:
        there = ", ".join(splits) or "one without splits"
        raise DatasetError(
            f"{path}: has {there}, expected the splits train and test: dataset.train_test_split(0.2).save_to_disk(...)"
        )
    arrays = {}
    for split, rows in splits.items():
        for column in rows.column_names:
            values = _column(f"{path}: {column} of {split}", rows, column)
            if values is not None:
                arrays[f"{column}_{split}"] = values
    return arrays


def folder_texts(path: Path) -> tuple[list[str], list[str] | None, int | None]:
    """Texts, their targets where there are any, and how many of the texts, the last ones, are for the test; None where
    no split says so. Raises: DatasetError."""
    splits = _splits(path) or {"": _load(path)}
    parts = [splits[name] for name in ("train", "test") if name in splits]
    if "test" not in splits and "validation" in splits:
        parts.append(splits["validation"])
    parts = parts or list(splits.values())
    text = _only(path, parts[0].column_names, TEXTS)
    if text is None:
        raise DatasetError(
            f"{path}: no column of {', '.join(TEXTS)} (present: {', '.join(parts[0].column_names)}), expected one"
        )
    target = _only(path, parts[0].column_names, TARGETS)
    for part, column in product(parts, filter(None, (text, target))):
        if column not in part.column_names or not len(part):
            raise DatasetError(f"{path}: a split is empty or lacks the column {column}, expected it in each split")
    texts = [" ".join(_told(path, text, one).split()) for part in parts for one in part[text]]
    targets = None if target is None else [one for part in parts for one in _names(path, part, target)]
    return texts, targets, len(parts[-1]) if len(parts) > 1 else None


def has_texts(path: Path) -> bool:
    """Whether a column holds texts, by its name. Raises: DatasetError."""
    rows = next(iter(_splits(path).values()), None)
    return any(name.lower() in TEXTS for name in (_load(path) if rows is None else rows).column_names)


def _load(path: Path) -> Any:
    try:
        import datasets  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise DatasetError(
            f"{path}: needs the library datasets, expected it installed: pip install 'scatterproof[hf]'"
        ) from None
    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # a folder may be wrong in any way it likes
        line = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{path}: datasets can't load it, or it is damaged: {line:.300}") from None


def _splits(path: Path) -> dict[str, Any]:
    """The splits that are read, by name; none where the folder has none."""
    if not (path / MARKS[0]).is_file():
        return {}
    whole = _load(path)
    return {name: whole[name] for name in SPLITS if name in whole}


def _column(where: str, rows: Any, column: str) -> NDArray[Any] | None:
    """One column as an array; None where it holds no numbers. Raises: DatasetError where its rows differ in shape."""
    kind = type(rows.features[column]).__name__
    if kind == "Value" and rows.features[column].dtype in ("string", "large_string"):
        return None
    if kind not in ("Value", "ClassLabel", "Image", "List", "LargeList", "Sequence") and not kind.startswith("Array"):
        return None
    values = [np.asarray(value) for value in rows[column]]
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise DatasetError(f"{where} has rows of {list(first)} and of {list(second)}, expected all of one shape")
    if not values or values[0].dtype.kind not in "iufb":
        return None
    return np.stack(values)


def _only(path: Path, columns: list[str], usual: tuple[str, ...]) -> str | None:
    there = [name for name in columns if name.lower() in usual]
    if len(there) > 1:
        raise DatasetError(f"{path}: {' and '.join(there)} may each be meant, expected one of them")
    return there[0] if there else None


def _names(path: Path, rows: Any, column: str) -> list[str]:
    """Targets as text: of classes their names. Raises: DatasetError where one is not told, as -1 says of a class."""
    names = getattr(rows.features[column], "names", None)
    if names is None:
        return [_told(path, column, value) for value in rows[column]]
    return [_told(path, column, names[value] if value is not None and value >= 0 else None) for value in rows[column]]


def _told(path: Path, column: str, value: Any) -> str:
    if value is None or not str(value).strip():
        raise DatasetError(f"{path}: {column} is not told in some row (none, empty or -1), expected it in every row")
    return str(value)
