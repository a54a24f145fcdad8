"""Datasets: reading, splitting, saving, the network's input, and one clear line for every unusable source."""

import dataclasses
import errno
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from scatterproof.config.dataset import DatasetConfig
from scatterproof.victims.data import Dataset, DatasetError, load_dataset, read_dataset, save_dataset, to_input
from scatterproof.victims.filetype import DAMAGED_ZIP, file_type
from scatterproof.victims.forms.pixels import to_pixels

Arrays = dict[str, Any]
RNG = np.random.default_rng(0)


def arrays(train: int = 40, test: int = 10, classes: int = 4, shape: tuple[int, ...] = (6, 6, 3)) -> Arrays:
    return {
        "x_train": RNG.integers(0, 256, (train, *shape), dtype=np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": RNG.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": np.arange(test) % classes,
    }


def read_npz(folder: Path, content: Arrays, **keys: Any) -> Dataset:
    np.savez(folder / "own.npz", **content)
    return read_dataset(DatasetConfig(kind="npz", path=str(folder / "own.npz"), **keys))


def rows(*images: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for part in images for image in part)


def same(a: Dataset, b: Dataset) -> bool:
    for name in ("victim", "pirate", "test"):
        one, other = getattr(a, name), getattr(b, name)
        if not (torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)):
            return False
    plain = ("name", "classes", "mean", "std", "source", "split_seed")
    return all(getattr(a, key) == getattr(b, key) for key in plain)


# Digits


def test_digits_are_split_as_designed_and_stratified() -> None:
    data = read_dataset(DatasetConfig())
    assert [len(split) for split in (data.victim, data.pirate, data.test)] == [1000, 297, 500]
    assert (data.name, data.classes) == ("digits", 10)
    assert data.victim.images.shape == (1000, 1, 8, 8)
    assert data.victim.images.dtype == torch.uint8
    assert data.victim.images.max() == 255
    assert data.victim.labels.dtype == torch.int64
    whole = sum(split.labels.bincount() for split in (data.victim, data.pirate, data.test)) / 1797
    for split in (data.victim, data.pirate, data.test):
        assert (split.labels.bincount() - whole * len(split)).abs().max() <= 2
    assert 0.1 <= data.chance <= 0.11
    assert "sha256" in data.source


def test_digits_lose_no_image_and_use_none_twice() -> None:
    import sklearn.datasets

    original = np.rint(sklearn.datasets.load_digits().images * 255 / 16).astype(np.uint8)
    data = read_dataset(DatasetConfig())
    together = rows(data.victim.images, data.pirate.images, data.test.images)
    assert together == rows(torch.from_numpy(original)[:, None])


def test_the_seed_alone_decides_the_split_and_the_pirate_never_the_test() -> None:
    first = read_dataset(DatasetConfig(split_seed=3))
    assert same(first, read_dataset(DatasetConfig(split_seed=3)))
    assert not torch.equal(first.test.images, read_dataset(DatasetConfig(split_seed=4)).test.images)
    assert torch.equal(first.test.images, read_dataset(DatasetConfig(split_seed=3, pirate=50)).test.images)


def test_statistics_are_the_victims() -> None:
    data = read_dataset(DatasetConfig())
    scaled = data.victim.images.double() / 255
    assert data.mean == pytest.approx((float(scaled.mean()),), abs=1e-12)
    assert data.std == pytest.approx((float(scaled.std(correction=0)),), abs=1e-12)


# Arrays


@pytest.mark.parametrize(("shape", "channels"), [((6, 5, 3), 3), ((6, 5, 1), 1), ((6, 5), 1)])
def test_npz_keeps_pixels_where_they_are(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    content = arrays(shape=shape)
    data = read_npz(tmp_path, content)
    pixels = content["x_test"].reshape(10, 6, 5, channels).transpose(0, 3, 1, 2)
    assert np.array_equal(data.test.images.numpy(), pixels)
    assert np.array_equal(data.test.labels.numpy(), content["y_test"])
    assert (data.name, data.classes, len(data.pirate), len(data.victim)) == ("own", 4, 4, 36)


@settings(max_examples=30, deadline=None)
@given(pirate=st.integers(0, 39), classes=st.integers(2, 7), seed=st.integers(0, 5))
def test_training_images_go_to_exactly_one_of_two(
    tmp_path_factory: pytest.TempPathFactory, pirate: int, classes: int, seed: int
) -> None:
    content = arrays(classes=classes)
    content["x_train"][:, 0, 0, 0] = np.arange(40)
    data = read_npz(tmp_path_factory.getbasetemp(), content, pirate=pirate, split_seed=seed)
    where = torch.cat([data.victim.images, data.pirate.images])[:, 0, 0, 0].long()
    assert sorted(where.tolist()) == list(range(40))
    assert len(data.pirate) == pirate
    assert torch.equal(torch.cat([data.victim.labels, data.pirate.labels]), where % classes)
    share = (
        data.pirate.labels.bincount(minlength=classes) - pirate * torch.arange(40).remainder(classes).bincount() / 40
    )
    assert share.abs().max() <= 1


def test_no_pirate_leaves_everything_to_the_victim(tmp_path: Path) -> None:
    data = read_npz(tmp_path, arrays(), pirate=0)
    assert len(data.victim) == 40
    assert data.pirate.images.shape == (0, 3, 6, 6)
    save_dataset(data, tmp_path / "data.safetensors")
    assert same(load_dataset(tmp_path / "data.safetensors"), data)


def test_a_constant_channel_can_be_normalised(tmp_path: Path) -> None:
    content = arrays()
    content["x_train"][..., 1] = 255
    data = read_npz(tmp_path, content)
    assert (data.mean[1], data.std[1]) == (1.0, 1.0)
    assert to_input(data.victim.images, 6, data.mean, data.std).isfinite().all()


def changed(key: str, change: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    return lambda content: content | {key: change(content[key])}


def few(shape: tuple[int, ...]) -> Callable[[Arrays], Arrays]:
    return lambda content: arrays(shape=shape)


BAD_ARRAYS: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "missing": (
        lambda a: {"x_train": a["x_train"], "images": a["x_test"]},
        r"missing y_train, x_test, y_test \(present: x_train, images\)",
    ),
    "flat images": (changed("x_test", lambda x: x.reshape(10, -1)), r"x_test is uint8 \[10, 108\]"),
    "objects": (changed("y_test", lambda y: y.astype(object)), r"not an \.npz of plain arrays"),
    "a name like one": (
        lambda a: (
            {"ytest" if name == "y_test" else name: value for name, value in a.items() if name != "x_test"}
            | {"x_tst": a["x_test"]}
        ),
        r"missing x_test \(present: x_train, y_train, ytest, x_tst\), expected .*: is 'x_tst' x_test\?",
    ),
    "two names": (
        lambda a: under(**KERAS)(a) | {"X_train": a["x_train"]},
        "train_images and X_train may each be x_train, expected one of them, or one named x_train",
    ),
    "normalised": (
        changed("x_train", lambda x: x / 64 - 2),
        r"x_train is float64 \[40, 6, 6, 3\], expected uint8 .*, not -2 to 1.984; or floats from 0 to 1",
    ),
    "fractions": (changed("x_train", lambda x: x * 0.3), "not 0 to 76.5 with values between whole numbers; or floats"),
    "dark floats": (changed("x_train", lambda x: x / 255**2), "not 0 to 0.003922; or floats from 0 to 1"),
    "integers to 1": (changed("x_train", lambda x: (x > 9).astype(int)), r"x_train is int64 .* not 0 to 1; or floats"),
    "another scale": (changed("x_train", lambda x: x // 16 * 1.0), "not 0 to 15; or floats from 0 to 1"),
    "two scales of floats": (
        lambda a: a | {"x_train": a["x_train"] * 1.0, "x_test": a["x_test"] / 255},
        "x_train is whole numbers 0 to 255 and x_test is 0 to 1, expected floats of one scale",
    ),
    "channels first or last": (few((3, 6, 3)), r"is \[40, 3, 6, 3\], whose channels may be first or last"),
    "half labels": (changed("y_train", lambda y: y + 0.5), r"y_train is float64 \[40\], expected integers .*, not 0.5"),
    "NaN labels": (changed("y_test", lambda y: y * np.nan), r"y_test is float64 \[10\], expected integers .*, not nan"),
    "infinite labels": (changed("y_test", lambda y: y + np.inf), "y_test has the label inf, expected 0 to"),
    "soft labels": (
        changed("y_test", lambda y: np.eye(4)[y] * 0.9 + 0.025),
        r"y_test is float64 \[10, 4\], expected integers .* with a single 1 a row, which row 0 has not",
    ),
    "two labels": (
        changed(
            "y_train", lambda y: np.eye(4, dtype=int)[y] + np.eye(4, dtype=int)[(y + (y > 2)) % 4] * (y > 2)[:, None]
        ),
        "with a single 1 a row, which row 3 has not",
    ),
    "a class without images": (
        changed("y_train", lambda y: np.eye(5, dtype=int)[y]),
        r"y_train has no image of class 4, expected some of each class 0\.\.4",
    ),
    "words": (changed("y_test", lambda y: y.astype(str)), r"y_test is <U21 \[10\], expected integers"),
    "negative": (changed("y_train", lambda y: y - 1), "y_train has the label -1, expected 0 to"),
    "huge": (changed("y_train", lambda y: y + 99), r"y_train has the label 102, expected 0 to 39"),
    "float images beyond 1": (changed("x_train", lambda x: x * 2.0), r"\[N,H,W\] with values 0 to 255, not 0 to 510"),
    "16-bit images": (
        changed("x_test", lambda x: x.astype(np.uint16) * 257),
        r"x_test is uint16 \[10, 6, 6, 3\], expected",
    ),
    "NaN": (changed("x_test", lambda x: x * np.nan), r"x_test is float64 .* with values 0 to 255, not NaN"),
    "bool images": (changed("x_test", lambda x: x > 9), r"x_test is bool \[10, 6, 6, 3\], expected uint8"),
    "alpha": (changed("x_test", lambda x: np.pad(x, [(0, 0)] * 3 + [(0, 1)])), r"x_test is uint8 \[10, 6, 6, 4\], exp"),
    "images last": (
        changed("x_train", lambda x: x.transpose(1, 2, 3, 0)),
        r"x_train is uint8 \[6, 6, 3, 40\], expected",
    ),
    "rows of colours": (
        changed("x_train", lambda x: x.reshape(40, 36, 3)),
        r"x_train is \[40, 36, 3\], which may be \[N,H,W\] or have channels: expected four axes",
    ),
    "all the same": (
        changed("x_test", lambda x: np.broadcast_to(x[:1], x.shape)),
        "x_test: all 10 images are the same, expected images that differ",
    ),
    "constant": (changed("x_train", np.zeros_like), "x_train: all 40 images are the same, expected images that differ"),
    "two scales": (
        changed("x_test", lambda x: x // 128),
        r"x_test: values end at 1, but those of .*x_train at 255, expected one scale, 0 to 255",
    ),
    "from 1": (
        changed("y_train", lambda y: y + 1),
        r"y_train: labels run 1\.\.4, expected 0\.\.3: subtract 1, from y_test",
    ),
    "both from 1": (
        lambda a: a | {"y_train": a["y_train"] + 1, "y_test": a["y_test"] + 1},
        r"y_train: labels run 1\.\.4, expected 0\.\.3",
    ),
    "a gap": (
        changed("y_train", lambda y: np.where(y > 1, y + 1, y)),
        r"y_train has no image of class 2, expected some of each class 0\.\.4",
    ),
    "gaps": (
        changed("y_train", lambda y: 10 * y),
        "y_train has no image of the classes 1, 2, 3, 4, 5, 6, 7, 8 and 19 more, expected some of each class 0..30",
    ),
    "not tested": (
        changed("y_test", lambda y: np.where(y == 3, 0, y)),
        r"y_test has no image of class 3, expected some of each class 0\.\.3",
    ),
    "one class": (
        changed("y_train", lambda y: y * 0 + 2),
        "y_train has the label 2 alone, expected at least two classes",
    ),
    "beyond 63 bits": (
        changed("y_train", lambda y: y.astype(np.uint64) + np.uint64(2**63)),
        "y_train has the label 9223372036854775811, expected 0 to the number of classes",
    ),
    "no labels": (changed("y_train", lambda y: y[:0]), "x_train has 40 images, but y_train has 0 labels"),
    "unseen": (changed("y_test", lambda y: y + 1), r"y_test has the label 4, expected 0 to 3"),
    "counts": (changed("y_train", lambda y: y[:-1]), "x_train has 40 images, but y_train has 39 labels"),
    "empty": (changed("x_test", lambda x: x[:0]), r"x_test \[0, 6, 6, 3\] is empty"),
    "sizes": (
        changed("x_test", lambda x: x[:, :5]),
        r"x_test has images of \[C,H,W\] \[3, 5, 6\], expected \[3, 6, 6\]",
    ),
}


def under(**names: str) -> Callable[[Arrays], Arrays]:
    """The same arrays under other names, `under(train_x="x_train")`."""
    return lambda content: {name: content[role] for name, role in names.items()}


KERAS = {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}
VALIDATION = {"x_train": "x_train", "y_train": "y_train", "x_val": "x_test", "y_val": "y_test"}
# What differs from the plain arrays, and what is printed of it; what is read is the same
USUAL_ARRAYS: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "floats": (changed("x_train", lambda x: x / 255), "x_train: float64 of 0 to 1, times 255, rounded"),
    "float32": (
        changed("x_test", lambda x: (x / 255).astype(np.float32)),
        "x_test: float32 of 0 to 1, times 255, rounded",
    ),
    "float16": (changed("x_test", lambda x: (x / 255).astype(np.float16)), "x_test: float16 of 0 to 1, times 255"),
    "whole floats": (
        changed("x_train", lambda x: x.astype(np.float32)),
        "x_train: float32 of whole numbers 0 to 255, as uint8",
    ),
    "wide integers": (changed("x_train", lambda x: x.astype(np.int64)), "x_train: int64 of whole numbers 0 to 255"),
    "channels first": (changed("x_test", lambda x: x.transpose(0, 3, 1, 2)), "x_test: channels first"),
    "floats with channels first": (
        changed("x_train", lambda x: x.transpose(0, 3, 1, 2) / 255),
        "x_train: float64 of 0 to 1, times 255, rounded, channels first",
    ),
    "column of labels": (changed("y_train", lambda y: y[:, None]), "y_train: [40, 1] as [N]"),
    "float labels": (changed("y_train", lambda y: y * 1.0), "y_train: whole float64 as integers"),
    "column of float labels": (
        changed("y_test", lambda y: y[:, None].astype(np.float32)),
        "y_test: [10, 1] as [N], whole float32 as integers",
    ),
    "one-hot": (changed("y_test", lambda y: np.eye(4, dtype=int)[y]), "y_test: one-hot of 4 classes"),
    "one-hot floats": (changed("y_train", lambda y: np.eye(4, dtype=np.float32)[y]), "y_train: one-hot of 4 classes"),
    "one-hot booleans": (changed("y_train", lambda y: np.eye(4, dtype=bool)[y]), "y_train: one-hot of 4 classes"),
    "uint8 labels": (changed("y_train", lambda y: y.astype(np.uint8)), ""),
    "int32 labels": (changed("y_test", lambda y: y.astype(np.int32)), ""),
    "keras": (under(**KERAS), "; ".join(f"{name} is {role}" for name, role in KERAS.items())),
    "capitals": (under(X_train="x_train", Y_train="y_train", X_test="x_test", Y_test="y_test"), "X_train is x_train"),
    "joined": (under(trainX="x_train", trainY="y_train", testX="x_test", testY="y_test"), "testY is y_test"),
    "data and targets": (
        under(**{"train-data": "x_train", "train-targets": "y_train", "test-data": "x_test", "test.target": "y_test"}),
        "train-data is x_train",
    ),
    "validation alone": (under(**VALIDATION), "x_val is x_test; y_val is y_test"),
    "validation as well": (lambda a: a | {"x_val": a["x_test"], "y_val": a["y_test"]}, "left out x_val, y_val"),
    "another beside": (lambda a: a | {"train_images": a["x_test"]}, "left out train_images"),
}


@pytest.mark.parametrize("case", USUAL_ARRAYS)
def test_arrays_in_other_usual_forms_are_read_alike(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, said = USUAL_ARRAYS[case]
    plain = arrays()
    expected = read_npz(tmp_path, plain)
    assert capsys.readouterr().out == ""
    data = read_npz(tmp_path, change(plain))
    assert same(data, dataclasses.replace(expected, source=data.source))
    printed = capsys.readouterr().out
    assert said in printed and printed.count("\n") == (1 if said else 0)
    assert printed.startswith(f"{tmp_path / 'own.npz'}: ") or not said


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
def test_floats_become_the_nearest_of_256_levels(values: list[float]) -> None:
    images = np.array([*values, 1.0], np.float32).reshape(-1, 1, 1, 1).repeat(5, 1).repeat(5, 2)
    pixels, _ = to_pixels("x", images)
    assert np.abs(pixels[:, 0] - 255.0 * images[..., 0]).max() <= 0.5


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_named(tmp_path: Path, case: str) -> None:
    change, message = BAD_ARRAYS[case]
    with pytest.raises(DatasetError, match=message) as error:
        read_npz(tmp_path, change(arrays()))
    assert str(tmp_path / "own.npz") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pirate_that_takes_everything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.pirate 40: expected fewer than the 40 training images"):
        read_npz(tmp_path, arrays(), pirate=40)
    with pytest.raises(DatasetError, match=r"dataset\.pirate 1297"):
        read_dataset(DatasetConfig(pirate=1297))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"no archive", "text that begins 'no archive'"),
        (b"PK\x03\x04 broken", "a zip archive that is cut off or damaged"),
        (b"\x93NUMPY", "a numpy array"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-LFS pointer"),
        (b"<html>404", "an HTML page"),
    ],
)
def test_what_is_no_npz_is_said_to_be_none(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"own\.npz: not an \.npz of plain arrays: it is {what}"):
        read_dataset(DatasetConfig(kind="npz", path=str(path)))


def test_a_disk_that_fails_is_no_damaged_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(b"PK\x03\x04 whole")
    for number, damaged in ((errno.EIO, False), (errno.ESTALE, False), (errno.EINVAL, True)):
        monkeypatch.setattr(zipfile, "ZipFile", Mock(side_effect=OSError(number, "read failed")))
        if damaged:
            assert file_type(path) == DAMAGED_ZIP
        else:
            with pytest.raises(OSError, match="read failed"):
                file_type(path)


def test_an_absent_npz_a_folder_and_a_bare_array_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.npz: No such file or directory"):
        read_dataset(DatasetConfig(kind="npz", path=str(tmp_path / "none.npz")))
    with pytest.raises(DatasetError, match=r"expected an \.npz"):
        read_dataset(DatasetConfig(kind="npz", path=str(tmp_path)))
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(DatasetError, match=r"bare\.npy: not an \.npz"):
        read_dataset(DatasetConfig(kind="npz", path=str(tmp_path / "bare.npy")))


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_damage_anywhere_is_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, share: float, flip: int, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez_compressed(path, **arrays())
    data = bytearray(path.read_bytes())
    place = int(share * len(data))
    data[place] ^= flip
    path.write_bytes(data[:place] if cut else data)
    try:
        read_dataset(DatasetConfig(kind="npz", path=str(path)))
    except DatasetError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert not cut


# The saved file


def test_a_saved_dataset_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    data = read_dataset(DatasetConfig(split_seed=1))
    save_dataset(data, tmp_path / "one.safetensors")
    save_dataset(data, tmp_path / "two.safetensors")
    assert same(load_dataset(tmp_path / "one.safetensors"), data)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert set(load_file(tmp_path / "one.safetensors")) == {
        f"{split}_{key}" for split in ("victim", "pirate", "test") for key in ("images", "labels")
    }


def test_other_files_are_no_datasets(tmp_path: Path) -> None:
    data = read_dataset(DatasetConfig())
    save_dataset(data, tmp_path / "good")
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:-5])
    (tmp_path / "text").write_text("no tensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "model")
    for name in ("cut", "text", "model", "absent"):
        with pytest.raises(DatasetError, match=f"{name}: expected a dataset that Scatterproof saved"):
            load_dataset(tmp_path / name)
    wrong = dataclasses.replace(data.test, labels=data.test.labels[:-1])
    save_dataset(dataclasses.replace(data, test=wrong), tmp_path / "uneven")
    with pytest.raises(DatasetError, match="uneven: test: expected uint8 images"):
        load_dataset(tmp_path / "uneven")


# The network's input


def test_input_is_normalised_and_one_channel_becomes_three() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    x = to_input(images, 4, (0.2,), (0.4,))
    assert (x.shape, x.dtype) == ((3, 3, 4, 4), torch.float32)
    assert x[:, :, 0, 0].tolist() == pytest.approx(np.repeat([[-0.5], [0.0], [2.0]], 3, 1), abs=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_input_has_the_size_asked_for_whatever_the_images(height: int, width: int, size: int, channels: int) -> None:
    images = torch.full((2, channels, height, width), 255, dtype=torch.uint8)
    x = to_input(images, size, (0.5,) * channels, (0.5,) * channels)
    assert x.shape == (2, 3, size, size)
    assert torch.allclose(x, torch.ones(()), atol=1e-5)


def test_shrinking_is_antialiased_and_crops_nothing() -> None:
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 255
    x = to_input(stripes, 8, (0.0,) * 3, (1.0,) * 3)
    assert (x - 0.5).abs().max() < 0.1
    corner = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    corner[..., 0, 0] = 255
    assert to_input(corner, 28, (0.0,) * 3, (1.0,) * 3)[0, 0, 0, 0] > 0.5


@pytest.mark.parametrize(("channels", "values"), [(3, (0.5,)), (1, (0.5, 0.5, 0.5)), (2, (0.5, 0.5))])
def test_statistics_that_do_not_fit_are_refused(channels: int, values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=f"images of {channels} channels"):
        to_input(torch.zeros(1, channels, 4, 4, dtype=torch.uint8), 4, values, values)
