"""Labelled inputs as arrays: read from an .npz or .safetensors, checked, and brought to one form."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from scatterproof.config.dataset import InputKind, LabelTask
from scatterproof.victims.download import DatasetError
from scatterproof.victims.filetype import NPZ, SAFETENSORS, file_type
from scatterproof.victims.forms.array_names import ArrayNames, array_names
from scatterproof.victims.forms.labels import check_columns, to_many_labels, to_numbers
from scatterproof.victims.forms.named_arrays import NAMED, named_arrays
from scatterproof.victims.forms.pixels import check_one_scale, to_labels, to_pixels
from scatterproof.victims.forms.values import check_segments, hide, one_kind, to_features, to_tokens
from scatterproof.victims.inputs import NOUNS, input_kind

FORMS: Mapping[InputKind, Callable[[str, NDArray[Any]], tuple[NDArray[Any], list[str]]]] = {
    "images": to_pixels,
    "features": to_features,
    "tokens": to_tokens,
}
LABELS: Mapping[LabelTask, Callable[[str, NDArray[Any]], tuple[NDArray[Any], list[str]]]] = {
    "classification": to_labels,
    "multilabel": to_many_labels,
    "regression": to_numbers,
}


@dataclass(frozen=True)
class Split:
    """Inputs and their labels: int64 [N] classes, bool [N, K] labels that hold or not, or float32 [N, K] numbers.

    `images` holds inputs of any kind, which its type tells (`inputs.input_kind`): images uint8 [N,C,H,W], features
    float32 [N, ...], or token ids int64 [N,T], -1 where a mask hides them.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


def read_npz(path: Path) -> tuple[Split, Split]:
    """Training and test images of an .npz; prints a line where they were not uint8 and int64 under the usual names.

    Raises: DatasetError.
    """
    return _splits(path, *_arrays(path, (NPZ,)), "images")


def read_arrays(
    path: Path, kind: InputKind | None, task: LabelTask = "classification"
) -> tuple[Split, Split, dict[str, str]]:
    """The same of inputs of this kind, None: inferred from the arrays' types, in an .npz or .safetensors, with labels
    for this task; and what their rows hold of several named inputs. A folder of the library datasets holds its columns
    as such arrays.

    Raises: DatasetError.
    """
    names, arrays = _from_folder(path) if path.is_dir() else _arrays(path, (NPZ, SAFETENSORS))
    if kind is None:
        kind = one_kind(path, {names.x_train: arrays["x_train"], names.x_test: arrays["x_test"]})
    return *_splits(path, names, arrays, kind, task), dict(names.layout)


def _splits(
    path: Path,
    names: ArrayNames,
    arrays: dict[str, NDArray[Any]],
    kind: InputKind,
    task: LabelTask = "classification",
) -> tuple[Split, Split]:
    if kind == "images":
        check_one_scale(path, {names.x_train: arrays["x_train"], names.x_test: arrays["x_test"]})
    train, words = to_split(path, names.x_train, arrays["x_train"], names.y_train, arrays["y_train"], kind, task)
    test, others = to_split(path, names.x_test, arrays["x_test"], names.y_test, arrays["y_test"], kind, task)
    if names.beside:
        train, also = _with_beside(path, names, arrays, train, "train")
        test, more = _with_beside(path, names, arrays, test, "test")
        others += also + more
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = [list(split.images.shape[1:]) for split in (test, train)]
        what = "images of [C,H,W]" if kind == "images" else f"{kind} of"
        raise DatasetError(f"{path}: {names.x_test} has {what} {shapes[0]}, expected {shapes[1]} as in {names.x_train}")
    if task == "classification":
        _check_labels(path, names, train, test)
    else:
        check_columns(path, names, train.labels, test.labels)
    check_images(train, test, f"{path}: {names.x_train}", f"{path}: {names.x_test}")
    if said := names.words + words + others:
        print(f"{path}: {'; '.join(said)}")
    return train, test


def _with_beside(
    path: Path, names: ArrayNames, arrays: dict[str, NDArray[Any]], split: Split, part: str
) -> tuple[Split, list[str]]:
    """A split of token ids with what stands beside them, and what was done, in words. Raises: DatasetError."""
    if input_kind(split.images) != "tokens":
        name = next(iter(names.beside.values()))
        raise DatasetError(f"{path}: {name} stands beside {input_kind(split.images)}, expected token ids [N, T]")
    said, ids = [], split.images.numpy()
    if f"segments_{part}" in names.beside:
        name = names.beside[f"segments_{part}"]
        said += [f"{name}: {word}" for word in check_segments(f"{path}: {name}", arrays[f"segments_{part}"])]
    if f"mask_{part}" in names.beside:
        name = names.beside[f"mask_{part}"]
        ids, words = hide(f"{path}: {name}", ids, arrays[f"mask_{part}"])
        said += [f"{name}: {word}" for word in words]
    return Split(torch.from_numpy(ids), split.labels), said


def _arrays(path: Path, types: Sequence[str]) -> tuple[ArrayNames, dict[str, NDArray[Any]]]:
    """The four arrays by their roles, and their names in the file, which is of one of these types.

    Raises: DatasetError.
    """
    wanted = "an .npz" + (" or .safetensors" if SAFETENSORS in types else "")
    try:
        what = file_type(path)
        if what not in types:
            raise DatasetError(f"{path}: not {wanted} of plain arrays: it is {what}")
        return _from_safetensors(path) if what == SAFETENSORS else _from_npz(path)
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}; expected {wanted} file") from None
    except Exception as error:  # damage surfaces as any of a dozen types
        line = " ".join(str(error).split())
        raise DatasetError(f"{path}: not {wanted} of plain arrays, or damaged ({line})") from None


def _from_folder(path: Path) -> tuple[ArrayNames, dict[str, NDArray[Any]]]:
    from scatterproof.victims.hf.dataset_folder import folder_arrays, is_dataset_folder

    if not is_dataset_folder(path):
        raise DatasetError(
            f"{path}: is a folder, expected an .npz, a .safetensors, or a folder that save_to_disk of datasets wrote; "
            "image folders are of kind 'folder'"
        )
    columns = folder_arrays(path)
    return _by_role(path, list(columns), columns.__getitem__)


def _from_npz(path: Path) -> tuple[ArrayNames, dict[str, NDArray[Any]]]:
    with np.load(path, allow_pickle=False) as file:
        return _by_role(path, file.files, file.__getitem__)


def _from_safetensors(path: Path) -> tuple[ArrayNames, dict[str, NDArray[Any]]]:
    unknown = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)  # to numpy; float32 holds each of their values
    with safe_open(path, "pt") as file:

        def read(name: str) -> NDArray[Any]:
            value = file.get_tensor(name)
            plain: NDArray[Any] = (value.float() if value.dtype in unknown else value).numpy()
            return plain

        return _by_role(path, list(file.keys()), read)


def _by_role(
    path: Path, present: Sequence[str], read: Callable[[str], NDArray[Any]]
) -> tuple[ArrayNames, dict[str, NDArray[Any]]]:
    """Arrays by their roles; several named inputs become one row of numbers each. Raises: DatasetError."""
    rows, layout = named_arrays(path, present, read)
    if not rows:
        names = array_names(path, present)
        return names, {role: read(name) for role, name in names.by_role.items()}
    others = [name for name in present if not NAMED.fullmatch(name)]
    if double := [name for name in rows if name in others]:
        raise DatasetError(f"{path}: has {double[0]} and {double[0]}.NAME, expected one of the two")
    names = replace(array_names(path, [*others, *rows]), layout=layout)
    return names, {role: rows[name] if name in rows else read(name) for role, name in names.by_role.items()}


def to_split(
    path: Path,
    x: str,
    images: NDArray[Any],
    y: str,
    labels: NDArray[Any],
    kind: InputKind = "images",
    task: LabelTask = "classification",
) -> tuple[Split, list[str]]:
    """Check one pair of arrays, whose names are `x` and `y`, and bring it to a split of this kind.

    Also what was done for that, in words. Raises: DatasetError.
    """
    if kind != "images" and images.size == 0:
        raise DatasetError(f"{path}: {x} {list(images.shape)} is empty, expected at least one input")
    values, done = FORMS[kind](f"{path}: {x}", images)
    classes, also = LABELS[task](f"{path}: {y}", labels)
    if images.size == 0:
        raise DatasetError(f"{path}: {x} {list(images.shape)} is empty, expected at least one image")
    if len(values) != len(classes):
        raise DatasetError(f"{path}: {x} has {len(values)} {NOUNS[kind]}s, but {y} has {len(classes)} labels")
    split = Split(torch.from_numpy(np.ascontiguousarray(values)), torch.from_numpy(classes))
    return split, [f"{name}: {', '.join(words)}" for name, words in ((x, done), (y, also)) if words]


def _check_labels(path: Path, names: ArrayNames, train: Split, test: Split) -> None:
    """Labels of one classification task: 0 to the number of classes less one, each with images in both splits."""
    noun = NOUNS[input_kind(train.images)]
    _check_range(path, names.y_train, train, len(train) - 1, f"no more classes than its {len(train)} {noun}s")
    low, high = int(train.labels.min()), int(train.labels.max())
    if low == high:
        raise DatasetError(f"{path}: {names.y_train} has the label {low} alone, expected at least two classes")
    if low > 0 and len(train.labels.unique()) == high - low + 1:
        raise DatasetError(
            f"{path}: {names.y_train}: labels run {low}..{high}, expected 0..{high - low}: subtract {low}, "
            f"from {names.y_test} too"
        )
    _check_range(path, names.y_test, test, high, f"the classes of {names.y_train}")
    for key, split in ((names.y_train, train), (names.y_test, test)):
        missing = missing_classes(split, high + 1)
        if missing:
            raise DatasetError(f"{path}: {key} has no {noun} of {missing}, expected some of each class 0..{high}")


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
    """Inputs that differ from each other, images in both splits on one scale.

    Raises: DatasetError that begins with a name.
    """
    noun = NOUNS[input_kind(train.images)]
    for name, images in ((train_name, train.images), (test_name, test.images)):
        if len(images) > 1 and all(torch.equal(images[0], image) for image in images[1:]):
            raise DatasetError(f"{name}: all {len(images)} {noun}s are the same, expected {noun}s that differ")
    if noun != "image":
        return
    (high, name), (low, other) = sorted(
        ((int(train.images.max()), train_name), (int(test.images.max()), test_name)), reverse=True
    )
    if low <= 1 < high:
        raise DatasetError(f"{other}: values end at {low}, but those of {name} at {high}, expected one scale, 0 to 255")
