"""Labelled token ids of a file of text: by class, by the token that follows, or by the text of an index."""

import difflib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from scatterproof.config.dataset import DatasetConfig
from scatterproof.victims.arrays import Split
from scatterproof.victims.download import DatasetError
from scatterproof.victims.hf.text import Lines, Tokenizer, read_index, read_lines

LENGTH = 64  # tokens of a text, by default
MOST_TEST = 1000
OF_TEST = 0.2  # of the texts
STRIDES = 4  # windows that share a token, of text without targets


class Text(NamedTuple):
    """Training and test inputs, what was read, and the number of classes."""

    train: Split
    test: Split
    source: str
    classes: int


def read_text(config: DatasetConfig, rng: np.random.Generator, source: str) -> Text:
    """Of `dataset.kind: text`; a fifth of the texts, 1,000 at most, drawn at random, are for the test.

    Raises: DatasetError, ModelError.
    """
    assert config.path is not None and config.tokenizer is not None
    path, length = Path(config.path), config.length or LENGTH
    lines, tokenizer = read_lines(path), Tokenizer(config.tokenizer)
    task = config.task or ("retrieval" if config.index else "classification" if lines.targets else "language")
    if task == "language":
        return _windows(config, lines, tokenizer, length, source)
    if lines.targets is None:
        raise DatasetError(f"dataset.path '{path}': has no targets, expected TEXT, a tab and a target in every line")
    names = sorted(set(lines.targets)) if task == "classification" else _index(config)
    ids, labels = tokenizer.sentences(lines.texts, length), torch.from_numpy(_numbered(path, lines.targets, names))
    test, train = _split(len(labels), lines.for_test, rng)
    return Text(Split(ids[train], labels[train]), Split(ids[test], labels[test]), source, len(names))


def _split(texts: int, for_test: int | None, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the texts for the test and for training. for_test: see Lines."""
    order = torch.from_numpy(rng.permutation(texts))
    count = min(MOST_TEST, int(OF_TEST * texts) if for_test is None else for_test)
    if for_test is None:
        return order[:count], order[count:]
    last = order >= texts - for_test
    return order[last][:count], order[~last]


def _windows(config: DatasetConfig, lines: Lines, tokenizer: Tokenizer, length: int, source: str) -> Text:
    """Windows of so many tokens and the one that follows: the last fifth of the text for the test, none shared."""
    if lines.targets is not None:
        raise DatasetError(f"dataset.path '{config.path}': has targets, expected lines of text alone for 'language'")
    stride = max(1, length // STRIDES)
    if lines.for_test is None:
        windows = tokenizer.windows(lines.texts, length + 1, stride)
        cut = int((1 - OF_TEST) * len(windows))
        train, test = windows[: max(0, cut - STRIDES)], windows[cut:][:MOST_TEST]
    else:
        parts = lines.texts[: -lines.for_test], lines.texts[-lines.for_test :]
        train, test = (tokenizer.windows(part, length + 1, stride) for part in parts)
        windows, test = torch.cat([train, test]), test[:MOST_TEST]
    if not len(train) or not len(test):
        raise DatasetError(f"dataset.path '{config.path}': is too short for windows of {length} tokens, expected more")
    splits = [Split(each[:, :-1].contiguous(), each[:, -1].contiguous()) for each in (train, test)]
    return Text(splits[0], splits[1], source, int(windows.max()) + 1)


def _index(config: DatasetConfig) -> list[str]:
    assert config.index is not None
    return read_index(Path(config.index), "dataset.index")


def _numbered(path: Path, targets: list[str], names: list[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The number of each target among the names. Raises: DatasetError."""
    number = {name: at for at, name in enumerate(names)}
    for row, target in enumerate(targets):
        if target not in number:
            near = "".join(f" (nearest: {each})" for each in difflib.get_close_matches(target, names, 1))
            raise DatasetError(f"dataset.path '{path}': {target!r:.60} of text {row + 1} is not in the index{near}")
    return np.array([number[target] for target in targets], dtype=np.int64)
