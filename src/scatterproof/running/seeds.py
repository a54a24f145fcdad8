"""Independent random generators, each named by what it draws."""

import hashlib

import numpy as np
import torch


def seed_of(*key: int | float | str) -> int:
    """A 63-bit seed from a key: equal keys give equal draws, on any machine and in any order of work."""
    text = "\x1f".join(f"{part:.12g}" if isinstance(part, float) else str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(*key: int | float | str) -> torch.Generator:
    """A CPU generator for this key."""
    return torch.Generator().manual_seed(seed_of(*key))


def numpy_generator(*key: int | float | str) -> np.random.Generator:
    """numpy's for this key."""
    return np.random.default_rng(seed_of(*key))
