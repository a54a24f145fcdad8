"""Labels of tasks other than classification: several that hold or not, and numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scatterproof.victims.download import DatasetError
from scatterproof.victims.forms.array_names import ArrayNames


def to_many_labels(where: str, labels: NDArray[Any]) -> tuple[NDArray[np.bool_], list[str]]:
    """Whether each of K labels holds, as bool [N, K], and what was done, in words. Raises: DatasetError."""
    if labels.ndim != 2 or labels.dtype.kind not in "iufb":
        raise DatasetError(f"{where} is {labels.dtype} {list(labels.shape)}, expected 0 and 1 [N,K] for 'multilabel'")
    odd = np.argwhere(~np.isin(labels, (0, 1)))
    if len(odd):
        row, column = odd[0]
        raise DatasetError(f"{where} has {labels[row, column]:g} in row {row}, expected 0 and 1 alone for 'multilabel'")
    words = [] if labels.dtype == np.bool_ else [f"{labels.dtype} as labels that hold or not"]
    return labels == 1, words


def to_numbers(where: str, labels: NDArray[Any]) -> tuple[NDArray[np.float32], list[str]]:
    """Numbers as float32 [N, K], and what was done, in words. Raises: DatasetError."""
    words = []
    if labels.ndim == 1:
        labels, words = labels[:, None], ["[N] as [N, 1]"]
    if labels.ndim != 2 or labels.dtype.kind not in "iuf":
        raise DatasetError(f"{where} is {labels.dtype} {list(labels.shape)}, expected numbers [N] or [N,K]")
    with np.errstate(over="ignore"):
        numbers = labels.astype(np.float32)
    odd = np.argwhere(~np.isfinite(numbers))
    if len(odd):
        row, column = odd[0]
        raise DatasetError(f"{where} has {labels[row, column]} in row {row}, expected finite numbers of float32")
    return numbers, words


def check_columns(path: Path, names: ArrayNames, train: torch.Tensor, test: torch.Tensor) -> None:
    """As many columns in both splits, none of which is constant. Raises: DatasetError."""
    if train.shape[1] != test.shape[1]:
        raise DatasetError(
            f"{path}: {names.y_test} has {test.shape[1]} columns, expected {train.shape[1]} as in {names.y_train}"
        )
    for name, labels in ((names.y_train, train), (names.y_test, test)):
        same = (labels == labels[:1]).all(0).nonzero().flatten().tolist()
        if same:
            raise DatasetError(f"{path}: {name}: column {same[0]} is the same in each row, expected labels that differ")
