"""What a defended layer is worth to those who serve it: whether the network answers as before, what that costs, and how
long a request takes by real processes."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from scatterproof.analysis.columns import COLUMNS
from scatterproof.blocks import BlockGrid
from scatterproof.config.settings.defences import DefenceSettings, NoneSettings, defence_of
from scatterproof.defences.base import Floats, Protection
from scatterproof.defences.network import ServedLayer, secret_of, served_network
from scatterproof.puzzle import Protected
from scatterproof.stream.network.defended import serve_defended
from scatterproof.stream.network.deployment import Sizes
from scatterproof.victims.models import dense_layers

TRIED = 200  # test images that a served network is tried on
ROUNDS = 5
DEVICES, REQUESTS = 16, 20  # of a layer that real processes serve
MOST = 2**26  # weights of a layer that is served so: the plan of a larger one takes gigabytes


def served_row(model: nn.Module, protected: Protected, images: torch.Tensor) -> dict[str, Any]:
    """The network served under a defence beside itself, on images float [n, 3, size, size].

    output_error: the largest difference of two logits over the largest logit; fidelity: the share of images that are
    classed alike; trusted_seconds_share: what the trusted party takes over what the layer takes undivided, both by
    numpy on this machine, unfolded; latency_ms, undefended_latency_ms: of a request to 16 devices, processes of this
    machine.
    """
    served = served_network(model, protected)
    with torch.inference_mode():
        before, after = model.cpu().eval()(images), served(images)
    settings = defence_of(protected.about["defence"])
    about = {key: value for key, value in protected.about.items() if key != "defence"}
    return about | {
        "layer": "+".join(protected.layout.grids),
        "block_size": protected.layout.block_shape[0],
        "defence": settings.name,
        "defence_params": settings.words,
        "trusted_seconds_share": _trusted_share(model, served, images),
        **_latencies(model, protected),
        "output_error": float((after - before).abs().max() / before.abs().max()),
        "fidelity": float((after.argmax(1) == before.argmax(1)).double().mean()),
    }


def defence_table(rows: Sequence[dict[str, Any]], about: dict[str, Any], device: str) -> pd.DataFrame:
    """`tables/defences.csv` for one victim and defence: a row for each block size."""
    return pd.DataFrame(rows).assign(**about, keep=1.0, device=device)[COLUMNS["defences"]]


def _trusted_share(model: nn.Module, served: nn.Module, images: torch.Tensor) -> float:
    """Seconds of the trusted party over those of the undivided layers, medians of a few rounds."""
    trusted = whole = 0.0
    for name, layer in served.named_modules():
        if not isinstance(layer, ServedLayer):
            continue
        weight = dense_layers(model)[name].weight.detach().numpy()
        inputs = np.random.default_rng(0).standard_normal((len(images), weight.shape[1]), np.float32)
        outputs = inputs @ layer.on_devices.T
        trusted += _seconds(partial(layer.defence.serve, inputs, layer.secret, partial(_known, outputs)))
        whole += _seconds(partial(np.matmul, inputs, weight.T))
    return trusted / whole


def _latencies(model: nn.Module, protected: Protected) -> dict[str, float | None]:
    """Milliseconds of a request through the scattered layers, one after the other, the median of 20: defended, and
    undefended by the same processes. None where a layer is too large to be served on one machine.

    Raises: StreamError.
    """
    grids = protected.layout.grids
    if any(grid.outputs * grid.inputs > MOST for grid in grids.values()):
        return dict.fromkeys(("latency_ms", "undefended_latency_ms"))
    defended, undefended = 0.0, 0.0
    for name, grid in grids.items():
        at_home = protected.at_home.numpy() - protected.layout.offsets[name]
        at_home = at_home[(at_home >= 0) & (at_home < grid.count)]
        weight, secret = protected.weights[name].numpy(), secret_of(protected.secret, name)
        held = Protection(weight, bias=None, reader=None, at_home=at_home, secret=secret)
        defended += _latency(held, defence_of(protected.about["defence"]), grid)
        own = dense_layers(model)[name].weight.detach().numpy()
        undefended += _latency(Protection(own, bias=None, reader=None), NoneSettings(), grid)
    return {"latency_ms": defended, "undefended_latency_ms": undefended}


def _latency(held: Protection, settings: DefenceSettings, grid: BlockGrid) -> float:
    sizes = Sizes.of(grid.outputs, grid.inputs, grid.height, grid.width)
    asked = np.random.default_rng(0).standard_normal((REQUESTS, grid.inputs), np.float32)
    return serve_defended(held, settings, sizes, DEVICES, asked).latency_ms


def _known(outputs: Floats, inputs: Floats) -> Floats:
    return outputs


def _seconds(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)
