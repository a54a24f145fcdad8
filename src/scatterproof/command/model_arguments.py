"""What commands ask of a model by name: as a study's `victim` has it."""

import argparse
from pathlib import Path
from typing import Any

import yaml


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL and what goes with it."""
    parser.add_argument("model", metavar="MODEL", help="hf:FOLDER, vgg16_bn, torchvision:NAME or MODULE:FUNCTION")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the model's weights")
    parser.add_argument("--width", type=float, default=1.0, help="of the VGG family; default %(default)s")
    parser.add_argument("--input-size", type=int, default=32, metavar="PIXELS", help="side; default %(default)s")
    parser.add_argument(
        "--model-args",
        type=_mapping,
        metavar="YAML",
        help="arguments of MODULE:FUNCTION or torchvision:NAME, as victim.model_args: '{classes: 100}'",
    )


def add_init_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command."""
    add_model_arguments(parser)
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="text (.tsv, or .txt for a language model), arrays (.npz, .safetensors), "
        "a folder of images or of the library datasets, digits or "
        "cifar100",
    )
    parser.add_argument("--layer", default="largest", metavar="PATH", help="to be scattered; default the largest")
    parser.add_argument("--length", type=int, metavar="TOKENS", help="of a text at most; default 64")
    parser.add_argument("--index", type=Path, metavar="FILE", help="texts, one a line, that a .tsv's targets are of")
    parser.add_argument(
        "--task", choices=["classification", "multilabel", "regression"], help="of arrays; default classification"
    )
    parser.add_argument("--out", type=Path, default=Path("study.yaml"), metavar="FILE", help="default %(default)s")
    parser.epilog = "The file is new: one that is there is not replaced."


def _mapping(text: str) -> dict[str, Any]:
    """Keys and values. Raises: argparse.ArgumentTypeError."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise argparse.ArgumentTypeError(f"'{text}': expected keys and values such as '{{classes: 100}}'")
    return value
