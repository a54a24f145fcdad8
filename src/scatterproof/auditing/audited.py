"""What is audited: a model by name and a file of data, as a victim and a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from scatterproof.config.base import problems
from scatterproof.config.dataset import DatasetConfig, LabelTask
from scatterproof.config.victim import HF, VictimConfig
from scatterproof.cutting import logits_on
from scatterproof.errors import UserError
from scatterproof.running.seeds import torch_generator
from scatterproof.victims.arrays import Split
from scatterproof.victims.data import Dataset, read_dataset
from scatterproof.victims.hf.dataset_folder import has_texts, is_dataset_folder
from scatterproof.victims.hf.folder import HfFolder
from scatterproof.victims.inputs import input_kind
from scatterproof.victims.models import answer, build_model, find_layers, largest_layer
from scatterproof.victims.tasks import answers

BUILT_IN = ("digits", "cifar100")
TEXT = (".txt", ".tsv", ".text")
ARRAYS = (".npz", ".safetensors")
MOST_INDEX, OF_INDEX = 200, 0.2  # texts of an index made of the data, and their share of it
MOST_TEST = 500  # inputs of a test without labels


class AuditError(UserError):
    """What was asked to be audited can't be, said in one line."""


@dataclass(frozen=True)
class Victim:
    """A model as it is attacked.

    labelled: whether the data say what is right, or the model itself does; noun: what a reader calls the inputs.
    """

    config: VictimConfig
    dataset: Dataset
    model: nn.Module
    labelled: bool
    noun: str

    @property
    def name(self) -> str:
        """The model, as the user named it."""
        return self.config.model


def read_victim(
    model: str,
    data: str,
    checkpoint: Path | None = None,
    width: float = 1.0,
    input_size: int = 32,
    length: int | None = None,
    index: Path | None = None,
    model_args: dict[str, Any] | None = None,
    task: LabelTask | Literal["embedding"] | None = None,
) -> Victim:
    """The model that is named as `victim.model` names it, and data: `digits`, `cifar100`, or a file or folder.

    Raises: UserError, in one line.
    """
    config = victim_config(model, checkpoint, width, input_size, model_args)
    about = data_config(model, data, input_size, length, index, None if task == "embedding" else task)
    folder = HfFolder.read(model) if config.kind == "checkpoint" and config.checkpoint is None else None
    encoder = folder is not None and folder.task == "retrieval"
    if task == "embedding":
        if not encoder or index is not None:
            raise AuditError(f"--task embedding: is for a sentence encoder without --index, not '{model}'")
        return _embedder(config, about)
    if encoder:
        return _encoder(config, about)
    dataset = read_dataset(about)
    config = with_named(config, dataset)
    scaled = folder.normalisation if folder is not None else None
    if scaled is not None and len(scaled[0]) == len(dataset.mean):
        dataset = replace(dataset, mean=scaled[0], std=scaled[1])
    network = _network(config, dataset)
    noun = "images" if input_kind(dataset.test.images) == "images" else about.noun
    return Victim(config, _few(dataset), network, True, noun)


def victim_config(
    model: str,
    checkpoint: Path | None,
    width: float,
    input_size: int,
    model_args: dict[str, Any] | None,
    trained: bool = False,
) -> VictimConfig:
    """A study's `victim` of this model. trained: whether a study may train it. Raises: AuditError."""
    own = model.startswith((HF, "torchvision:")) or ":" in model
    if checkpoint is None and not own and not trained:
        raise AuditError(f"MODEL '{model}': has no weights of its own, expected --checkpoint FILE")
    given = {"model": model, "width": width, "input_size": input_size, "model_args": model_args or {}}
    given |= {"kind": "checkpoint" if checkpoint is not None or model.startswith(HF) else "train"}
    try:
        return VictimConfig.model_validate({**given, "checkpoint": str(checkpoint) if checkpoint else None})
    except ValidationError as error:
        raise AuditError("; ".join(problems(error, ""))) from None


def with_named(config: VictimConfig, dataset: Dataset) -> VictimConfig:
    """The same victim, with the several named inputs of these data. Raises: AuditError."""
    if not dataset.named:
        return config
    try:
        return VictimConfig.model_validate(config.model_dump() | {"inputs": dataset.named})
    except ValidationError as error:
        raise AuditError("; ".join(problems(error, ""))) from None


def data_config(
    model: str, data: str, size: int, length: int | None, index: Path | None, task: LabelTask | None = None
) -> DatasetConfig:
    """A study's `dataset` of these data, by their name. task: of arrays. Raises: AuditError."""
    try:
        about = _data(model, data, size, length, index)
        return DatasetConfig.model_validate(about | ({"task": task} if task else {}))
    except ValidationError as error:
        raise AuditError("; ".join(problems(error, ""))) from None


def _data(model: str, data: str, size: int, length: int | None, index: Path | None) -> dict[str, Any]:
    path = Path(data)
    if data in BUILT_IN:
        return {"kind": data}
    tabular = is_dataset_folder(path)
    if path.is_dir() and not tabular:
        return {"kind": "folder", "path": data, "image_size": size}
    if not path.exists():
        raise AuditError(f"--data '{data}': no such file or folder, expected one, or {' or '.join(BUILT_IN)}")
    if path.suffix in ARRAYS or (tabular and not (model.startswith(HF) and has_texts(path))):
        return {"kind": "arrays", "path": data}
    if path.suffix not in TEXT and not tabular:
        raise AuditError(f"--data '{data}': expected a name that ends in {', '.join((*ARRAYS, *TEXT))}, or a folder")
    if not model.startswith(HF):
        raise AuditError(f"--data '{data}': text is for a model hf:FOLDER, expected arrays for '{model}'")
    text = {"kind": "text", "path": data, "tokenizer": model.removeprefix(HF), "length": length}
    return text | ({"index": str(index), "task": "retrieval"} if index else {})


def _network(config: VictimConfig, dataset: Dataset) -> nn.Module:
    """With its own weights, tried on two inputs. Raises: ModelError, AuditError."""
    from scatterproof.victims.models import read_victim as with_weights

    images = dataset.test.images[:2]
    from scatterproof.victims.data import to_input

    inputs = to_input(images, config.input_size, dataset.mean, dataset.std)
    if config.kind == "checkpoint":
        model = with_weights(config, 0, dataset.classes, inputs)
    else:
        model = build_model(config, dataset.classes).eval()
    logits = answer(model, config, inputs)
    if not isinstance(logits, torch.Tensor) or list(logits.shape) != [len(images), dataset.classes]:
        what = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise AuditError(
            f"MODEL '{config.model}' answers {what}, expected [{len(images)}, {dataset.classes}]: one output for each "
            f"{'class' if dataset.task == 'classification' else 'column of the labels'}"
        )
    return model


def _few(dataset: Dataset) -> Dataset:
    """With a test of at most `MOST_TEST` inputs, drawn at random."""
    count = len(dataset.test)
    if count <= MOST_TEST:
        return dataset
    order = torch.randperm(count, generator=torch_generator("audit test"))[:MOST_TEST]
    return replace(dataset, test=Split(dataset.test.images[order], dataset.test.labels[order]))


def _encoder(config: VictimConfig, about: DatasetConfig) -> Victim:
    """A sentence encoder: it looks for the nearest text of an index, the targets of the data or some of its texts.

    Without targets what the encoder itself finds is right.
    """
    from scatterproof.victims.hf.text import Tokenizer, read_index, read_lines
    from scatterproof.victims.hf.text_network import SentenceEncoder, hf_network
    from scatterproof.victims.hf.weights import make_index

    if about.path is None or about.tokenizer is None:
        raise AuditError(
            f"--data '{about.path or about.kind}': MODEL '{config.model}' is a sentence encoder, expected text"
        )
    lines, tokenizer = read_lines(Path(about.path)), Tokenizer(about.tokenizer)
    order = np.random.default_rng(about.split_seed).permutation(len(lines.texts))
    texts = [lines.texts[at] for at in order]
    if lines.targets is None:
        count = min(MOST_INDEX, int(OF_INDEX * len(texts)))
        indexed, texts = texts[:count], texts[count:]
    else:
        indexed = read_index(Path(about.index), "--index") if about.index else list(dict.fromkeys(lines.targets))
    model = hf_network(config, len(indexed), weights=True)
    assert isinstance(model, SentenceEncoder)
    longest = min(about.length or 64, model.longest)
    make_index(model, tokenizer.sentences(indexed, longest))
    inputs = tokenizer.sentences(texts, longest)
    if lines.targets is None:
        labels = torch.zeros(len(inputs), dtype=torch.int64)
    else:
        labels = _of_index([lines.targets[at] for at in order], indexed)
    test = min(MOST_TEST, len(inputs) // 2)
    dataset = Dataset(
        name=Path(about.path).stem,
        classes=len(indexed),
        victim=Split(inputs[:0], labels[:0]),
        pirate=Split(inputs[test:], labels[test:]),
        test=Split(inputs[:test], labels[:test]),
        mean=(),
        std=(),
        source=str(about.path),
        split_seed=about.split_seed,
    )
    if lines.targets is None:
        own = logits_on(model, config, dataset, dataset.test.images).argmax(1)
        dataset = replace(dataset, test=Split(dataset.test.images, own))
    return Victim(config, dataset, model, lines.targets is not None, about.noun)


def _embedder(config: VictimConfig, about: DatasetConfig) -> Victim:
    """A sentence encoder whose own vectors are right: a text's score is the cosine to the vector that it has there."""
    from scatterproof.victims.hf.text import Tokenizer, read_lines
    from scatterproof.victims.hf.text_network import EMBEDDING, hf_network

    if about.path is None or about.tokenizer is None:
        raise AuditError(f"--data '{about.path or about.kind}': --task embedding is of texts, expected text")
    lines, tokenizer = read_lines(Path(about.path)), Tokenizer(about.tokenizer)
    if lines.targets is not None:
        raise AuditError(f"--data '{about.path}': has targets, expected texts alone for --task embedding")
    config = config.model_copy(update={"model_args": config.model_args | {"answers": EMBEDDING}})
    model = hf_network(config, 0, weights=True)
    inputs = tokenizer.sentences(lines.texts, min(about.length or 64, model.longest))
    inputs = inputs[torch.from_numpy(np.random.default_rng(about.split_seed).permutation(len(inputs)))]
    test = min(MOST_TEST, len(inputs) // 2)
    none = Split(inputs[:0], torch.zeros(0, 0, dtype=torch.float64))
    dataset = Dataset(
        name=Path(about.path).stem,
        classes=0,
        victim=none,
        pirate=none,
        test=none,
        mean=(),
        std=(),
        source=str(about.path),
        split_seed=about.split_seed,
    )
    own = answers(logits_on(model, config, dataset, inputs), EMBEDDING)
    victim, first, rest = (Split(inputs[part], own[part]) for part in (slice(0), slice(test), slice(test, None)))
    dataset = replace(dataset, classes=own.shape[1], victim=victim, pirate=rest, test=first)
    return Victim(config, dataset, model, False, about.noun)


def _of_index(targets: Sequence[str], indexed: Sequence[str]) -> torch.Tensor:
    number = {text: at for at, text in enumerate(indexed)}
    missing = next((target for target in targets if target not in number), None)
    if missing is not None:
        raise AuditError(f"--index: has no text {missing!r:.60}, which is a target in the data")
    return torch.tensor([number[target] for target in targets])


def chosen_layers(victim: Victim, patterns: Sequence[str] | None) -> list[str]:
    """The layers to attack: those of these patterns, or the largest one. Raises: ModelError, AuditError."""
    largest = largest_layer(victim.model)
    if largest is None:
        raise AuditError(f"MODEL '{victim.name}': has no dense layer (nn.Linear), which alone can be scattered")
    if patterns is None:
        return [largest]
    return find_layers(victim.model, patterns)
