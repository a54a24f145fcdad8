"""Small victims, data and puzzles that several tests share."""

from typing import Any

import torch
from torch import nn

from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset, Split
from scatterproof.victims.models import build_model, dense_layers

torch.set_num_threads(1)  # networks this small only lose by more
MEAN = (0.5,)


def dataset(victim: int = 40, pirate: int = 12, test: int = 30, classes: int = 5, side: int = 8) -> Dataset:
    """Images of noise around a pattern that each class has of its own."""
    generator = torch.Generator().manual_seed(7)
    patterns = torch.randint(0, 200, (classes, 1, side, side), generator=generator)

    def split(count: int) -> Split:
        labels = torch.arange(count) % classes
        noise = torch.randint(0, 56, (count, 1, side, side), generator=generator)
        return Split((patterns[labels] + noise).to(torch.uint8), labels)

    return Dataset("small", classes, split(victim), split(pirate), split(test), MEAN, (0.3,), "made here", 0)


def vgg(**keys: Any) -> VictimConfig:
    """A VGG16 of width 1/64: its largest layer is 64 x 392."""
    return VictimConfig(**({"width": 1 / 64, "layer": "classifier.0"} | keys))


def network(config: VictimConfig, classes: int = 5, seed: int = 0) -> nn.Module:
    """In eval mode, weights large enough that the logits differ from image to image."""
    torch.manual_seed(seed)
    model = build_model(config, classes)
    for layer in dense_layers(model).values():
        nn.init.normal_(layer.weight, 0, 2 / layer.in_features**0.5)
        if layer.bias is not None:
            nn.init.normal_(layer.bias, 0, 0.3)
    return model.eval()


WIDE = VictimConfig(model="small:wide", input_size=8, layer="3")


def wide() -> nn.Module:
    """Logits [n, 5] of float [n, 3, 8, 8]; its layer 3, 128 x 256, reads inputs of which none is ever silent."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 256), nn.Tanh(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 5),
    )  # fmt: skip


def tiny() -> nn.Module:
    """A network with all that a resume must restore: batch norm, dropout, dense layers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


def puzzle(
    model: nn.Module, config: VictimConfig, data: Dataset, size: int = 16, key: int = 0, **threat: Any
) -> tuple[Puzzle, Answer]:
    return make_puzzle(model, config, data, ThreatModel(**threat), size, (key,))


def narrow() -> nn.Module:
    """Logits [n, 10] of float [n, 3, 8, 8]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 24), nn.ReLU(), nn.Linear(24, 10))


def perceptron() -> nn.Module:
    """Logits [n, 10] of float [n, 3, 8, 8]; its layer 3 is 128 x 256."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
