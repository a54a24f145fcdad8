"""The controls of a study's hijacks by pirates who hold blocks; a failed one makes a verdict invalid.

All on layers drawn anew, so that the blocks' own numbers say nothing and what is found comes from the traffic alone.

planted    a labelled layout: the places of all devices have leaked, and the hijack must put more than 99 % of the whole
           blocks there.
random     traffic whose messages go to devices drawn at random: the upper 95 % bound (Wilson) of the right places,
           pooled over layers and layouts, must be below three times chance.
topology   the same traffic as seen by a pirate who holds nothing: the mean adjusted Rand index of columns and of rows
           must have an upper 95 % bound (Student's t) below a twentieth.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from scatterproof.attacks.base import Machine
from scatterproof.attacks.controlling import CHANCES, control_row, planted_row, random_row, right_places
from scatterproof.attacks.controls import Key, with_random_layers
from scatterproof.data import Dataset
from scatterproof.interrupt import stop_if_asked
from scatterproof.puzzle import Answer, Puzzle, make_puzzle, scattered_layers
from scatterproof.seeds import numpy_generator
from scatterproof.stream.cells import sizes_of
from scatterproof.stream.deployment import Deployment
from scatterproof.stream.flows import Served
from scatterproof.stream.hijack import Hijack, evidence_of
from scatterproof.stream.scoring import score_groups
from scatterproof.stream.simulate import simulate
from scatterproof.stream.tap import Seen, Traffic, tap
from scatterproof.stream_grid import HijackName, Obfuscation
from scatterproof.threat import ThreatModel
from scatterproof.verdict import interval
from scatterproof.victim_config import VictimConfig

UNRELATED = 0.05  # adjusted Rand index
REQUESTS = 3
NO_BLOCKS = np.empty(0, np.int64)


@dataclass(frozen=True)
class StreamControls:
    """The controls of the hijacks on one victim. shuffles: layers and layouts drawn; key: of the draws."""

    victim: nn.Module
    victim_config: VictimConfig
    dataset: Dataset
    block_size: int
    shuffles: int
    key: Key
    machine: Machine

    def rows(self, method: HijackName, threat: ThreatModel) -> Iterator[dict[str, Any]]:
        """The three controls of one hijack, on the share of the blocks and the images that a threat grants."""
        (layer,) = scattered_layers(self.victim, self.victim_config, threat.scatter)
        about = {"attack": f"hijack-{method}", "threat": threat.name, "keep": threat.share, "layer": layer}
        for row in (self._planted(method, threat), self._random(method, threat), self._topology(method, threat)):
            yield about | row
            stop_if_asked(f"after control {row['control']}")

    def _planted(self, method: HijackName, threat: ThreatModel) -> dict[str, Any]:
        puzzle, answer = self._cut(threat, 0)
        rng = numpy_generator("stream control", "planted", *self.key)
        own, sizes = answer.placement.positions.numpy(), sizes_of(answer)
        deployment = Deployment.dealt(sizes, rng, own=own)
        served = simulate(deployment, REQUESTS, rng)
        traffic, _ = tap(served, deployment, Obfuscation(), 1.0, rng, own, labelled=sizes.count)
        return planted_row(*self._right(method, puzzle, answer, traffic))

    def _random(self, method: HijackName, threat: ThreatModel) -> dict[str, Any]:
        right = total = 0
        for shuffle in range(self.shuffles):
            puzzle, answer = self._cut(threat, shuffle)
            traffic, _ = self._unrelated(puzzle, shuffle, answer.placement.positions.numpy())
            one, whole = self._right(method, puzzle, answer, traffic)
            right, total = right + one, total + whole
        return random_row(right, total, self.shuffles, CHANCES * self.shuffles / total)

    def _topology(self, method: HijackName, threat: ThreatModel) -> dict[str, Any]:
        puzzle, _ = self._cut(threat, 0)
        sizes, indices = sizes_of(puzzle), []
        for shuffle in range(self.shuffles):
            traffic, seen = self._unrelated(puzzle, shuffle, NO_BLOCKS)
            scores = score_groups(Hijack(method=method).groups(traffic), seen, sizes, np.arange(sizes.count))
            indices.append((scores.column_ari + scores.row_ari) / 2)
        mean, low, high = interval(np.array(indices))
        return control_row("topology", "ari", self.shuffles, mean, low, high, UNRELATED, high < UNRELATED)

    def _unrelated(self, puzzle: Puzzle, shuffle: int, own: NDArray[np.int64]) -> tuple[Traffic, Seen]:
        """Traffic of which device serves what is drawn anew for its slices, and anew for its sums."""
        rng = numpy_generator("stream control", "random", shuffle, *self.key)
        deployment = Deployment.dealt(sizes_of(puzzle), rng, own=own)
        served = misdirected(simulate(deployment, REQUESTS, rng), deployment, rng)
        return tap(served, deployment, Obfuscation(), 1.0, rng, own)

    def _right(self, method: HijackName, puzzle: Puzzle, answer: Answer, traffic: Traffic) -> tuple[int, int]:
        found = Hijack(method=method).placement(traffic, evidence_of(puzzle, self.machine))
        return right_places(found, puzzle, answer, alike=False)

    def _cut(self, threat: ThreatModel, shuffle: int) -> tuple[Puzzle, Answer]:
        key = ("stream control", *self.key, shuffle)
        (layer,) = scattered_layers(self.victim, self.victim_config, threat.scatter)
        model = with_random_layers(self.victim, {layer: None}, key)
        return make_puzzle(model, self.victim_config, self.dataset, threat, self.block_size, key)


def misdirected(served: Served, deployment: Deployment, rng: np.random.Generator) -> Served:
    """The same messages between other ends: slices to devices, and sums from devices, that are drawn at random.

    What a message was for follows its device: the block that lies there. One block on each device.
    """
    flows, at = served.flows, np.sort(deployment.device_at)
    position, device = deployment.copies()
    lies_at = position[np.argsort(deployment.device_at[device], kind="stable")]

    def moved(ends: NDArray[np.int64]) -> NDArray[np.int64]:
        found, of_device = ends.copy(), np.isin(ends, at)
        found[of_device] = rng.permutation(at)[np.searchsorted(at, ends[of_device])]
        return found

    source, destination = moved(flows.source), moved(flows.destination)
    devices = np.where(np.isin(destination, at), destination, source)[served.record]
    return replace(
        served,
        flows=replace(flows, source=source, destination=destination),
        position=lies_at[np.searchsorted(at, devices)],
    )
