"""Flow records: what travelled when from whom to whom, and, kept apart, what it was for. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

HEADER = 48  # bytes of a message besides its numbers: addresses, tag, request, time


@dataclass(frozen=True)
class Flows:
    """One record a message and hop: time float64 in seconds, when it was sent; source, destination int64: addresses;
    bytes int64; request int64."""

    time: NDArray[np.float64]
    source: NDArray[np.int64]
    destination: NDArray[np.int64]
    bytes: NDArray[np.int64]
    request: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time)

    def only(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Flows":
        """These records, in this order."""
        return Flows(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence["Flows"]) -> "Flows":
        """Several as one, in the order given."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Served:
    """All that a layer's service sent, and what only the service knows of it.

    record, position int64 [links]: the messages that carried a block's input or product, and which block's (a slice
    may serve several; cover serves none); content int64 [flows]: equal where the numbers carried are equal; session
    int64 [flows]: counts the layouts; latency float64 [requests] in seconds.
    """

    flows: Flows
    record: NDArray[np.int64]
    position: NDArray[np.int64]
    content: NDArray[np.int64]
    session: NDArray[np.int64]
    latency: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence["Served"]) -> "Served":
        """Several as one; records count on."""
        first = np.cumsum([0, *(len(part.flows) for part in parts)])
        return cls(
            Flows.joined([part.flows for part in parts]),
            np.concatenate([part.record + start for part, start in zip(parts, first, strict=False)]),
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("position", "content", "session", "latency")
            ),
        )
