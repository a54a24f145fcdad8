"""Which node serves what: the devices that hold blocks, the sources of slices, the reducers of sums. No torch.

A dense layer cut into rows x columns of blocks is served so: column j's source sends its slice of the input to every
device that holds a block of column j; the device multiplies, and sends each block's product to its row's reducer, which
adds one for every column. A coordinator is the second topology: one node in place of all sources and reducers. Blocks
that a trusted party keeps are on no device: no slice is sent for them and no product awaited. Nodes are known on the
wire by addresses, random numbers that say nothing of a place. Positions as in blocks.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scatterproof.errors import UserError

Ints = NDArray[np.int64]
Topology = Literal["sources", "coordinator"]
FREE = -1
NOWHERE: Ints = np.empty(0, np.int64)


class DeploymentError(UserError, ValueError):
    """A layout of blocks over devices that can't be served, in one line that names the block, row or device."""


@dataclass(frozen=True)
class Sizes:
    """The cut of one layer: heights int64 [rows] of its block rows, widths int64 [columns] of its block columns."""

    heights: Ints
    widths: Ints

    @classmethod
    def of(cls, outputs: int, inputs: int, height: int, width: int) -> "Sizes":
        """Of a layer cut into blocks of height x width, those at the edges smaller."""
        return cls(_cut(outputs, height), _cut(inputs, width))

    @property
    def rows(self) -> int:
        return len(self.heights)

    @property
    def columns(self) -> int:
        return len(self.widths)

    @property
    def count(self) -> int:
        return self.rows * self.columns

    def joined(self, sums: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The layer's output float32 [outputs] from the sum of each row; zeros for rows without one."""
        return np.concatenate([sums.get(row, np.zeros(height, np.float32)) for row, height in enumerate(self.heights)])


def _cut(length: int, size: int) -> Ints:
    lengths = np.full(-(-length // size), size, dtype=np.int64)
    lengths[-1] = length - size * (len(lengths) - 1)
    return lengths


@dataclass(frozen=True)
class Deployment:
    """Who holds, sends and adds what.

    holders int64 [replicas, positions]: the device of each copy of each block, FREE where a block has fewer copies;
    device_at int64 [devices], source_at int64 [columns], reducer_at int64 [rows]: addresses; under a coordinator all
    sources and reducers have one address; at_home int64: positions of blocks that no device holds. Raises:
    DeploymentError.
    """

    sizes: Sizes
    holders: Ints
    device_at: Ints
    source_at: Ints
    reducer_at: Ints
    at_home: Ints = field(default_factory=lambda: NOWHERE)

    def __post_init__(self) -> None:
        outside = self.at_home[(self.at_home < 0) | (self.at_home >= self.sizes.count)]
        if len(outside):
            raise DeploymentError(f"position {outside[0]} is at home, expected one of 0 to {self.sizes.count - 1}")
        both = np.intersect1d(self.scattered, self.at_home)
        if len(both):
            raise DeploymentError(f"{self.named(both[0])} is at home and on a device{_more(both)}")
        lonely = np.setdiff1d(np.arange(self.sizes.count), np.concatenate([self.scattered, self.at_home]))
        if len(lonely):
            raise DeploymentError(f"{self.named(lonely[0])} is on no device{_more(lonely)}")
        beyond = np.flatnonzero((self.holders >= len(self.device_at)).any(0))
        if len(beyond):
            number = self.holders[:, beyond[0]].max()
            raise DeploymentError(
                f"{self.named(beyond[0])} is on device {number}, expected one of 0 to {len(self.device_at) - 1}"
            )
        ordered = np.sort(self.holders, axis=0)
        twice = np.flatnonzero(((ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0)).any(0))
        if len(twice):
            raise DeploymentError(f"{self.named(twice[0])} is twice on one device{_more(twice)}")
        addresses = np.concatenate([self.device_at, np.unique(self.source_at), np.unique(self.reducer_at)])
        single = len(set(self.source_at) | set(self.reducer_at)) == 1
        if not single and len(np.unique(addresses)) != len(addresses):
            raise DeploymentError("two nodes have one address")

    @classmethod
    def dealt(
        cls,
        sizes: Sizes,
        rng: np.random.Generator,
        per_device: float = 1,
        topology: Topology = "sources",
        replicas: int = 1,
        own: Ints | None = None,
        at_home: Ints = NOWHERE,
    ) -> "Deployment":
        """Blocks dealt at random to as few devices as hold `per_device` each, evenly; each further copy to another.

        own: positions to be dealt among themselves, so that no device holds some of them and some of the others;
        at_home: positions dealt to nobody. Raises: DeploymentError where there are fewer devices than copies.
        """
        positions = np.arange(sizes.count)
        own = NOWHERE if own is None else own
        groups = [group[~np.isin(group, at_home)] for group in (own, np.setdiff1d(positions, own))]
        hands = [rng.permutation(group) for group in groups if len(group)]
        counts = [int(-(-len(hand) // per_device)) for hand in hands]
        first = [0, *np.cumsum(counts)]
        devices = int(first[-1])
        if devices < replicas:
            raise DeploymentError(f"{replicas} copies of each block on {devices} devices, expected at least as many")
        holders = np.full((replicas, sizes.count), FREE, np.int64)
        for start, count, hand in zip(first, counts, hands, strict=False):
            holders[0, hand] = start + np.arange(len(hand)) * count // len(hand)
        dealt = holders[0] >= 0
        for copy in range(1, replicas):  # a shift by whole devices never gives a device the same block twice
            holders[copy, dealt] = (holders[0, dealt] + copy * max(1, devices // replicas)) % devices
        hubs = 1 if topology == "coordinator" else sizes.columns + sizes.rows
        addresses = draw_addresses(devices + hubs, rng)
        hub = addresses[devices:]
        sources = np.repeat(hub, sizes.columns) if hubs == 1 else hub[: sizes.columns]
        reducers = np.repeat(hub, sizes.rows) if hubs == 1 else hub[sizes.columns :]
        return cls(sizes, holders, addresses[:devices], sources, reducers, at_home)

    @classmethod
    def listed(
        cls,
        sizes: Sizes,
        devices: Sequence[str],
        blocks: Mapping[str, Sequence[tuple[int, int]]],
        reducers: Mapping[str, Sequence[int]],
        rng: np.random.Generator,
    ) -> "Deployment":
        """From lists by name: the (row, column) of each device's blocks, the rows of each reducer.

        Raises: DeploymentError that names the unknown device, the block on no device, the row of no or two reducers.
        """
        number = {name: index for index, name in enumerate(devices)}
        copies: dict[int, list[int]] = {}
        for name, places in blocks.items():
            if name not in number:
                raise DeploymentError(f"device '{name}' is unknown, expected one of {', '.join(devices)}")
            for row, column in places:
                if not (0 <= row < sizes.rows and 0 <= column < sizes.columns):
                    expected = f"rows below {sizes.rows} and columns below {sizes.columns}"
                    raise DeploymentError(f"device '{name}' holds block ({row}, {column}), expected {expected}")
                copies.setdefault(row * sizes.columns + column, []).append(number[name])
        holders = np.full((max(map(len, copies.values()), default=1), sizes.count), FREE, np.int64)
        for position, on in copies.items():
            holders[: len(on), position] = on
        reducer_of = _reducers(sizes, reducers)
        names = list(reducers)
        addresses = draw_addresses(len(devices) + sizes.columns + len(names), rng)
        hubs = addresses[len(devices) + sizes.columns :]
        return cls(
            sizes,
            holders,
            addresses[: len(devices)],
            addresses[len(devices) : len(devices) + sizes.columns],
            np.array([hubs[names.index(name)] for name in reducer_of]),
        )

    @property
    def coordinator(self) -> bool:
        """Whether one node stands for all sources and reducers."""
        return len(set(self.source_at) | set(self.reducer_at)) == 1

    @property
    def scattered(self) -> Ints:
        """Positions of the blocks that some device holds: int64, in order."""
        return np.flatnonzero((self.holders >= 0).any(0))

    @property
    def scattered_rows(self) -> int:
        """How many rows have a block on some device."""
        return len(np.unique(self.scattered // self.sizes.columns))

    def named(self, position: Any) -> str:
        """A block by its row and column, for messages."""
        return f"block ({position // self.sizes.columns}, {position % self.sizes.columns})"

    def copies(self) -> tuple[Ints, Ints]:
        """Every copy that is held: position and device, two int64 [copies]."""
        held = self.holders >= 0
        return np.broadcast_to(np.arange(self.sizes.count), held.shape)[held], self.holders[held]


def _reducers(sizes: Sizes, reducers: Mapping[str, Sequence[int]]) -> list[str]:
    """The reducer's name of each row."""
    reducer_of: dict[int, str] = {}
    for name, rows in reducers.items():
        for row in rows:
            if row in reducer_of:
                raise DeploymentError(f"row {row} has two reducers, '{reducer_of[row]}' and '{name}', expected one")
            if not 0 <= row < sizes.rows:
                raise DeploymentError(f"reducer '{name}' adds row {row}, expected one of 0 to {sizes.rows - 1}")
            reducer_of[row] = name
    without = [row for row in range(sizes.rows) if row not in reducer_of]
    if without:
        raise DeploymentError(f"row {without[0]} has no reducer{_more(without)}")
    return [reducer_of[row] for row in range(sizes.rows)]


def draw_addresses(count: int, rng: np.random.Generator) -> Ints:
    """Distinct addresses in random order."""
    return rng.choice(max(2**20, 8 * count), count, replace=False).astype(np.int64)


def _more(faulty: Sequence[Any] | Ints) -> str:
    return f" (and {len(faulty) - 1} more)" if len(faulty) > 1 else ""
