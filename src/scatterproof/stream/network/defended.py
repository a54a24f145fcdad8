"""A defended layer served by real processes: what it answers, and how long a request takes. No torch."""

from typing import NamedTuple

import numpy as np

from scatterproof.config.settings.defences import DefenceSettings
from scatterproof.defences.base import Floats, Layer, Protection
from scatterproof.defences.home import blocks_at
from scatterproof.stream.network.deployment import Deployment, Sizes
from scatterproof.stream.network.runtime import Runtime
from scatterproof.stream.network.trusted import Trusted


class Answers(NamedTuple):
    """outputs float32 [n, outputs], without bias; latency_ms: median over the requests, on this machine."""

    outputs: Floats
    latency_ms: float


def serve_defended(
    held: Protection, settings: DefenceSettings, sizes: Sizes, devices: int, inputs: Floats, seed: int = 0
) -> Answers:
    """Ask a layer for each of inputs [n, inputs], one after the other; with a trusted party where the defence has one.

    held: what the defence has made of the layer, its at_home counted within the layer; devices: how many share its
    blocks evenly, at most one for each block. Raises: StreamError.
    """
    whole = Layer("", held.weight, None, int(sizes.heights[0]), int(sizes.widths[0]))
    scattered = sizes.count - len(held.at_home)
    each = float(np.nextafter(scattered / min(devices, scattered), np.inf))  # rounded up: not one device more
    deployment = Deployment.dealt(sizes, np.random.default_rng(seed), each, at_home=held.at_home)
    trusted = Trusted(settings.model_dump(), held.secret) if settings.trusted else None
    with Runtime(deployment, blocks_at(whole, np.arange(sizes.count)), seed=seed, trusted=trusted) as runtime:
        outputs = np.stack([runtime.request(one) for one in inputs])
        return Answers(outputs, 1e3 * float(np.median(runtime.served().latency)))
