"""Arrays of inputs that are no images: features, brought to float32 [N, ...], and token ids, to int64 [N, T]."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scatterproof.config.dataset import InputKind
from scatterproof.victims.download import DatasetError


def kind_of(where: str, values: NDArray[Any]) -> InputKind:
    """What an array holds by its type. where: file and array. Raises: DatasetError where the type is ambiguous."""
    if values.dtype.kind == "f":
        return "features"
    if values.dtype == np.uint8 and values.ndim > 2:
        return "images"
    if values.dtype.kind in "iu" and values.ndim == 2:
        return "tokens"
    raise DatasetError(
        f"{where} is {values.dtype} {list(values.shape)}, expected floats [N, ...] (features), integers [N, T] (token "
        "ids) or uint8 images; or dataset.inputs to say what integers are"
    )


def one_kind(path: Path, arrays: dict[str, NDArray[Any]]) -> InputKind:
    """What training and test inputs both hold, by their names in the file. Raises: DatasetError."""
    kinds = {name: kind_of(f"{path}: {name}", values) for name, values in arrays.items()}
    if len(set(kinds.values())) > 1:
        each = " and ".join(f"{name} is {arrays[name].dtype}, {kind}" for name, kind in kinds.items())
        raise DatasetError(f"{path}: {each}, expected inputs of one kind")
    return next(iter(kinds.values()))


def to_features(where: str, values: NDArray[Any]) -> tuple[NDArray[np.float32], list[str]]:
    """Finite numbers of any shape [N, ...] as float32, and what was done, in words. Raises: DatasetError."""
    if values.dtype.kind not in "iuf" or values.ndim < 2:
        raise _kind_error(where, values, "numbers [N, ...], such as float32 [N, F]")
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(values, np.float32)
    wrong = np.flatnonzero(~np.isfinite(features))
    if len(wrong):
        row = wrong[0] // (features.size // len(features))
        raise DatasetError(f"{where} has {values.flat[wrong[0]]} in row {row}, expected finite float32")
    return features, [] if values.dtype == np.float32 else [f"{values.dtype} as float32"]


def to_tokens(where: str, values: NDArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Token ids as int64 [N, T], and what was done, in words. Raises: DatasetError."""
    if values.dtype.kind not in "iu" or values.ndim != 2:
        raise _kind_error(where, values, "integers [N, T], token ids")
    wrong = np.argwhere((values < 0) | (values > np.iinfo(np.int64).max))
    if len(wrong):
        row, column = wrong[0]
        raise DatasetError(f"{where} has the token id {values[row, column]} in row {row}, expected 0 or more")
    return values.astype(np.int64), [] if values.dtype == np.int64 else [f"{values.dtype} as int64"]


def hide(where: str, ids: NDArray[np.int64], mask: NDArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Token ids with -1 where a mask of 0 and 1 hides them, and what was done, in words. Raises: DatasetError."""
    if mask.shape != ids.shape:
        raise DatasetError(f"{where} is {list(mask.shape)}, expected {list(ids.shape)} as the token ids")
    shown = mask.astype(bool)
    if mask.dtype.kind not in "iufb" or not (mask == shown).all():
        raise DatasetError(f"{where} is {mask.dtype}, expected 0 (hidden) and 1 alone")
    empty = np.flatnonzero(~shown.any(1))
    if len(empty):
        raise DatasetError(f"{where} hides every token of row {empty[0]}, expected some that are there")
    hidden = int((~shown).sum())
    return np.where(shown, ids, -1), [f"{hidden} of {ids.size} token ids hidden, which are -1 then"] if hidden else []


def check_segments(where: str, segments: NDArray[Any]) -> list[str]:
    """What was done with the segments of token ids, in words: they are left out. Raises: DatasetError where they say
    something."""
    if segments.any():
        raise DatasetError(f"{where} has {segments.max()}, expected 0 alone: inputs of two texts are not read yet")
    return ["all 0, left out"]


def _kind_error(where: str, values: NDArray[Any], expected: str) -> DatasetError:
    return DatasetError(f"{where} is {values.dtype} {list(values.shape)}, expected {expected}")
