"""Layers that are never trained: drawn from 256 bits of the system's entropy, which the owner keeps.

A weight is uniform, as PyTorch's dense layers begin, with the spread that the layer's own start has. The bits that it
is made of are a SHAKE-256 stream of the key, the layer's name and the row: who has not the key can't enumerate it, as a
seed of a generator could be. All of that is public but the key.
"""

import hashlib
import secrets
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.running.files import write_bytes
from scatterproof.victims.models import dense_layers, find_layers

KEY_FILE = "frozen.key"
KEY_BYTES = 32
OWNER_ALONE = 0o600


class FrozenKeyError(UserError):
    """A file that holds no key of a frozen layer."""


def freeze_layers(model: nn.Module, config: VictimConfig, checkpoint: Path) -> None:
    """Draw the victim's frozen layers, weights alone, and keep training from them and their biases.

    The key lies beside `checkpoint`. It is written before anything is trained, so that a killed training goes on with
    the same layers. Raises: ModelError where no layer has the name, FrozenKeyError.
    """
    if not config.frozen_layers:
        return
    names = find_layers(model, config.frozen_layers, "victim.frozen_layers")
    key = _kept_key(checkpoint.with_name(KEY_FILE))
    for name in names:
        layer = dense_layers(model)[name]
        spread = float(layer.weight.detach().double().std())
        layer.weight.data = drawn_layer(key, name, layer.weight.shape, spread).to(layer.weight)
        layer.requires_grad_(False)


def drawn_layer(key: bytes, name: str, shape: torch.Size, spread: float) -> torch.Tensor:
    """float32 [outputs, inputs], uniform around zero with this standard deviation."""
    outputs, inputs = shape
    rows = np.empty((outputs, inputs), np.float32)
    for row in range(outputs):
        stream = hashlib.shake_256(b"%b/%b/%d" % (key, name.encode(), row)).digest(4 * inputs)
        uniform = np.frombuffer(stream, "<u4").astype(np.float64) / 2.0**32
        rows[row] = spread * 12**0.5 * (uniform - 0.5)
    return torch.from_numpy(rows)


def _kept_key(path: Path) -> bytes:
    """The key of a training that was begun here, or a fresh one, on the disk before it is used."""
    if not path.exists():
        write_bytes(path, secrets.token_bytes(KEY_BYTES))
        path.chmod(OWNER_ALONE)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise FrozenKeyError(
            f"{path}: {len(key)} bytes, expected the {KEY_BYTES} of a frozen layer's key: restore it, or delete it "
            "and train the victim afresh"
        )
    return key
