"""The layer served by real processes: 1,568 blocks of a layer at 1/16 width on 64 devices, 200 requests.

Every output is compared with the plain layer's. The peer, in the same run: numpy's product of the whole layer with one
input, what serving it undivided costs. Latencies are those of an oversubscribed machine where processes outnumber
cores, and labelled so. Then what fineness costs: bytes and rounds of a request, by block size and number of devices
(computed, and for the cases served here measured), and the latency of each. Last, what a trusted party costs: the same
layer on as many devices, a tenth of its blocks or all of it at home, beside no defence.

    python benchmarks/serving.py [--check] [--requests 200]
"""

import argparse
import os
import sys
import time
from typing import Any

import numpy as np
from grid import show

from scatterproof.blocks import BlockGrid, Layout
from scatterproof.config.settings.defences import defence_of
from scatterproof.defences import make_defence
from scatterproof.defences.base import Layer
from scatterproof.stream.network.defended import serve_defended
from scatterproof.stream.network.deployment import Deployment, Sizes
from scatterproof.stream.network.runtime import Runtime
from scatterproof.stream.network.serving import serving_cost

OUTPUTS, INPUTS, DEVICES = 256, 1568, 64
FINENESS = (8, 16, 32, 64)
DEFENCES = ("none", {"name": "home", "share": 0.1}, {"name": "home", "share": 1.0})
TOLERANCE = 1e-5  # of the sum of the products' absolute values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--requests", type=int, default=200)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    show("cores", cores, "cores")
    missed = []
    worst, _ = serve("talk", 16, DEVICES, arguments.requests, cores)
    missed += [f"outputs are off by {worst:.2g} of their terms"] if worst > TOLERANCE else []
    for size in FINENESS:
        for devices in (16, 64):
            worst, off = serve(f"b{size}.d{devices}", size, devices, min(10, arguments.requests), cores)
            missed += [f"b{size}.d{devices}: outputs are off by {worst:.2g}"] if worst > TOLERANCE else []
            missed += [f"b{size}.d{devices}: bytes are off by {100 * off:.1f} %"] if off > 0.03 else []
    for defence in DEFENCES:
        worst = serve_under(defence, 16, DEVICES, arguments.requests, cores)
        missed += [f"{defence_of(defence).label}: outputs are off by {worst:.2g}"] if worst > TOLERANCE else []
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return int(arguments.check and bool(missed))


def serve(name: str, size: int, devices: int, requests: int, cores: int) -> tuple[float, float]:
    """Serve so many requests; the worst error as a share of the terms' absolute sum, and by how much the bytes differ
    from `serving_cost`."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((OUTPUTS, INPUTS)).astype(np.float32)
    sizes = Sizes.of(OUTPUTS, INPUTS, size, size)
    padded = np.zeros((sizes.rows * size, sizes.columns * size), np.float32)
    padded[:OUTPUTS, :INPUTS] = weight
    blocks = padded.reshape(sizes.rows, size, sizes.columns, size).swapaxes(1, 2).reshape(-1, size, size)
    devices = min(devices, sizes.count)
    deployment = Deployment.dealt(sizes, rng, sizes.count / devices)
    worst, plain = 0.0, 0.0
    with Runtime(deployment, blocks) as runtime:
        processes = len(runtime.processes)
        for one in rng.standard_normal((requests, INPUTS)).astype(np.float32):
            answer = runtime.request(one)
            started = time.perf_counter()
            whole = weight @ one
            plain += time.perf_counter() - started
            worst = max(worst, float((np.abs(answer - whole) / (np.abs(weight) @ np.abs(one))).max()))
        served = runtime.served()
    cost = serving_cost(Layout({"layer": BlockGrid(OUTPUTS, INPUTS, size, size)}), "sources", devices)
    sent = served.flows.bytes.sum() / requests
    busy = "oversubscribed" if processes > cores else "a core each"
    show(f"{name}.processes", processes, "processes")
    show(f"{name}.requests", requests, f"requests, worst error {worst:.2g} of the terms")
    show(f"{name}.latency", 1e3 * float(np.median(served.latency)), f"ms, median ({busy})")
    show(f"{name}.plain", 1e3 * plain / requests, "ms for the layer undivided, the peer")
    show(f"{name}.bytes", sent, f"bytes a request ({cost.bytes:.0f} computed)")
    show(f"{name}.rounds", cost.rounds, "rounds a request")
    return worst, abs(cost.bytes / sent - 1)


def serve_under(defence: Any, size: int, devices: int, requests: int, cores: int) -> float:
    """Serve so many requests under a defence; the worst error as a share of the terms' absolute sum."""
    rng, settings = np.random.default_rng(0), defence_of(defence)
    weight = rng.standard_normal((OUTPUTS, INPUTS)).astype(np.float32)
    held = make_defence(settings).protect(Layer("layer", weight, None, size, size), rng)
    inputs = rng.standard_normal((requests, INPUTS)).astype(np.float32)
    outputs, latency = serve_defended(held, settings, Sizes.of(OUTPUTS, INPUTS, size, size), devices, inputs)
    worst = float((np.abs(outputs - inputs @ weight.T) / (np.abs(inputs) @ np.abs(weight).T)).max())
    show(f"{settings.label}.requests", requests, f"requests, worst error {worst:.2g} of the terms")
    busy = "oversubscribed" if devices + 2 + settings.trusted > cores else "a core each"
    party = "a" if settings.trusted else "no"
    show(f"{settings.label}.latency", latency, f"ms, median with {party} trusted party ({busy})")
    return worst


if __name__ == "__main__":
    sys.exit(main())
