"""Which messages belong to one column, and which to one row, by co-occurrence: near-linear in the records.

Devices that receive from the same source share a column; those that send to the same reducer share a row. Where links
alone don't tell, two kinds of evidence add up over requests: a product follows its slice by the time that a product
takes (`lag_scores`), and a message that left a mix is one of the batch that entered it. The latter is the statistical
disclosure attack (Danezis 2003, https://doi.org/10.1007/978-0-387-35691-4_40), its scores as likelihoods (Danezis and
Troncoso 2009, https://doi.org/10.1007/978-3-642-03168-7_5).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scatterproof.stream.hijack.roles import Leg, best_of_each, device_legs, looked_up, numbered, pairs
from scatterproof.stream.hijack.tap import Traffic
from scatterproof.stream.network.deployment import FREE
from scatterproof.stream.network.obfuscate import rank_within

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ASTRAY = 0.05  # messages counted into a batch where there is none: a tap sees when they are sent, not when they arrive
MOST = 4_000_000  # entries of a table of batches and partners
BEFORE = -30.0  # log-likelihood of a sum that is sent too early to be of a slice


@dataclass(frozen=True)
class Groups:
    """For messages between devices and others, of the last request: record int64, and the column's and row's group,
    FREE where it is unknown. Groups have arbitrary numbers."""

    record: Ints
    column: Ints
    row: Ints


def naive_groups(traffic: Traffic) -> Groups:
    """Nothing is expected to be hidden: a device belongs to those with whom it exchanges most messages."""
    inbound, outbound, _ = device_legs(traffic)
    return by_device(traffic, inbound, outbound, _most_frequent(inbound), _most_frequent(outbound))


def adaptive_groups(traffic: Traffic) -> Groups:
    """What is done to hide the layout is known, and so is when the blocks were dealt anew."""
    hiding = traffic.hiding
    inbound, outbound, mixes = device_legs(traffic, hiding.relays)
    if hiding.session and len(traffic.flows):
        session = traffic.flows.request.max() // hiding.session
        inbound, outbound = (leg.only(leg.request // hiding.session == session) for leg in (inbound, outbound))
    if traffic.topology == "coordinator":
        return _under_coordinator(traffic, inbound, outbound)
    if hiding.per_device > 1:
        return paired(traffic, inbound, outbound)
    if mixes is not None:
        columns = disclosed(mix_scores(inbound, mixes.into, hiding.batch))
        rows = disclosed(mix_scores(outbound, mixes.out, hiding.batch))
        return by_device(traffic, inbound, outbound, columns, rows)
    scores = lag_scores(traffic, inbound, outbound) if hiding.cover else None
    return by_device(traffic, inbound, outbound, _most_frequent(inbound, scores), _most_frequent(outbound))


def by_device(
    traffic: Traffic, inbound: Leg, outbound: Leg, columns: tuple[Ints, Ints], rows: tuple[Ints, Ints]
) -> Groups:
    """Groups of the last request's messages from those of devices: addresses, ascending, and their groups."""
    last = traffic.flows.request.max(initial=0)
    legs = [leg.only(leg.request == last) for leg in (inbound, outbound)]
    record, device = (np.concatenate([getattr(leg, name) for leg in legs]) for name in ("record", "device"))
    return Groups(record, looked_up(*columns, device), looked_up(*rows, device))


def _most_frequent(leg: Leg, scores: tuple[Ints, Ints, Floats] | None = None) -> tuple[Ints, Ints]:
    """Of each device the partner it meets in most requests, the one of greatest score among those, else a random one.

    scores: device, partner and score of links.
    """
    devices, device = numbered(leg.device)
    partners, partner = numbered(leg.partner)
    if not len(devices):
        return devices, devices
    shape = len(devices), len(partners)
    met = sparse.coo_matrix((np.ones(len(device)), (device, partner)), shape=shape).tocsr()
    requests = len(np.flatnonzero(np.bincount(leg.request)))
    times = np.minimum(met.data, requests)  # cover may meet a partner twice in one request
    tie = np.random.default_rng(0).random(len(times)) / 2
    owner = np.repeat(np.arange(len(devices)), np.diff(met.indptr))
    if scores is not None and len(scores[0]):
        fit = sparse.csr_matrix(
            (scores[2], (np.searchsorted(devices, scores[0]), np.searchsorted(partners, scores[1]))), shape=shape
        )
        rank = np.argsort(np.argsort(np.asarray(fit[owner, met.indices]).ravel()))
        tie = rank / (2 * len(rank))
    return devices, partners[met.indices[best_of_each(owner, times + tie)]]


def lag_scores(traffic: Traffic, inbound: Leg, outbound: Leg) -> tuple[Ints, Ints, Floats]:
    """How well each device's sums follow the slices from each source, summed over requests: device, source, score."""
    requests = int(traffic.flows.request.max(initial=0)) + 1
    left, right = pairs(inbound.device * requests + inbound.request, outbound.device * requests + outbound.request)
    score = _lag_likelihood(traffic, outbound.time[right] - inbound.time[left])
    top = int(inbound.partner.max(initial=0)) + 1
    links, link = np.unique(inbound.device[left] * top + inbound.partner[left], return_inverse=True)
    return links // top, links % top, np.bincount(link, score, len(links)).astype(np.float64)


def _lag_likelihood(traffic: Traffic, lag: Floats) -> Floats:
    """Log-likelihood that a sum sent so many seconds after a slice is the slice's."""
    timing = traffic.timing
    mean = timing.jitter + timing.product_jitter + timing.gap + traffic.hiding.delay / 1e3
    beyond = lag - timing.travel - timing.product
    likelihood: Floats = np.where(beyond >= 0, np.maximum(-beyond / mean, BEFORE), BEFORE)
    return likelihood


def paired(traffic: Traffic, inbound: Leg, outbound: Leg) -> Groups:
    """Several blocks on a device: each sum is given the source whose slices it follows best over all requests.

    The score of (device, source, reducer) is that of the likeliest sum for that reducer in each request; of a
    reducer's sums there are as many in each request as the device has blocks in its row.
    """
    last = int(traffic.flows.request.max(initial=0))
    left, right = pairs(inbound.device * (last + 1) + inbound.request, outbound.device * (last + 1) + outbound.request)
    if not len(left):
        return Groups(*(np.empty(0, np.int64) for _ in range(3)))
    score = _lag_likelihood(traffic, outbound.time[right] - inbound.time[left])
    sources, source = np.unique(inbound.partner, return_inverse=True)
    reducers, reducer = np.unique(outbound.partner, return_inverse=True)
    devices, device = np.unique(outbound.device, return_inverse=True)
    triple = (device[right] * len(reducers) + reducer[right]) * len(sources) + source[left]
    each = triple * (last + 1) + outbound.request[right]
    best = best_of_each(each, score)
    triples, at = np.unique(triple[best], return_inverse=True)
    total = np.bincount(at, score[best], len(triples))
    now = outbound.request == last
    slot = device[now] * len(reducers) + reducer[now]
    place, slots = triples // len(sources), np.bincount(slot, minlength=len(devices) * len(reducers))
    chosen = rank_within(place, -total) < slots[place]
    return _matched(inbound, outbound, now, slot, place[chosen], sources[triples[chosen] % len(sources)])


def _matched(inbound: Leg, outbound: Leg, now: NDArray[np.bool_], slot: Ints, place: Ints, source: Ints) -> Groups:
    """The last request's sums of each (device, reducer), in the order they were sent, are of its sources in the order
    of their slices; `place` (ascending) is the slot that each of the chosen sources is for."""
    last = outbound.request[now].max(initial=0)
    here = inbound.only(inbound.request == last)
    top = int(here.partner.max(initial=0)) + 1
    owner = np.full(int(slot.max(initial=0)) + 1, FREE)
    owner[slot] = outbound.device[now]
    valid = place < len(owner)
    place, source = place[valid], source[valid]
    order = np.argsort(here.device * top + here.partner)
    keys = (here.device * top + here.partner)[order]
    at = np.minimum(np.searchsorted(keys, owner[place] * top + source), max(len(keys) - 1, 0))
    when = here.time[order][at]
    width = max(int(np.bincount(slot).max(initial=1)), int(np.bincount(place).max(initial=1)), 1)
    numbered = place * width + rank_within(place, when)
    ordered = np.argsort(numbered)
    wanted = slot * width + rank_within(slot, outbound.time[now])
    column = looked_up(numbered[ordered], source[ordered], wanted)
    return Groups(outbound.record[now], column, outbound.partner[now])


def _under_coordinator(traffic: Traffic, inbound: Leg, outbound: Leg) -> Groups:
    """One node sends everything: all that is left is the order. If it sends column by column, messages in the order
    they were sent fall into as many equal parts; nothing tells rows apart."""
    sent = rank_within(inbound.request, inbound.time)
    total = np.bincount(inbound.request)[inbound.request]
    part = sent * traffic.sizes.columns // total
    if traffic.hiding.per_device > 1:
        groups = paired(traffic, Leg(inbound.record, inbound.device, part, inbound.request, inbound.time), outbound)
        return Groups(groups.record, groups.column, np.full(len(groups.record), FREE))
    devices, device = np.unique(inbound.device, return_inverse=True)
    mean = np.bincount(device, sent, len(devices)) / np.bincount(device, minlength=len(devices))
    group = np.argsort(np.argsort(mean, kind="stable")) * traffic.sizes.columns // max(len(devices), 1)
    return by_device(traffic, inbound, outbound, (devices, group), (devices, np.full(len(devices), FREE)))


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods float64 [devices, partners], and the addresses of both."""

    devices: Ints
    partners: Ints
    value: Floats


def mix_scores(leg: Leg, beyond: Leg, batch: int) -> Scores:
    """For each device and partner behind the mixes: how many messages of the partner's were in its batches.

    leg: between mixes and devices; beyond: between mixes and partners; one of them enters the mixes, the other leaves.
    """
    relays = np.unique(np.concatenate([leg.partner, beyond.device]))
    requests = max(int(leg.request.max(initial=0)), int(beyond.request.max(initial=0))) + 1
    devices, device = np.unique(leg.device, return_inverse=True)
    partners, partner = np.unique(beyond.partner, return_inverse=True)
    pools = [
        np.searchsorted(relays, mix) + len(relays) * each.request
        for mix, each in ((leg.partner, leg), (beyond.device, beyond))
    ]
    batches = [rank_within(pool, each.time) // batch for pool, each in zip(pools, (leg, beyond), strict=True)]
    most = max(int(numbers.max(initial=0)) for numbers in batches) + 1
    own, other = (pool * most + numbers for pool, numbers in zip(pools, batches, strict=True))
    scores = np.zeros((len(devices), len(partners)))
    step = max(1, MOST // max(1, len(partners) * most * len(relays)))
    for first in range(0, requests, step):  # some requests at a time: their batches x partners are a dense table
        low, high = (each * most * len(relays) for each in (first, first + step))
        mine, theirs = (own >= low) & (own < high), (other >= low) & (other < high)
        cell = (other[theirs] - low) * len(partners) + partner[theirs]
        count = np.bincount(cell, minlength=(high - low) * len(partners)).reshape(high - low, len(partners))
        np.add.at(scores, device[mine], np.log(count + ASTRAY)[own[mine] - low])
    return Scores(devices, partners, scores)


def disclosed(scores: Scores) -> tuple[Ints, Ints]:
    """Each device with its likeliest partner."""
    if not scores.value.size:
        return scores.devices, np.full(len(scores.devices), FREE)
    return scores.devices, scores.partners[scores.value.argmax(1)]
