"""Folders that the library datasets wrote, and token ids with a mask beside them: right, or refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import transformers_folders
from scatterproof.auditing.audited import data_config, read_victim
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.victims.data import Dataset, DatasetError, read_dataset
from scatterproof.victims.inputs import input_kind
from scatterproof.victims.models import build_model

datasets.disable_progress_bars()
LENGTH = 9


def rows(count: int, first: int = 0) -> dict[str, Any]:
    """Texts of three classes by their second word."""
    kinds = [number % 3 for number in range(first, first + count)]
    return {"text": [f"the {'abc'[kind]} of {number}" for number, kind in enumerate(kinds, first)], "label": kinds}


def of(columns: Callable[[int, int], dict[str, Any]], features: Any = None, **parts: int) -> Any:
    """A folder's content: each split with so many rows."""
    first, content = 0, {}
    for name, count in parts.items():
        content[name] = datasets.Dataset.from_dict(columns(count, first), features=features)
        first += count
    return datasets.DatasetDict(content)


def saved(content: Any, path: Path) -> Path:
    content.save_to_disk(path)
    return path


def read(path: Path, kind: str = "arrays", **keys: Any) -> Dataset:
    return read_dataset(DatasetConfig(kind=kind, path=str(path), **keys))  # type: ignore[arg-type]


def numbers(count: int, first: int) -> dict[str, Any]:
    values = np.random.default_rng(first).normal(size=(count, 5)).astype(np.float32)
    return {"features": values.tolist(), "label": [number % 3 for number in range(count)], "id": list(range(count))}


def test_numbers_are_read_as_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(of(numbers, train=60, test=30), tmp_path / "own")
    data = read(path, pirate=6)
    assert input_kind(data.test.images) == "features"
    assert data.test.images.numpy() == pytest.approx(np.array(numbers(30, 60)["features"]))
    assert (len(data.victim), len(data.pirate), data.classes) == (54, 6, 3)
    assert f"{path} (sha256 of names and files " in data.source
    assert "left out id_train, id_test" in capsys.readouterr().out


def test_images_are_decoded(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})

    def images(count: int, first: int) -> dict[str, Any]:
        return {"image": list(pixels[first : first + count]), "label": [number % 2 for number in range(count)]}

    data = read(saved(of(images, kinds, train=30, validation=10), tmp_path / "own"), inputs="images")
    assert data.test.images.numpy().transpose(0, 2, 3, 1) == pytest.approx(pixels[30:])


@pytest.mark.parametrize("targets", ["numbers", "names"])
def test_texts_keep_their_test_split(tmp_path: Path, targets: str) -> None:
    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y", "z"])}
    features = datasets.Features(kinds) if targets == "names" else None
    path = saved(of(rows, features, train=60, test=30), tmp_path / "own")
    tokens = transformers_folders.write_folder(tmp_path / "bert", "classifier")
    data = read(path, "text", tokenizer=str(tokens), pirate=6)
    assert (len(data.victim) + len(data.pirate), len(data.test), data.classes) == (60, 30, 3)
    alone = read(saved(of(rows, train=60)["train"], tmp_path / "alone"), "text", tokenizer=str(tokens), pirate=6)
    assert (len(alone.victim) + len(alone.pirate), len(alone.test)) == (48, 12)


def test_windows_of_the_test_are_of_its_own_texts(tmp_path: Path) -> None:
    lines = transformers_folders.sentences()[:60]
    content = {"train": lines[:40], "test": lines[40:]}
    path = saved(
        datasets.DatasetDict({k: datasets.Dataset.from_dict({"text": v}) for k, v in content.items()}), tmp_path / "own"
    )
    tokens = transformers_folders.write_folder(tmp_path / "gpt2", "gpt2")
    data = read(path, "text", tokenizer=str(tokens), length=8)
    plain = tmp_path / "test.txt"
    plain.write_text("\n".join(lines[40:]) + "\n")
    own = {tuple(row) for row in read(plain, "text", tokenizer=str(tokens), length=8, pirate=0).victim.images.tolist()}
    assert own <= {tuple(row) for row in data.test.images.tolist()}


def ragged(count: int, first: int) -> dict[str, Any]:
    return {"input_ids": [[1] * (3 + number % 2) for number in range(count)], "label": [0, 1] * (count // 2)}


def unlabelled(count: int, first: int) -> dict[str, Any]:
    return {"features": numbers(count, first)["features"]}


CLASSES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y", "z"])})


def untold(count: int, first: int) -> dict[str, Any]:
    """As benchmarks hide the labels of their test."""
    return rows(count, first) | ({"label": [-1] * count} if first else {})


def textless(count: int, first: int) -> dict[str, Any]:
    return rows(count, first) | {"text": [None, *rows(count, first)["text"][1:]]}


BAD: dict[str, tuple[Any, str, str]] = {
    "no splits": (of(numbers, train=60)["train"], "arrays", "has one without splits, expected the splits train and"),
    "train alone": (of(numbers, train=60), "arrays", "has train, expected the splits train and test"),
    "ragged": (of(ragged, train=40, test=20), "arrays", "input_ids of train has rows of [3] and of [4], expected all"),
    "no labels": (of(unlabelled, train=40, test=20), "arrays", "missing y_train, y_test (present: features_train, "),
    "texts as arrays": (of(lambda n, first: rows(n, first), train=40, test=20), "arrays", "missing x_train, x_test"),
    "classes not told": (
        of(untold, CLASSES, train=60, test=30),
        "text",
        "label is not told in some row (none,",
    ),
    "texts not told": (of(textless, train=60, test=30), "text", "text is not told in some row"),
    "no label in the test": (
        datasets.DatasetDict(
            train=datasets.Dataset.from_dict(rows(60)), test=datasets.Dataset.from_dict({"text": rows(30)["text"]})
        ),
        *("text", "a split is empty or lacks the column label"),
    ),
    "an empty test": (of(rows, train=60, test=0), "text", "datasets can't load it, or it is damaged"),
    "few texts": (of(rows, train=10, test=5), "text", "has 15 lines of text, expected at least 20"),
    "arrays as text": (of(numbers, train=60, test=30), "text", "no column of text, sentence, "),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_line(tmp_path: Path, case: str) -> None:
    content, kind, line = BAD[case]
    path = saved(content, tmp_path / "own")
    keys = {"tokenizer": str(transformers_folders.write_folder(tmp_path / "bert", "bert"))} if kind == "text" else {}
    with pytest.raises(DatasetError) as error:
        read(path, kind, **keys)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_of_another_kind_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"is a folder, expected an \.npz"):
        read(tmp_path / "empty")
    path = saved(of(numbers, train=60, test=30), tmp_path / "own")
    next((path / "train").glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"datasets can't load it, or it is damaged"):
        read(path)


def test_an_audit_reads_texts_for_a_folder_of_transformers_and_arrays_else(tmp_path: Path) -> None:
    texts, arrays = (
        saved(of(rows, train=60), tmp_path / "texts"),
        saved(of(numbers, train=60, test=30), tmp_path / "own"),
    )
    kinds = [
        data_config(model, str(path), 32, None, None).kind
        for model, path in (("hf:x", texts), ("hf:x", arrays), ("own:net", arrays), ("own:net", texts))
    ]
    assert kinds == ["text", "arrays", "arrays", "arrays"]
    encoder = f"hf:{transformers_folders.write_folder(tmp_path / 'bert', 'bert')}"
    with pytest.raises(UserError, match="is a sentence encoder, expected text"):
        read_victim(encoder, str(arrays))
    victim = read_victim(encoder, str(texts), length=16)
    assert victim.labelled and victim.dataset.classes == 3


def test_a_changed_folder_is_another(tmp_path: Path) -> None:
    path = saved(of(numbers, train=60, test=30), tmp_path / "own")
    config = DatasetConfig(kind="arrays", path=str(path))
    before = config.stamp()
    next((path / "test").glob("*.arrow")).touch()
    assert config.stamp() != before != ""


def masked(**changed: Any) -> dict[str, Any]:
    """Token ids in arrays of transformers' names, of three classes, texts of 4 to 9 tokens."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 60), ("test", 30)):
        mask = (np.arange(LENGTH) < rng.integers(4, LENGTH + 1, count)[:, None]).astype(np.int64)
        ids = rng.integers(5, 100, (count, LENGTH)) * mask
        arrays |= {f"input_ids_{part}": ids, f"attention_mask_{part}": mask}
        arrays |= {f"token_type_ids_{part}": 0 * ids, f"labels_{part}": np.arange(count) % 3}
    return arrays | changed


def test_what_a_mask_hides_a_network_does_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stands there: the logits are those of transformers' own call with the mask."""
    arrays = masked()
    for part in ("train", "test"):
        arrays[f"input_ids_{part}"] += 7 * (1 - arrays[f"attention_mask_{part}"])
    np.savez(tmp_path / "own.npz", **arrays)
    data = read(tmp_path / "own.npz", pirate=0)
    assert "token ids hidden, which are -1 then" in capsys.readouterr().out
    assert bool((data.test.images[torch.from_numpy(arrays["attention_mask_test"]) == 0] == -1).all())
    folder = transformers_folders.write_folder(tmp_path / "bert", "classifier")
    model = build_model(VictimConfig(model=f"hf:{folder}"), 3).eval()
    given = {name: torch.from_numpy(arrays[f"{name}_test"]) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.allclose(model(data.test.images), model.body(**given).logits, atol=1e-6)  # type: ignore[operator]


MASKS: dict[str, tuple[dict[str, Any], str]] = {
    "another shape": ({"attention_mask_test": np.ones((30, 4))}, "attention_mask_test is [30, 4], expected [30, 9] as"),
    "another value": (
        {"attention_mask_test": np.full((30, 9), 2)},
        "test is int64, expected 0 (hidden)",
    ),
    "nothing left": ({"attention_mask_train": np.zeros((60, 9))}, "hides every token of row 0, expected some"),
    "two texts": ({"token_type_ids_test": np.ones((30, 9), int)}, "token_type_ids_test has 1, expected 0 alone"),
    "beside features": (
        {
            f"input_ids_{part}": np.random.default_rng(0).normal(size=(n, 9))
            for part, n in (("train", 60), ("test", 30))
        },
        "stands beside features, expected token ids [N, T]",
    ),
}


@pytest.mark.parametrize("case", MASKS)
def test_a_mask_that_does_not_fit_is_one_line(tmp_path: Path, case: str) -> None:
    changed, line = MASKS[case]
    np.savez(tmp_path / "own.npz", **masked(**changed))
    with pytest.raises(DatasetError) as error:
        read(tmp_path / "own.npz")
    assert line in str(error.value)


def test_a_mask_of_one_split_alone_is_refused(tmp_path: Path) -> None:
    arrays = masked()
    del arrays["attention_mask_test"]
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(DatasetError, match="attention_mask_train is there for one split alone"):
        read(tmp_path / "own.npz")
