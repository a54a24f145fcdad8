"""Telling sources, devices, reducers and mixes apart by who sends what to whom, what each of them reads of requests'
activations, and near-linear helpers for records."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scatterproof.config.threat import Activations
from scatterproof.stream.hijack.tap import Traffic
from scatterproof.stream.network.deployment import FREE, Deployment
from scatterproof.stream.network.flows import Flows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ADDRESSES = 2**26  # up to which a table of them is kept


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


class _Nodes:
    """Flows with nodes numbered: address, the numbers of each message's ends, and a table of who sends to whom how
    often. A table of addresses and a sparse one of links: linear in the flows."""

    def __init__(self, flows: Flows) -> None:
        self.address, number = numbered(np.concatenate([flows.source, flows.destination]))
        self.source, self.destination = number[: len(flows)], number[len(flows) :]
        shape = len(self.address), len(self.address)
        ends = self.source, self.destination
        self.links = sparse.coo_matrix((np.ones(len(flows), np.int64), ends), shape=shape).tocsr()

    def sends(self) -> Ints:
        """To how many others each node sends."""
        return np.diff(self.links.indptr)

    def receives(self) -> Ints:
        """From how many others each node receives."""
        return np.bincount(self.links.indices, minlength=len(self.address))


def numbered(values: Ints) -> tuple[Ints, Ints]:
    """The distinct values, ascending, and each value's number among them."""
    if not len(values) or values.max() >= ADDRESSES:
        return np.unique(values, return_inverse=True)
    present = np.zeros(int(values.max()) + 1, np.int64)
    present[values] = 1
    return np.flatnonzero(present), (np.cumsum(present) - 1)[values]


def device_legs(traffic: Traffic, relays: int = 0) -> tuple[Leg, Leg, Mixes | None]:
    """Slices into devices and sums out of them, and, where mixes are expected, what lies beyond those.

    With everything seen, sources only send, reducers only receive, and devices do both; where little is seen, a link
    belongs to that of its ends which has more partners.
    """
    flows = traffic.flows
    nodes = _Nodes(flows)
    source, destination = nodes.source, nodes.destination
    out, into = nodes.sends(), nodes.receives()
    if traffic.topology == "coordinator":
        hub = int((out + into).argmax())
        return _leg(flows, source == hub, True), _leg(flows, destination == hub, False), None
    if relays:
        return _through_mixes(flows, nodes, relays)
    of_sum = np.where((into[source] > 0) != (out[destination] > 0), into[source] > 0, into[destination] > out[source])
    return _leg(flows, ~of_sum, True), _leg(flows, of_sum, False), None


def _through_mixes(flows: Flows, nodes: _Nodes, relays: int) -> tuple[Leg, Leg, Mixes | None]:
    """Mixes are the busiest of the nodes that both send and receive; those for slices hear from pure senders."""
    received = np.asarray(nodes.links.sum(0)).ravel()
    volume = received + np.asarray(nodes.links.sum(1)).ravel()
    both = (nodes.sends() > 0) & (nodes.receives() > 0)
    is_mix = np.zeros(len(volume), bool)
    is_mix[np.argsort(np.where(both, -volume, 1), kind="stable")[: 2 * relays]] = True
    from_pure = nodes.links.T @ (nodes.receives() == 0)
    first = is_mix & (2 * from_pure > received)
    second = is_mix & ~first
    source, destination = nodes.source, nodes.destination
    mixes = Mixes(_leg(flows, first[destination], True), _leg(flows, second[source], False))
    return _leg(flows, first[source], True), _leg(flows, second[destination], False), mixes


def _leg(flows: Flows, chosen: NDArray[np.bool_], to_device: bool) -> Leg:
    record = np.flatnonzero(chosen)
    ends = flows.destination[record], flows.source[record]
    device, partner = ends if to_device else ends[::-1]
    return Leg(record, device, partner, flows.request[record], flows.time[record])


def activations_read(
    owned: Ints, deployment: Deployment, following: Deployment | None = None, trusted: bool = False
) -> Activations:
    """What a threat grants of requests' activations to the owner of these addresses, int64 [n].

    A column's slice of the inputs is read by its source, and by every device that holds a block of the column; a row's
    sum by its reducer, and after the function between, in slices, by sources and devices of the layer that reads it,
    whose deployment is `following`. trusted: a party adds to the sums or changes their basis, so that those of a
    reducer are not what follows. A part of the slices, or of the rows, is not what a threat grants: `none`, or of the
    inputs all and of what follows a part, `inputs`.
    """
    if not _columns_read(owned, deployment).all():
        return "none"
    sums = not trusted and bool(np.isin(deployment.reducer_at, owned).all())
    after = following is not None and bool(_columns_read(owned, following).all())
    return "both" if sums or after else "inputs"


def _columns_read(owned: Ints, deployment: Deployment) -> NDArray[np.bool_]:
    """Whose slices are read by these addresses, [columns]."""
    read = np.isin(deployment.source_at, owned)
    position, device = deployment.copies()
    read[position[np.isin(deployment.device_at[device], owned)] % deployment.sizes.columns] = True
    return read


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
