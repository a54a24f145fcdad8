"""Datasets: handwritten digits, CIFAR-100, arrays of your own, or image folders; and their splits.

A dataset is read once, split between victim, pirate and test, and saved as one file that every later stage reads.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import functional

from scatterproof.config.dataset import DatasetConfig
from scatterproof.running.files import atomic
from scatterproof.running.seeds import torch_generator
from scatterproof.victims.arrays import Split, read_arrays, read_npz, to_split
from scatterproof.victims.download import DatasetError, download_cifar100, is_complete
from scatterproof.victims.images import read_folder
from scatterproof.victims.inputs import input_kind
from scatterproof.victims.tasks import Task, chance, is_task, outputs_of, task_of

__all__ = ["Dataset", "DatasetError", "Split", "load_dataset", "read_dataset", "save_dataset", "to_input"]

DIGITS_TEST = 500
DEFAULT_PIRATE = {"cifar100": 5000, "digits": 297}
OWN_CIFAR100 = "cifar100.npz"  # under the root, instead of a download
SPLITS = ("victim", "pirate", "test")


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits and how they came about; each split's `images` are inputs of one and the same kind.

    `mean` and `std` are per channel, of the victim's images scaled to 0..1 (a constant channel has std 1), and empty
    where the inputs are features or token ids;
    `source` says what was read, with its sha256; `named` what each row of features holds of several named inputs, as
    `victim.inputs` does.
    """

    name: str
    classes: int
    victim: Split
    pirate: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    split_seed: int
    named: Mapping[str, str] = field(default_factory=dict)

    def redrawn(self, draw: int) -> "Dataset":
        """The same with the pirate's images in an order of this draw's own; the first draw's is their own order."""
        if not draw:
            return self
        order = torch.randperm(len(self.pirate), generator=torch_generator("pirate", draw))
        return replace(self, pirate=Split(self.pirate.images[order], self.pirate.labels[order]))

    @property
    def chance(self) -> float:
        """The best score, on the test split, of one and the same answer: of classes, the most frequent one's share."""
        return chance(self.test.labels)

    @property
    def task(self) -> Task:
        """What the network's answers are for."""
        return task_of(self.test.labels)


class _Raw(NamedTuple):
    """What was read, before the training images are split."""

    name: str
    train: Split
    test: Split
    source: str
    classes: int | None = None  # where labels do not name every class
    named: Mapping[str, str] = {}


def read_dataset(config: DatasetConfig) -> Dataset:
    """Read the raw source (downloading CIFAR-100 if need be) and split its training images between victim and pirate.

    The split is stratified: each class has the same share, up to one image, in both. Raises: DatasetError.
    """
    rng = np.random.default_rng(config.split_seed)
    raw = _read_raw(config, rng)
    pirate = config.pirate
    if pirate is None:
        pirate = DEFAULT_PIRATE.get(config.kind, len(raw.train) // 10)
    if pirate >= len(raw.train):
        raise DatasetError(f"dataset.pirate {pirate}: expected fewer than the {len(raw.train)} training images")
    first, rest = _divide(raw.train, pirate, rng)
    mean, std = _normalisation(rest.images, config)
    classes = raw.classes or outputs_of(raw.train.labels)
    return Dataset(raw.name, classes, rest, first, raw.test, mean, std, raw.source, config.split_seed, raw.named)


def is_on_disk(config: DatasetConfig) -> bool:
    """Whether `read_dataset` needs no network."""
    root = Path(config.root)
    return config.kind != "cifar100" or (root / OWN_CIFAR100).exists() or is_complete(root)


def _read_raw(config: DatasetConfig, rng: np.random.Generator) -> _Raw:
    if config.kind == "digits":
        return _read_digits(rng)
    if config.kind == "cifar100":
        return _read_cifar100(config)
    if config.path is None:
        raise DatasetError(f"dataset.path: required for kind '{config.kind}'")
    path = Path(config.path)
    if config.kind == "npz":
        return _Raw(path.stem, *read_npz(path), _sha256(path))
    if config.kind == "arrays":
        task = config.label_task
        meant = "" if task == "classification" else f", labels for {task}"
        train, test, named = read_arrays(path, config.inputs, task)
        return _Raw(path.stem, train, test, _sha256(path) + meant, named=named)
    if config.kind == "text":
        from scatterproof.victims.hf.labelled_text import read_text

        return _Raw(path.stem, *read_text(config, rng, _sha256(path)))
    if config.image_size is None:
        raise DatasetError("dataset.image_size: required for kind 'folder'")
    train, test, digest = read_folder(path, config.image_size)
    return _Raw(path.resolve().name, train, test, f"{path} (sha256 of names and files {digest})")


def _divide(split: Split, size: int, rng: np.random.Generator) -> tuple[Split, Split]:
    """A random stratified part of `size` images, and the rest; both in random order."""
    labels = split.labels.numpy()
    shuffled = rng.permutation(len(labels))
    if labels.ndim > 1:
        return _parts(split, shuffled[:size], shuffled[size:])
    by_class = np.argsort(labels[shuffled], kind="stable")
    counts = np.bincount(labels)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    place = np.empty(len(labels))  # of each image within its class, 0..1: any prefix by it has every class's share
    place[by_class] = (np.arange(len(labels)) - starts + 0.5) / np.repeat(counts, counts)
    order = shuffled[np.argsort(place, kind="stable")]
    return _parts(split, *(rng.permutation(part) for part in (order[:size], order[size:])))


def _parts(split: Split, *orders: NDArray[np.int64]) -> tuple[Split, Split]:
    first, rest = (Split(split.images[order], split.labels[order]) for order in map(torch.from_numpy, orders))
    return first, rest


def _normalisation(images: torch.Tensor, config: DatasetConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: the study's, or those of these images; empty for other inputs.

    Raises: DatasetError.
    """
    pixels = input_kind(images) == "images"
    if config.mean is None or config.std is None:
        return _statistics(images) if pixels else ((), ())
    channels = images.shape[1] if pixels else 0
    if len(config.mean) != channels:
        what = f"images have {channels} channels" if pixels else "the inputs are no images"
        raise DatasetError(f"dataset.mean {config.mean}: {what}, expected {channels or 'no'} numbers")
    return tuple(config.mean), tuple(config.std)


def _statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the scale 0..1, exactly, from its histogram."""
    values = torch.arange(256, dtype=torch.float64) / 255
    moments = []
    for channel in images.unbind(1):
        weights = channel.flatten().bincount(minlength=256).double() / channel.numel()
        mean = float(weights @ values)
        moments.append((mean, float(weights @ (values - mean) ** 2) ** 0.5 or 1.0))
    return tuple(mean for mean, _ in moments), tuple(std for _, std in moments)


def _sha256(path: Path) -> str:
    """A file, or a folder by the names and content of its files. Raises: DatasetError."""
    if path.is_dir():
        digest = hashlib.sha256()
        for one in sorted(each for each in path.rglob("*") if each.is_file()):
            digest.update(f"{one.relative_to(path)}\0".encode() + hashlib.sha256(one.read_bytes()).digest())
        return f"{path} (sha256 of names and files {digest.hexdigest()})"
    try:
        with path.open("rb") as file:
            return f"{path} (sha256 {hashlib.file_digest(file, 'sha256').hexdigest()})"
    except OSError as error:
        raise DatasetError(f"dataset.path '{path}': {error.strerror or error}") from None


def _read_digits(rng: np.random.Generator) -> _Raw:
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    both = Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels))
    test, train = _divide(both, DIGITS_TEST, rng)
    return _Raw("digits", train, test, f"sklearn.datasets.load_digits (sha256 {digest})")


def _read_cifar100(config: DatasetConfig) -> _Raw:
    root = Path(config.root)
    own = root / OWN_CIFAR100
    if own.exists():
        return _Raw("cifar100", *read_npz(own), _sha256(own))
    folder = download_cifar100(root, config.url)
    from scatterproof.victims.vision import torchvision

    read = (torchvision.datasets.CIFAR100(root, train=part) for part in (True, False))
    train, test = (to_split(folder, "data", part.data, "targets", np.asarray(part.targets))[0] for part in read)
    return _Raw("cifar100", train, test, f"{_sha256(folder / 'train')}, {_sha256(folder / 'test')}")


def save_dataset(dataset: Dataset, path: Path | str) -> None:
    """Write one safetensors file, whole or not at all, the same bytes for the same dataset. Raises: OSError."""
    tensors: dict[str, torch.Tensor] = {}
    for name in SPLITS:
        split = getattr(dataset, name)
        tensors |= {f"{name}_images": split.images.contiguous(), f"{name}_labels": split.labels.contiguous()}
    keys = ("name", "classes", "mean", "std", "source", "split_seed")
    described = {key: getattr(dataset, key) for key in keys} | ({"named": dataset.named} if dataset.named else {})
    with atomic(path) as temporary:  # one metadata key: safetensors writes several in a random order
        save_file(tensors, temporary, metadata={"dataset": json.dumps(described)})


def load_dataset(path: Path | str) -> Dataset:
    """Read what `save_dataset` wrote. Raises: DatasetError if it isn't such a file."""
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["dataset"])
            tensors = {name: [file.get_tensor(f"{name}_{key}") for key in ("images", "labels")] for name in SPLITS}
        splits = {name: Split(*pair) for name, pair in tensors.items()}
        meta |= splits | {"mean": tuple(meta["mean"]), "std": tuple(meta["std"])}
        dataset = Dataset(**meta)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: expected a dataset that Scatterproof saved ({error!r})") from None
    for name, split in splits.items():
        if not is_task(split.labels) or not _is_input(split.images, len(split), len(dataset.mean)):
            raise DatasetError(
                f"{path}: {name}: expected uint8 images [N,C,H,W], float32 features [N,...] or int64 tokens [N,T], and "
                "int64 labels [N], bool [N,K] or float32 [N,K]"
            )
    return dataset


def _is_input(inputs: torch.Tensor, count: int, channels: int) -> bool:
    """Whether these are so many inputs of a kind; channels: of images, 0 for other kinds."""
    if len(inputs) != count:
        return False
    if channels:
        return inputs.dtype == torch.uint8 and inputs.ndim == 4 and inputs.shape[1] == channels
    return (inputs.dtype == torch.int64 and inputs.ndim == 2) or (inputs.dtype == torch.float32 and inputs.ndim > 1)


def to_input(images: torch.Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Turn images, uint8 [N,C,H,W], into a network's input, float32 [N,3,size,size], on their device.

    Features and token ids are what the network gets, and come back as they are. Images are scaled to 0..1, normalised,
    resized bilinearly (also 32 to 28: nothing is cropped; antialiased when shrinking), and one channel is repeated to
    three. Raises: ValueError if `mean` or `std` isn't one value per channel.
    """
    if input_kind(images) != "images":
        return images
    channels = images.shape[1]
    if len(mean) != channels or len(std) != channels or channels not in (1, 3):
        raise ValueError(f"images of {channels} channels with mean {mean} and std {std}, expected 1 or 3 of each")
    shift, scale = (images.new_tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in (mean, std))
    x = images.float().div_(255).sub_(shift).div_(scale)
    height, width = x.shape[2:]
    if (height, width) != (size, size):
        smaller = size < height or size < width
        x = functional.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=smaller)
    return x.repeat(1, 3, 1, 1) if channels == 1 else x
