"""Telling sources, devices, reducers and mixes apart by who sends what to whom, and near-linear helpers for records."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scatterproof.stream.deployment import FREE
from scatterproof.stream.flows import Flows
from scatterproof.stream.tap import Traffic

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Leg:
    """Messages between devices and what they talk to, in one direction: record int64, device and partner int64
    (addresses), request int64, time float64."""

    record: Ints
    device: Ints
    partner: Ints
    request: Ints
    time: Floats

    def only(self, chosen: NDArray[np.bool_]) -> "Leg":
        """These messages."""
        ends = self.device[chosen], self.partner[chosen]
        return Leg(self.record[chosen], *ends, self.request[chosen], self.time[chosen])


@dataclass(frozen=True)
class Mixes:
    """Beyond the mixes: what sources sent into them, and what came out of them for reducers; `device` is the mix."""

    into: Leg
    out: Leg


@dataclass(frozen=True)
class _Nodes:
    """Flows with nodes numbered: address, and of each link its ends and number of messages."""

    address: Ints
    source: Ints
    destination: Ints
    count: Ints

    @classmethod
    def of(cls, flows: Flows) -> "_Nodes":
        address, number = np.unique(np.concatenate([flows.source, flows.destination]), return_inverse=True)
        links, count = np.unique(number[: len(flows)] * len(address) + number[len(flows) :], return_counts=True)
        return cls(address, links // len(address), links % len(address), count)

    def sends(self) -> Ints:
        """To how many others each node sends."""
        return np.bincount(self.source, minlength=len(self.address))

    def receives(self) -> Ints:
        """From how many others each node receives."""
        return np.bincount(self.destination, minlength=len(self.address))


def device_legs(traffic: Traffic, relays: int = 0) -> tuple[Leg, Leg, Mixes | None]:
    """Slices into devices and sums out of them, and, where mixes are expected, what lies beyond those.

    With everything seen, sources only send, reducers only receive, and devices do both; where little is seen, a link
    belongs to that of its ends which has more partners.
    """
    flows = traffic.flows
    nodes = _Nodes.of(flows)
    source, destination = (
        np.searchsorted(nodes.address, flows.source),
        np.searchsorted(nodes.address, flows.destination),
    )
    out, into = nodes.sends(), nodes.receives()
    if traffic.topology == "coordinator":
        hub = int((out + into).argmax())
        return _leg(flows, source == hub, True), _leg(flows, destination == hub, False), None
    if relays:
        return _through_mixes(flows, nodes, source, destination, relays)
    of_sum = np.where((into[source] > 0) != (out[destination] > 0), into[source] > 0, into[destination] > out[source])
    return _leg(flows, ~of_sum, True), _leg(flows, of_sum, False), None


def _through_mixes(
    flows: Flows, nodes: _Nodes, source: Ints, destination: Ints, relays: int
) -> tuple[Leg, Leg, Mixes | None]:
    """Mixes are the busiest of the nodes that both send and receive; those for slices hear from pure senders."""
    total = len(nodes.address)
    volume = np.bincount(nodes.source, nodes.count, total) + np.bincount(nodes.destination, nodes.count, total)
    both = (nodes.sends() > 0) & (nodes.receives() > 0)
    is_mix = np.zeros(total, bool)
    is_mix[np.argsort(np.where(both, -volume, 1.0), kind="stable")[: 2 * relays]] = True
    pure = nodes.receives() == 0
    from_pure = np.bincount(nodes.destination, nodes.count * pure[nodes.source], total)
    received = np.bincount(nodes.destination, nodes.count, total)
    first = is_mix & (2 * from_pure > received)
    second = is_mix & ~first
    mixes = Mixes(_leg(flows, first[destination], True), _leg(flows, second[source], False))
    return _leg(flows, first[source], True), _leg(flows, second[destination], False), mixes


def _leg(flows: Flows, chosen: NDArray[np.bool_], to_device: bool) -> Leg:
    record = np.flatnonzero(chosen)
    ends = flows.destination[record], flows.source[record]
    device, partner = ends if to_device else ends[::-1]
    return Leg(record, device, partner, flows.request[record], flows.time[record])


def pairs(one: Ints, other: Ints) -> tuple[Ints, Ints]:
    """All pairs of elements of equal value: indices into `one` and into `other`."""
    order = np.argsort(other, kind="stable")
    ordered = other[order]
    first, after = np.searchsorted(ordered, one, "left"), np.searchsorted(ordered, one, "right")
    count = after - first
    left = np.repeat(np.arange(len(one)), count)
    within = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    return left, order[np.repeat(first, count) + within]


def best_of_each(group: Ints, score: Floats) -> Ints:
    """For each group, in ascending order, the index of its element of greatest score; the first of several."""
    order = np.lexsort((-np.arange(len(group)), score, group))
    ordered = group[order]
    return order[np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])] if len(group) else np.empty(0, np.int64)


def looked_up(keys: Ints, values: Ints, wanted: Ints) -> Ints:
    """The value of each wanted key, FREE where it is missing; keys ascending."""
    if not len(keys):
        return np.full(len(wanted), FREE)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], FREE)
