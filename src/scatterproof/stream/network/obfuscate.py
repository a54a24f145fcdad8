"""Hiding the layout: cover traffic, mixes that batch, padding; and what hiding costs. No torch.

A mix collects messages until it has a batch, then passes them on in random order (Chaum 1981,
https://doi.org/10.1145/358549.358563; a threshold mix in the terms of Serjantov et al. 2002,
https://doi.org/10.1007/3-540-36415-3_3). Costs are given as in website-fingerprinting work (Juarez et al. 2016,
https://arxiv.org/abs/1512.00524): bytes and seconds beyond the plain service's, as shares of it.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scatterproof.stream.network.deployment import Deployment
from scatterproof.stream.network.flows import HEADER, Served

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FLUSH = 1e-3  # seconds after its last message at which a mix lets an incomplete batch go


class Overhead(NamedTuple):
    """Bytes and seconds beyond the plain service's, as shares of its own."""

    bandwidth: float
    latency: float


def padded(sizes: Ints, multiple: int) -> Ints:
    """Each size raised to a multiple; 0: as it is."""
    return sizes if multiple == 0 else -(-sizes // multiple) * multiple


def cover_partners(devices: int, requests: int, choices: int, each: int, fixed: bool, rng: np.random.Generator) -> Ints:
    """Partners of each device's cover int64 [requests, devices, each], drawn alike from all `choices`."""
    shape = (devices, each) if fixed else (requests, devices, each)
    return np.broadcast_to(rng.integers(choices, size=shape), (requests, devices, each))


class Mixed(NamedTuple):
    """When a mix passes each message on, and in which of its batches."""

    time: Floats
    batch: Ints


def mix(arrival: Floats, pool: Ints, size: int, gap: float, rng: np.random.Generator) -> Mixed:
    """Messages that arrive at mixes, a `pool` for each mix and request, in batches of `size`; `gap`: between two sent.

    The last batch of a pool, if incomplete, waits FLUSH for more. A batch leaves when the one before it has left.
    """
    batch = rank_within(pool, arrival) // size
    key = pool * (int(batch.max(initial=0)) + 1) + batch
    names, group = np.unique(key, return_inverse=True)
    ready = np.full(len(names), -np.inf)
    np.maximum.at(ready, group, arrival)
    ready += np.where(np.bincount(group, minlength=len(names)) < size, FLUSH, 0.0)
    order = np.lexsort((rng.random(len(key)), key))
    turn = gap * rank_within(pool[order], np.arange(len(key), dtype=np.float64))
    apart = (1 + float(arrival.max(initial=0)) + gap * len(key)) * pool[order]  # one mix doesn't wait for another
    time = np.empty(len(key))
    time[order] = np.maximum.accumulate(ready[group[order]] - turn + apart) + turn - apart
    return Mixed(time, batch)


def rank_within(group: Ints, by: NDArray[Any]) -> Ints:
    """Each element's rank among those of its group, by these values: int64 [n]."""
    order = np.lexsort((by, group))
    ordered = group[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(group) else np.empty(0, np.int64)
    lengths = np.diff(np.r_[starts, len(group)])
    ranks = np.empty(len(group), np.int64)
    ranks[order] = np.arange(len(group)) - np.repeat(starts, lengths)
    return ranks


def redealing_bytes(deployment: Deployment) -> int:
    """Bytes of weight that a fresh layout sends once: every copy of every block."""
    sizes = deployment.sizes
    area = (sizes.heights[:, None] * sizes.widths[None, :]).ravel()
    return int((4 * area[deployment.copies()[0]] + HEADER).sum())


def overhead(served: Served, plain: Served, weights: int = 0) -> Overhead:
    """What a service costs beyond the plain one of the same blocks; weights: bytes sent to deal them anew, in all."""
    requests, plainly = len(served.latency), len(plain.latency)
    sent = (int(served.flows.bytes.sum()) + weights) / requests
    base = int(plain.flows.bytes.sum()) / plainly
    return Overhead(sent / base - 1, float(served.latency.mean() / plain.latency.mean()) - 1)
