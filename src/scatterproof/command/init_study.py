"""The command `init`: a commented study of one's own model and data, to be changed and run."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from scatterproof.auditing.audited import AuditError, data_config, victim_config, with_named
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.study import parse_study
from scatterproof.config.victim import HF, VictimConfig
from scatterproof.running.files import atomic
from scatterproof.victims.data import DEFAULT_PIRATE, Dataset, is_on_disk, read_dataset, to_input
from scatterproof.victims.hf.folder import HfFolder
from scatterproof.victims.models import answer, build_model, dense_layers, find_layer, load_checkpoint

FEW = 100  # blocks that a layer is cut into at least, where its sides allow
SMALLEST, LARGEST = 8, 256  # sides of blocks
SHOWN = 40  # layers that are listed
CLASSES = 100  # of CIFAR-100
DRAWS = 10  # scatterings of a model of which there is one

HEAD = """\
# A study of {model} on {data}. To see whether all fits, without running anything: scatterproof check {file}
# To run it: make study STUDY={file}, or snakemake --configfile {file}. Every key: config/README.md.
study: "{name}"  # results go to results/{name}

dataset:
{dataset}
"""
VICTIM = """
victim:
{victim}
  # The layer that is scattered. The command `layers` says what an attack reads of each.
  # Dense layers, outputs x inputs:
{layers}
  layer: {layer}
"""
TRAINED = """\
  seeds: [0, 1, 2, 3, 4]  # victims: each is trained anew; five give an interval
  train:  # how; choose what your model wants
    optimizer: adamw
    lr: 0.001
    weight_decay: 0.05
    batch_size: 128
    epochs: 10
    schedule: onecycle
    augment: none
"""
REST = """
# Sides of the square blocks. At {size} the layer has {blocks:,} of them.
block_sizes: [{size}]

prune:  # what a share of the blocks is worth to a pirate who knows their places
  keep: [0.1, 0.5, 1.0]
  repeats: 2
  corrections: [none, scale]
shuffle:  # what all blocks are worth with a share of them displaced
  keep: [1.0]
  repeats: 2

attacks:
{draws}  control_shuffles: 10  # random layers on which each attack must find nothing
  grids:  # threats: each combination of a grid's lists. What the pirate holds, and how it attacks
    - attacks: [fingerprint]  # places blocks by their statistics
      keep: [0.5, 1.0]  # shares of the blocks that the pirate holds
      images: [0, {images}]  # inputs that it has, without labels
"""


def init_study(asked: argparse.Namespace) -> int:
    """Write the study; the exit status. Raises: UserError."""
    if asked.out.exists():
        raise AuditError(f"--out '{asked.out}': is there already, expected a new file")
    config = victim_config(asked.model, asked.checkpoint, asked.width, asked.input_size, asked.model_args, trained=True)
    data = data_config(asked.model, asked.data, asked.input_size, asked.length, asked.index, asked.task)
    if config.model.startswith(HF) and data.index is not None:
        config = config.model_copy(update={"model_args": config.model_args | {"index": data.index}})
    text = _study(config, data, asked.layer, asked.out)
    parse_study(yaml.safe_load(text), str(asked.out))
    with atomic(asked.out) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(f"{asked.out}: written. Next: scatterproof check {asked.out}")
    return 0


def _study(config: VictimConfig, data: DatasetConfig, layer: str, file: Path) -> str:
    """The file's text. Raises: UserError where model, layer and data don't fit."""
    dataset = read_dataset(data) if is_on_disk(data) else None
    config = config if dataset is None else with_named(config, dataset)
    model = _network(config, dataset)
    name, layers = find_layer(model, layer), dense_layers(model)
    sides = layers[name].weight.shape
    size, pirate = _side(*sides), len(dataset.pirate) if dataset else DEFAULT_PIRATE["cifar100"]
    once = config.kind == "checkpoint"
    shown = [f"  #   {each}  {v.out_features} x {v.in_features}" for each, v in list(layers.items())[:SHOWN]]
    shown += [f"  #   and {len(layers) - SHOWN} more"] if len(layers) > SHOWN else []
    blocks = -(-sides[0] // size) * -(-sides[1] // size)
    about = {"model": config.model, "data": data.path or data.kind, "file": str(file)}
    return (
        HEAD.format(**about, name=_name(file), dataset=_keys(data.model_dump(exclude_defaults=True)))
        + VICTIM.format(victim=_keys(_own(config)), layers="\n".join(shown), layer=json.dumps(name))
        + ("  seeds: [0]  # this one model\n" if once else TRAINED)
        + REST.format(
            size=size,
            blocks=blocks,
            draws=f"  draws: {DRAWS}  # each scatters the layer anew: what a verdict on one model rests on\n" * once,
            images=min(100, pirate),
        )
    )


def _network(config: VictimConfig, dataset: Dataset | None) -> nn.Module:
    """Tried on two inputs. dataset: None for CIFAR-100 that is not here yet. Raises: ModelError."""
    if config.model.startswith(HF) and config.checkpoint is None:
        folder = HfFolder.read(config.model)
        if folder.task == "retrieval" and "index" not in config.model_args:
            raise AuditError(
                f"MODEL '{config.model}': is an encoder, which answers no classes, expected --index FILE: texts, one a "
                "line, of which one belongs to each text of the data, behind its tab"
            )
    model = build_model(config, CLASSES if dataset is None else dataset.classes).eval()
    if config.checkpoint is not None:
        load_checkpoint(model, config.checkpoint.replace("{seed}", "0"), "--checkpoint")
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8) if dataset is None else dataset.test.images[:2]
    mean, std = ((0.5,) * 3, (0.5,) * 3) if dataset is None else (dataset.mean, dataset.std)
    answer(model, config, to_input(images, config.input_size, mean, std))
    return model


def _own(config: VictimConfig) -> dict[str, Any]:
    keys = ("kind", "model", "model_args", "inputs", "checkpoint", "width", "input_size")
    given = config.model_dump(exclude_defaults=True)
    return {key: given[key] for key in keys if key in given}


def _keys(values: dict[str, Any]) -> str:
    """As YAML, two spaces in."""
    return "\n".join(f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()) or "  {}"


def _name(file: Path) -> str:
    """Of the study, by the file: letters, digits and hyphens."""
    plain = "".join(each if each.isascii() and each.isalnum() else "-" for each in file.stem.lower()).strip("-")
    return plain or "study"


def _side(outputs: int, inputs: int) -> int:
    """The largest power of two that cuts a layer into a hundred blocks or more."""
    side = LARGEST
    while side > SMALLEST and -(-outputs // side) * -(-inputs // side) < FEW:
        side //= 2
    return side
