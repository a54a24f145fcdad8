"""What it costs to serve a layer in blocks: bytes and rounds of one request. No torch."""

from math import lgamma
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scatterproof.stream.network.deployment import Sizes, Topology
from scatterproof.stream.network.flows import HEADER

if TYPE_CHECKING:
    from scatterproof.blocks import Layout

ROUNDS = 2  # slices out, sums in


class ServingCost(NamedTuple):
    """Of one request: bytes on all links, rounds of messages that wait for each other, messages, and bytes of the
    busiest of the sources and reducers (of the coordinator: all)."""

    bytes: float
    rounds: int
    messages: float
    busiest: float


def serving_cost(layout: "Layout", topology: Topology = "sources", devices: int | None = None) -> ServingCost:
    """Expected over random deals of the blocks to so many devices, evenly; None: a device for each block.

    A slice is sent once to each device that holds a block of its column, however many. Layers are served after each
    other, each by all devices. Raises: ValueError for fewer devices than one.
    """
    if devices is not None and devices < 1:
        raise ValueError(f"{devices} devices, expected at least 1")
    costs = [
        _of_layer(Sizes.of(grid.outputs, grid.inputs, grid.height, grid.width), topology, devices)
        for grid in layout.grids.values()
    ]
    return ServingCost(
        sum(cost.bytes for cost in costs),
        sum(cost.rounds for cost in costs),
        sum(cost.messages for cost in costs),
        max(cost.busiest for cost in costs),
    )


def _of_layer(sizes: Sizes, topology: Topology, devices: int | None) -> ServingCost:
    count = min(devices or sizes.count, sizes.count)
    receivers = count * (1 - _none_of(sizes.rows, sizes.count, sizes.count / count))
    slices, sums = receivers * (4 * sizes.widths + HEADER), sizes.columns * (4 * sizes.heights + HEADER)
    total = float(slices.sum() + sums.sum())
    busiest = total if topology == "coordinator" else float(max(slices.max(), sums.max()))
    return ServingCost(total, ROUNDS, float(receivers * sizes.columns + sizes.count), busiest)


def _none_of(special: int, total: int, drawn: float) -> float:
    """The chance that `drawn` of `total` blocks hold none of `special` ones (hypergeometric)."""
    if total - special - drawn < 0:
        return 0.0
    logs = lgamma(total - special + 1) - lgamma(total - special - drawn + 1)
    return float(np.exp(logs - lgamma(total + 1) + lgamma(total - drawn + 1)))
