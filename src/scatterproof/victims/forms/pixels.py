"""Arrays of images and labels in their usual forms, brought to uint8 [N,C,H,W] and int64 [N].

What an array's values mean must show in the array itself: where they may mean two things, it is refused.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scatterproof.victims.download import DatasetError

FEW = 4  # a side of so many pixels may be one of channels
CHANNELS = (1, 3)
CHUNK = 1024  # images looked at together
LAYOUTS = "[N,H,W,3], [N,3,H,W], [N,H,W,1], [N,1,H,W] or [N,H,W]"
HALF = 128  # whole numbers that end below it may be of another scale, such as 0 to 16 or percent
BYTES, WHOLE, UNIT = "uint8", "whole numbers 0 to 255", "0 to 1"


def to_pixels(where: str, images: NDArray[Any]) -> tuple[NDArray[np.uint8], list[str]]:
    """Images as uint8 [N,C,H,W], and what was done, in words. where: file and array, for errors.

    Floats from 0 to 1 are multiplied by 255 and rounded; whole numbers from 0 to 255 stay. Raises: DatasetError.
    """
    first = _channels_first(where, images)
    scale = _scale(where, images)
    words = [f"{images.dtype} of {scale}, " + ("times 255, rounded" if scale == UNIT else "as uint8")]
    if scale == BYTES:
        pixels, words = images, []
    else:
        pixels = np.empty(images.shape, np.uint8)
        for part, chunk in zip(_chunks(pixels), _chunks(images), strict=True):
            part[...] = np.rint(chunk.astype(np.float64) * 255) if scale == UNIT else chunk
    if images.ndim == 3:
        return pixels[:, None], words
    return (pixels, [*words, "channels first"]) if first else (pixels.transpose(0, 3, 1, 2), words)


def check_one_scale(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Floats of several arrays mean the same by the same number. Raises: DatasetError."""
    scales = {name: _scale(f"{path}: {name}", each) for name, each in arrays.items() if each.dtype.kind == "f"}
    if len(set(scales.values())) > 1:
        each = " and ".join(f"{name} is {scale}" for name, scale in scales.items())
        raise DatasetError(f"{path}: {each}, expected floats of one scale")


def _channels_first(where: str, images: NDArray[Any]) -> bool:
    """Whether the channels come before the pixels. Raises: DatasetError where there are none, or either may."""
    shape = list(images.shape)
    if images.ndim == 3:
        if images.size and min(shape[1:]) <= FEW:
            raise DatasetError(
                f"{where} is {shape}, which may be [N,H,W] or have channels: expected four axes, [N,H,W,1] or [N,H,W,3]"
            )
        return False
    if images.ndim != 4 or (shape[1] not in CHANNELS and shape[3] not in CHANNELS):
        raise _kind_error(where, images)
    if shape[1] in CHANNELS and shape[3] in CHANNELS:
        raise DatasetError(
            f"{where} is {shape}, whose channels may be first or last: expected one of {LAYOUTS}, other sides than "
            "1 and 3 pixels"
        )
    return shape[1] in CHANNELS


def _scale(where: str, images: NDArray[Any]) -> str:
    """What the values mean. Raises: DatasetError where the range is ambiguous."""
    if images.dtype == np.uint8 or images.size == 0:
        return BYTES
    if images.dtype.kind not in "iuf":
        raise _kind_error(where, images)
    low, high = images.min(), images.max()
    if images.dtype.kind == "f" and low >= 0 and 2 / 255 <= high <= 1:
        return UNIT
    if low >= 0 and HALF <= high <= 255 and all((chunk == np.rint(chunk)).all() for chunk in _chunks(images)):
        return WHOLE
    raise _kind_error(where, images)


def _chunks(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))


def _kind_error(where: str, images: NDArray[Any]) -> DatasetError:
    line = f"{where} is {images.dtype} {list(images.shape)}, expected uint8 {LAYOUTS}"
    if images.dtype == np.uint8:
        return DatasetError(line)
    return DatasetError(f"{line} with values 0 to 255, not {_span(images)}; or floats from 0 to 1")


def _span(values: NDArray[Any]) -> str:
    """The lowest and highest value, for errors."""
    if values.dtype.kind not in "iuf" or values.size == 0:
        return f"{values.dtype}"
    low, high = values.min(), values.max()
    if np.isnan(low):
        return "NaN"
    between = low >= 0 and 1 < high <= 255 and not all((chunk == np.rint(chunk)).all() for chunk in _chunks(values))
    return f"{low:.4g} to {high:.4g}" + (" with values between whole numbers" if between else "")


def to_labels(where: str, labels: NDArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Labels as int64 [N], and what was done, in words. Raises: DatasetError."""
    words = []
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels, words = labels[:, 0], [f"{list(labels.shape)} as [N]"]
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _from_one_hot(where, labels), [f"one-hot of {labels.shape[1]} classes"]
    if labels.ndim != 1 or labels.dtype.kind not in "iuf":
        raise _label_error(where, labels)
    if labels.dtype.kind == "f":
        fractions = np.flatnonzero(~(np.rint(labels) == labels))  # NaN is none either
        if len(fractions):
            raise _label_error(where, labels, f", not {labels[fractions[0]]:g}")
        words.append(f"whole {labels.dtype} as integers")
    if len(labels) and not labels.max() < 2**63:
        highest = f"{labels.max():g}" if labels.dtype.kind == "f" else f"{labels.max()}"
        raise DatasetError(f"{where} has the label {highest}, expected 0 to the number of classes less one")
    return labels.astype(np.int64), words


def _from_one_hot(where: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iufb":
        raise _label_error(where, labels)
    ones = labels == 1
    wrong = np.flatnonzero((ones.sum(1) != 1) | ~(ones | (labels == 0)).all(1))
    if len(wrong):
        raise _label_error(where, labels, f" with a single 1 a row, which row {wrong[0]} has not")
    empty = np.flatnonzero(~ones.any(0))
    if len(labels) and len(empty):
        raise DatasetError(
            f"{where} has no image of class {empty[0]}, expected some of each class 0..{labels.shape[1] - 1}"
        )
    classes: NDArray[np.int64] = ones.argmax(1).astype(np.int64)
    return classes


def _label_error(where: str, labels: NDArray[Any], more: str = "") -> DatasetError:
    return DatasetError(
        f"{where} is {labels.dtype} {list(labels.shape)}, expected integers [N], or one-hot [N,C]{more}"
    )
