"""The same flow records as the runtime's, for any number of devices and requests, obfuscated or not. No torch.

One request follows the other. A sender's messages leave one after the other; each travels for a fixed time and an
exponential one; a device multiplies as soon as a slice is in. `tests/test_stream_runtime.py` compares links, bytes and
counts with the runtime's.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scatterproof.config.stream import Obfuscation, Order
from scatterproof.stream.network.deployment import Deployment
from scatterproof.stream.network.flows import HEADER, Flows, Served
from scatterproof.stream.network.obfuscate import cover_partners, mix, padded, rank_within

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NONE = -1


@dataclass(frozen=True)
class Timing:
    """Seconds: between two messages of one sender, of travel (fixed, and the mean of what varies), of one product
    (likewise), between two requests."""

    gap: float = 5e-6
    travel: float = 2e-4
    jitter: float = 5e-5
    product: float = 5e-5
    product_jitter: float = 1e-5
    pause: float = 1e-2


class _Messages(NamedTuple):
    """Messages of one direction: request, the hub's number (column or row), device, seconds when ready to be sent, and
    the position served by each link (record, position)."""

    request: Ints
    hub: Ints
    device: Ints
    ready: Floats
    record: Ints
    position: Ints


class _Sent(NamedTuple):
    """Records of one direction's hops, and when each message arrives."""

    flows: Flows
    record: Ints
    position: Ints
    content: Ints
    arrival: Floats


def simulate(
    deployment: Deployment,
    requests: int,
    rng: np.random.Generator,
    obfuscation: Obfuscation | None = None,
    order: Order = "random",
    timing: Timing | None = None,
) -> Served:
    """Serve so many requests. With sessions the blocks are dealt anew, addresses kept, after each."""
    hiding, timing = obfuscation or Obfuscation(), timing or Timing()
    length = hiding.session or requests
    parts, start = [], 0.0
    for session, first in enumerate(range(0, requests, length)):
        here = deployment if session == 0 else _redealt(deployment, rng)
        count = min(length, requests - first)
        part = _session(here, count, first, session, start, rng, hiding, order, timing)
        start = float(part.flows.time.max()) + timing.pause
        parts.append(part)
    return Served.joined(parts)


def _redealt(deployment: Deployment, rng: np.random.Generator) -> Deployment:
    """The same devices, other blocks; what is at home stays there."""
    scattered, order = deployment.scattered, np.arange(deployment.sizes.count)
    order[scattered] = scattered[rng.permutation(len(scattered))]
    return replace(deployment, holders=deployment.holders[:, order])


def _session(
    deployment: Deployment,
    requests: int,
    first: int,
    session: int,
    start: float,
    rng: np.random.Generator,
    hiding: Obfuscation,
    order: Order,
    timing: Timing,
) -> Served:
    relays = _relay_addresses(deployment, hiding.relays)
    slices = _slices(deployment, requests, rng, hiding)
    out = _send(slices, deployment, True, requests, rng, hiding, order, timing, relays[: hiding.relays])
    products = _products(deployment, slices, out.arrival, requests, rng, hiding, timing)
    back = _send(products, deployment, False, requests, rng, hiding, "random", timing, relays[hiding.relays :])
    latency = np.zeros(requests)
    real = np.unique(products.record)
    np.maximum.at(latency, products.request[real], back.arrival[real])
    ends = np.zeros(requests)
    for each, arrival in ((slices, out.arrival), (products, back.arrival)):
        np.maximum.at(ends, each.request, arrival)
    begins = start + np.concatenate([[0.0], np.cumsum(ends + timing.pause)[:-1]])
    flows = Flows.joined([out.flows, back.flows])
    flows = Flows(
        flows.time + begins[flows.request], flows.source, flows.destination, flows.bytes, flows.request + first
    )
    return Served(
        flows,
        np.concatenate([out.record, back.record + len(out.flows)]),
        np.concatenate([out.position, back.position]),
        np.concatenate([out.content, back.content + int(out.content.max(initial=0)) + 1]) + session * 10**12,
        np.full(len(flows), session),
        latency,
    )


def _relay_addresses(deployment: Deployment, relays: int) -> Ints:
    """Addresses of the mixes, those for slices first: random, but the same in every session."""
    taken = np.concatenate([deployment.device_at, deployment.source_at, deployment.reducer_at])
    drawn = np.random.default_rng(int(taken.sum())).integers(2 * int(taken.max()), size=64 + 16 * relays)
    free = np.setdiff1d(drawn, taken)
    return np.random.default_rng(len(taken)).permutation(free)[: 2 * relays]


def _slices(deployment: Deployment, requests: int, rng: np.random.Generator, hiding: Obfuscation) -> _Messages:
    """From every column to each device that holds a block of it, and cover."""
    columns, devices = deployment.sizes.columns, len(deployment.device_at)
    position, device = deployment.copies()
    pairs, link = np.unique((position % columns) * devices + device, return_inverse=True)
    hubs, to = pairs // devices, pairs % devices
    cover = cover_partners(devices, requests, columns, hiding.cover, hiding.fixed, rng)
    return _repeated(requests, hubs, to, link, position, cover)


def _repeated(requests: int, hubs: Ints, devices: Ints, link: Ints, position: Ints, cover: Ints) -> _Messages:
    """The same real messages in every request, then the cover int64 [requests, devices, each]."""
    real, each = len(hubs), cover[0].size
    number = np.arange(requests)
    covered = np.repeat(np.arange(cover.shape[1]), cover.shape[2])
    return _Messages(
        np.concatenate([np.repeat(number, real), np.repeat(number, each)]),
        np.concatenate([np.tile(hubs, requests), cover.ravel()]),
        np.concatenate([np.tile(devices, requests), np.tile(covered, requests)]),
        np.zeros(requests * (real + each)),
        (np.repeat(number * real, len(link)) + np.tile(link, requests)),
        np.tile(position, requests),
    )


def _products(
    deployment: Deployment,
    slices: _Messages,
    arrival: Floats,
    requests: int,
    rng: np.random.Generator,
    hiding: Obfuscation,
    timing: Timing,
) -> _Messages:
    """From each block, once its slice is in, to its row; a device's cover leaves as its own product does."""
    columns, rows, devices = deployment.sizes.columns, deployment.sizes.rows, len(deployment.device_at)
    position, device = deployment.copies()
    cover = cover_partners(devices, requests, rows, hiding.cover, hiding.fixed, rng)
    messages = _repeated(requests, position // columns, device, np.arange(len(position)), position, cover)
    done = arrival[slices.record]  # by request, then copy, as the products are
    done = done + timing.product + rng.exponential(timing.product_jitter, len(done))
    if not cover.size:
        return messages._replace(ready=done)
    own = np.zeros((requests, devices))
    own[np.repeat(np.arange(requests), len(device)), np.tile(device, requests)] = done
    return messages._replace(ready=np.concatenate([done, np.repeat(own.ravel(), cover.shape[2])]))


def _send(
    messages: _Messages,
    deployment: Deployment,
    forth: bool,
    requests: int,
    rng: np.random.Generator,
    hiding: Obfuscation,
    order: Order,
    timing: Timing,
    relays: Ints,
) -> _Sent:
    """Send slices forth, or sums back: one hop, or two through a mix."""
    count = len(messages.hub)
    hub_at = (deployment.source_at if forth else deployment.reducer_at)[messages.hub]
    device_at = deployment.device_at[messages.device]
    numbers = (deployment.sizes.widths if forth else deployment.sizes.heights)[messages.hub]
    size = padded(4 * numbers + HEADER, hiding.padding)
    source, destination = (hub_at, device_at) if forth else (device_at, hub_at)
    turn = {"random": rng.random(count), "forward": np.arange(count), "reversed": -np.arange(count)}[order]
    sender = np.unique(source, return_inverse=True)[1] + (int(source.max(initial=0)) + 1) * messages.request
    by = turn if forth else messages.ready
    time = messages.ready + timing.gap * rank_within(sender, by)
    time = time + (rng.exponential(hiding.delay / 1e3, count) if hiding.delay else 0.0)
    arrival = time + timing.travel + rng.exponential(timing.jitter, count)
    content = messages.request * deployment.sizes.columns + messages.hub if forth else np.arange(count)
    if not len(relays):
        flows = Flows(time, source, destination, size, messages.request)
        return _Sent(flows, messages.record, messages.position, content, arrival)
    relay = rng.integers(len(relays), size=count)
    passed = mix(arrival, messages.request * len(relays) + relay, hiding.batch, timing.gap, rng).time
    # What enters a mix is recorded as it arrives there: the worst case is a tap beside the mix
    first = Flows(arrival, source, relays[relay], size, messages.request)
    second = Flows(passed, relays[relay], destination, size, messages.request)
    return _Sent(
        Flows.joined([first, second]),
        np.concatenate([messages.record, messages.record + count]),
        np.tile(messages.position, 2),
        np.tile(content, 2),
        passed + timing.travel + rng.exponential(timing.jitter, count),
    )
