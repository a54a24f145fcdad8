"""What the pirate sees of the traffic, and, kept apart for scoring alone, what that was. No torch.

The pirate taps a share of the links, for metadata alone; its own devices' links it sees besides, and of those it knows
which of its blocks a message was for and which numbers are equal. Requests follow each other with pauses, so that a
tap can tell them apart. Cover that reaches its own devices is known to it as such.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scatterproof.config.stream import Obfuscation, TopologyName
from scatterproof.stream.network.deployment import Deployment, Sizes
from scatterproof.stream.network.flows import Flows, Served
from scatterproof.stream.network.simulate import Timing

Ints = NDArray[np.int64]
NOTHING = -1


def _empty(*shape: int) -> Ints:
    return np.empty(shape, np.int64)


@dataclass(frozen=True)
class Traffic:
    """What the pirate sees, and what is public.

    flows: of the links seen; record, block int64 [links]: messages to and from own devices, and which of its blocks
    they served; content int64 [flows]: equal where the numbers are, NOTHING where they are not read; own int64 [n]: own
    devices' addresses; labelled int64 [n, 3]: address, row and column of devices whose places have leaked; sizes,
    topology: public; hiding, timing: what the service does, known to a pirate that adapts.
    """

    flows: Flows
    record: Ints
    block: Ints
    content: Ints
    own: Ints
    sizes: Sizes
    topology: TopologyName
    hiding: Obfuscation
    timing: Timing = field(default_factory=Timing)
    labelled: Ints = field(default_factory=lambda: _empty(0, 3))

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """All arrays by name, for one .npz of many."""
        own = {name: getattr(self, name) for name in ("record", "block", "content", "own", "labelled")}
        cut = {"heights": self.sizes.heights, "widths": self.sizes.widths}
        sent = {one.name: getattr(self.flows, one.name) for one in fields(Flows)}
        return {f"{prefix}{name}": value for name, value in (sent | own | cut).items()}

    @classmethod
    def of_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], prefix: str, topology: TopologyName, hiding: Obfuscation
    ) -> "Traffic":
        """The inverse of `arrays`."""
        flows = Flows(*(arrays[f"{prefix}{one.name}"] for one in fields(Flows)))
        own: dict[str, Any] = {
            name: arrays[f"{prefix}{name}"] for name in ("record", "block", "content", "own", "labelled")
        }
        sizes = Sizes(arrays[f"{prefix}heights"], arrays[f"{prefix}widths"])
        return cls(flows, sizes=sizes, topology=topology, hiding=hiding, **own)


@dataclass(frozen=True)
class Seen:
    """The truth about a tap's records, for scoring alone: record, position int64 [links], of the last request's."""

    record: Ints
    position: Ints


def tap(
    served: Served,
    deployment: Deployment,
    hiding: Obfuscation,
    observed: float,
    rng: np.random.Generator,
    own: Ints | None = None,
    labelled: int = 0,
) -> tuple[Traffic, Seen]:
    """Tap this share of the links, and the links of those devices that hold the positions `own` int64 [blocks].

    The pirate's blocks are numbered as `own` lists their positions. labelled: so many devices' places have leaked.
    """
    flows = served.flows
    own = _empty(0) if own is None else own
    top = int(max(flows.source.max(initial=0), flows.destination.max(initial=0))) + 1
    links, link = np.unique(flows.source * top + flows.destination, return_inverse=True)
    tapped = np.zeros(len(links), bool)
    tapped[rng.permutation(len(links))[: round(observed * len(links))]] = True
    number = np.full(deployment.sizes.count, NOTHING)
    number[own] = np.arange(len(own))
    position, device = deployment.copies()
    mine = np.unique(deployment.device_at[device[number[position] >= 0]])
    at_mine = np.isin(flows.source, mine) | np.isin(flows.destination, mine)
    seen = np.flatnonzero(tapped[link] | at_mine)
    seen = seen[rng.permutation(len(seen))]
    seen = seen[np.argsort(flows.time[seen], kind="stable")]  # the order of a log says no more than its times
    at = np.full(len(flows), NOTHING)
    at[seen] = np.arange(len(seen))
    leaf = np.isin(flows.source, deployment.device_at) | np.isin(flows.destination, deployment.device_at)
    known = at_mine[served.record] & leaf[served.record] & (number[served.position] >= 0)
    content = np.where(at_mine & leaf, np.unique(served.content, return_inverse=True)[1], NOTHING)
    content = np.where(content >= 0, rng.permutation(int(content.max(initial=0)) + 1)[content], NOTHING)
    record, block = at[served.record[known]], number[served.position[known]]
    pairs = np.lexsort((block, record))  # the service lists them by position, which is the answer
    traffic = Traffic(
        flows.only(seen),
        record[pairs],
        block[pairs],
        content[seen],
        mine,
        deployment.sizes,
        "coordinator" if deployment.coordinator else "sources",
        hiding,
        labelled=_leaked(deployment, labelled, rng),
    )
    last = flows.request == flows.request.max(initial=0)
    scored = (at[served.record] >= 0) & last[served.record]
    return traffic, Seen(at[served.record[scored]], served.position[scored])


def _leaked(deployment: Deployment, count: int, rng: np.random.Generator) -> Ints:
    """Address, row and column of so many scattered positions' devices."""
    positions = deployment.scattered[rng.permutation(len(deployment.scattered))[:count]]
    columns = deployment.sizes.columns
    at = deployment.device_at[deployment.holders[0, positions]]
    return np.stack([at, positions // columns, positions % columns], axis=1)
