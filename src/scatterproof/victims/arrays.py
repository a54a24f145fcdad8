"""Labelled images as arrays: read from an .npz, checked, and brought to one form."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scatterproof.victims.download import DatasetError
from scatterproof.victims.filetype import NPZ, file_type

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
FEW = 4  # a side of so many pixels may be one of channels


@dataclass(frozen=True)
class Split:
    """Images, uint8 [N,C,H,W], and their labels, int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


def read_npz(path: Path) -> tuple[Split, Split]:
    """Training and test images of an .npz. Raises: DatasetError."""
    arrays = _arrays(path)
    train = to_split(path, "x_train", arrays["x_train"], "y_train", arrays["y_train"])
    test = to_split(path, "x_test", arrays["x_test"], "y_test", arrays["y_test"])
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = [list(split.images.shape[1:]) for split in (test, train)]
        raise DatasetError(f"{path}: x_test has images of [C,H,W] {shapes[0]}, expected {shapes[1]} as in x_train")
    _check_labels(path, train, test)
    check_images(train, test, f"{path}: x_train", f"{path}: x_test")
    return train, test


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        what = file_type(path)
        if what != NPZ:
            raise DatasetError(f"{path}: not an .npz of plain arrays: it is {what}")
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in ARRAYS if key not in file.files]
            arrays = {} if missing else {key: file[key] for key in ARRAYS}
            present = ", ".join(file.files) or "none"
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}; expected an .npz file") from None
    except Exception as error:  # damage surfaces as any of a dozen types
        line = " ".join(str(error).split())
        raise DatasetError(f"{path}: not an .npz of plain arrays, or damaged ({line})") from None
    if missing:
        raise DatasetError(f"{path}: missing {', '.join(missing)} (present: {present}), expected {', '.join(ARRAYS)}")
    return arrays


def to_split(path: Path, x: str, images: NDArray[Any], y: str, labels: NDArray[Any]) -> Split:
    """Check one pair of arrays, whose names are `x` and `y`, and bring it to uint8 [N,C,H,W] and int64 [N].

    Raises: DatasetError.
    """
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))):
        raise DatasetError(
            f"{path}: {x} is {images.dtype} {list(images.shape)}, expected uint8 [N,H,W,3], [N,H,W,1] or [N,H,W]"
            + (f" with values 0 to 255, not {_span(images)}" if images.dtype != np.uint8 else "")
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DatasetError(f"{path}: {y} is {labels.dtype} {list(labels.shape)}, expected integers [N]")
    if images.size == 0:
        raise DatasetError(f"{path}: {x} {list(images.shape)} is empty, expected at least one image")
    if images.ndim == 3 and min(images.shape[1:]) <= FEW:
        raise DatasetError(
            f"{path}: {x} is {list(images.shape)}, which may be [N,H,W] or have channels: expected four axes, "
            "[N,H,W,1] or [N,H,W,3]"
        )
    if len(images) != len(labels):
        raise DatasetError(f"{path}: {x} has {len(images)} images, but {y} has {len(labels)} labels")
    if int(labels.max()) > np.iinfo(np.int64).max:
        raise DatasetError(f"{path}: {y} has the label {labels.max()}, expected 0 to the number of classes less one")
    stacked = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Split(torch.from_numpy(np.ascontiguousarray(stacked)), torch.from_numpy(labels.astype(np.int64)))


def _span(values: NDArray[Any]) -> str:
    """The lowest and highest value, for errors."""
    if values.dtype.kind not in "iuf" or values.size == 0:
        return f"{values.dtype}"
    if np.isnan(values).any():
        return "NaN"
    return f"{values.min():.4g} to {values.max():.4g}"


def _check_labels(path: Path, train: Split, test: Split) -> None:
    """Labels of one classification task: 0 to the number of classes less one, each with images in both splits."""
    _check_range(path, "y_train", train, len(train) - 1, f"no more classes than its {len(train)} images")
    low, high = int(train.labels.min()), int(train.labels.max())
    if low == high:
        raise DatasetError(f"{path}: y_train has the label {low} alone, expected at least two classes")
    if low > 0 and len(train.labels.unique()) == high - low + 1:
        raise DatasetError(
            f"{path}: y_train: labels run {low}..{high}, expected 0..{high - low}: subtract {low}, from y_test too"
        )
    _check_range(path, "y_test", test, high, "the classes of y_train")
    for key, split in (("y_train", train), ("y_test", test)):
        missing = missing_classes(split, high + 1)
        if missing:
            raise DatasetError(f"{path}: {key} has no image of {missing}, expected some of each class 0..{high}")


def _check_range(path: Path, key: str, split: Split, highest: int, reason: str) -> None:
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high > highest:
        wrong = low if low < 0 else high
        raise DatasetError(f"{path}: {key} has the label {wrong}, expected 0 to {highest} ({reason})")


def missing_classes(split: Split, classes: int, most: int = 8) -> str:
    """The classes without an image, the first few of them, for an error; empty where there is none."""
    missing = (split.labels.bincount(minlength=classes) == 0).nonzero().flatten().tolist()
    more = f" and {len(missing) - most} more" if len(missing) > most else ""
    shown = ", ".join(map(str, missing[:most]))
    return "" if not missing else f"class {shown}" if len(missing) == 1 else f"the classes {shown}{more}"


def check_images(train: Split, test: Split, train_name: str, test_name: str) -> None:
    """Images that differ from each other, in both splits on one scale. Raises: DatasetError that begins with a name."""
    for name, images in ((train_name, train.images), (test_name, test.images)):
        if len(images) > 1 and all(torch.equal(images[0], image) for image in images[1:]):
            raise DatasetError(f"{name}: all {len(images)} images are the same, expected images that differ")
    (high, name), (low, other) = sorted(
        ((int(train.images.max()), train_name), (int(test.images.max()), test_name)), reverse=True
    )
    if low <= 1 < high:
        raise DatasetError(f"{other}: values end at {low}, but those of {name} at {high}, expected one scale, 0 to 255")
