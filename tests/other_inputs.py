"""Small victims of features and of token ids, data that they learn, and a file of each."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from scatterproof.config.victim import TrainConfig, VictimConfig
from scatterproof.victims.data import Dataset, Split
from scatterproof.victims.training import train_victim

CLASSES, LENGTH, VOCABULARY, FEATURES, WIDTH = 4, 12, 40, 20, 32
SIZES = {"train": 600, "test": 120}
RECIPE = TrainConfig(optimizer="adamw", lr=0.005, epochs=8, batch_size=50, schedule="constant", precision="fp32")
MODELS = {
    "tokens": VictimConfig(model="other_inputs:reader", layer="up", train=RECIPE),
    "features": VictimConfig(model="other_inputs:perceptron", layer="2", train=RECIPE),
}


class Reader(nn.Module):
    """Logits [n, classes] of ids [n, T]: places, one head of attention, a feed-forward part, residuals."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.act, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH)
        self.classes = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places(torch.arange(LENGTH, device=ids.device))
        seen = self.before(x)
        weights = (self.query(seen) @ self.key(seen).transpose(1, 2) / WIDTH**0.5).softmax(-1)
        x = x + weights @ self.value(seen)
        x = x + self.down(self.act(self.up(self.between(x))))
        logits: torch.Tensor = self.classes(x.mean(1))
        return logits


class Branching(Reader):
    """The same with a branch on its data, which torch.fx can't trace."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids if ids.shape[1] == LENGTH and int(ids.max()) >= 0 else ids * 0)


def reader(vocabulary: int = VOCABULARY) -> nn.Module:
    return Reader(vocabulary)


def branching(vocabulary: int = VOCABULARY) -> nn.Module:
    return Branching(vocabulary)


def perceptron(features: int = FEATURES) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
    )  # fmt: skip


def arrays(kind: str) -> dict[str, Any]:
    """Four arrays: each class has ids that it prefers, or a centre of its own."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(CLASSES, FEATURES))
    made: dict[str, Any] = {}
    for part, count in SIZES.items():
        labels = np.arange(count) % CLASSES
        preferred = labels[:, None] + CLASSES * rng.integers(0, VOCABULARY // CLASSES, (count, LENGTH))
        ids = np.where(rng.random((count, LENGTH)) < 0.5, preferred, rng.integers(0, VOCABULARY, (count, LENGTH)))
        features = (centres[labels] + 0.7 * rng.normal(size=(count, FEATURES))).astype(np.float32)
        made |= {f"x_{part}": ids if kind == "tokens" else features, f"y_{part}": labels}
    return made


def write(path: Path, kind: str, **changed: Any) -> Path:
    """The arrays, some of them changed, as an .npz or .safetensors by the path's ending."""
    made = {name: value for name, value in (arrays(kind) | changed).items() if value is not None}
    if path.suffix == ".npz":
        np.savez(path, **made)
    else:
        save_file({name: np.ascontiguousarray(value) for name, value in made.items()}, path)
    return path


@cache
def dataset(kind: str) -> Dataset:
    """The arrays as a dataset, 150 of the training inputs the pirate's."""
    made = {name: torch.from_numpy(value) for name, value in arrays(kind).items()}
    first, rest = (Split(made["x_train"][part], made["y_train"][part]) for part in (slice(150), slice(150, None)))
    return Dataset(
        kind, CLASSES, rest, first, Split(made["x_test"], made["y_test"]), (), (), f"{kind}.npz (sha256 0)", 0
    )


def victim(kind: str, folder: Path) -> nn.Module:
    """Trained as a study trains it; a copy, so that no test can change another's."""
    return deepcopy(_victim(kind, folder))


@cache
def _victim(kind: str, folder: Path) -> nn.Module:
    return train_victim(MODELS[kind], 0, dataset(kind), torch.device("cpu"), 1, folder / f"{kind}.pt").model
