"""What a defended layer is worth to those who serve it: whether the network answers as before, and what that costs."""

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
from scatterproof.config.settings.defences import defence_of
from scatterproof.defences.base import Floats
from scatterproof.defences.network import ServedLayer, served_network
from scatterproof.puzzle import Protected
from scatterproof.victims.models import dense_layers

TRIED = 200  # test images that a served network is tried on
ROUNDS = 5


def served_row(model: nn.Module, protected: Protected, images: torch.Tensor) -> dict[str, Any]:
    """The network served under a defence beside itself, on images float [n, 3, size, size].

    output_error: the largest difference of two logits over the largest logit; fidelity: the share of images that are
    classed alike; trusted_seconds_share: what the trusted party takes over what the layer takes undivided, both by
    numpy on this machine, unfolded.
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


def _known(outputs: Floats, inputs: Floats) -> Floats:
    return outputs


def _seconds(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)
