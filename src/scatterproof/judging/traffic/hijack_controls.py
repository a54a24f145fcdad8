"""The controls of a study's hijacks by pirates who hold blocks; a hijack whose control failed is never chosen.

Every hijack is controlled on each service that it is run on:

planted    the victim's layer with a leak (judging/controls.py), the service's own traffic: more than 99 % of the
           whole blocks must be put in their places.
random     layers drawn anew, the service's own traffic: nothing says which group is which, so places are right by
           luck. The mean share of right ones must have an upper 95 % bound (Student's t over layers and layouts) below
           five times chance: groups come right as wholes, which spreads the share more than single blocks would.

On the plain service alone, besides, what issues from the traffic and not from the blocks:

labelled   a layer drawn anew, the places of all devices leaked: more than 99 % must be put there.
topology   a layer drawn anew, messages that go to devices drawn at random, as seen by a pirate who holds nothing: the
           adjusted Rand index of columns and rows must have an upper 95 % bound (Student's t) below a twentieth.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from scatterproof.analysis.gains import interval
from scatterproof.attacks.base import Machine
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.config.stream import Obfuscation, StreamCell, hijack_name
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle, scattered_layers
from scatterproof.judging.control_victims import Key, with_random_layers
from scatterproof.judging.controls import chance, control_row, planted, planted_row, right_places
from scatterproof.judging.traffic.hijack_scores import score_groups
from scatterproof.judging.traffic.stream_cells import sizes_of
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.interrupt import stop_if_asked
from scatterproof.running.seeds import numpy_generator
from scatterproof.stream.hijack.attack import Hijack, HijackSettings, evidence_of
from scatterproof.stream.hijack.tap import Traffic, tap
from scatterproof.stream.network.deployment import Deployment
from scatterproof.stream.network.flows import Served
from scatterproof.stream.network.simulate import simulate
from scatterproof.victims.data import Dataset

CHANCES = 5
UNRELATED = 0.05  # adjusted Rand index


@dataclass(frozen=True)
class StreamControls:
    """The controls of the hijacks on one victim.

    shuffles: layers and layouts drawn; key: of the draws; fingerprint: the one that the hijacks call.
    """

    victim: nn.Module
    victim_config: VictimConfig
    dataset: Dataset
    block_size: int
    shuffles: int
    key: Key
    machine: Machine
    fingerprint: Fingerprint

    def rows(self, cell: StreamCell, threat: ThreatModel) -> Iterator[dict[str, Any]]:
        """Each control of a cell's hijack on its service; threat: the share and images that it grants."""
        (layer,) = scattered_layers(self.victim, self.victim_config, threat.scatter)
        about = {"attack": hijack_name(cell), "threat": cell.threat_name(threat), "keep": threat.share, "layer": layer}
        controls = [self._planted, self._random]
        for control in controls if cell.service else [*controls, self._labelled, self._topology]:
            yield about | control(cell, threat)

    def _planted(self, cell: StreamCell, threat: ThreatModel) -> dict[str, Any]:
        model = planted(self.victim, self._cut(self.victim, threat, 0)[0], self.key)
        puzzle, answer = self._cut(model, threat, 0)
        return planted_row(*self._right(cell, puzzle, answer, 0))

    def _random(self, cell: StreamCell, threat: ThreatModel) -> dict[str, Any]:
        shares: list[float] = []
        for shuffle in range(self.shuffles):
            puzzle, answer = self._cut(self._drawn_anew(threat, shuffle), threat, shuffle)
            right, total = self._right(cell, puzzle, answer, shuffle, alike=False)
            shares.append(right / total)
            stop_if_asked(f"after shuffle {shuffle + 1}")
        mean, low, high = interval(np.array(shares))
        bound = CHANCES * chance(puzzle)
        return control_row("random", "position_accuracy", self.shuffles, mean, low, high, bound, high < bound)

    def _labelled(self, cell: StreamCell, threat: ThreatModel) -> dict[str, Any]:
        puzzle, answer = self._cut(self._drawn_anew(threat, 0), threat, 0)
        leaked = replace(cell, observed=1.0, labelled=sizes_of(answer).count)
        row = planted_row(*self._right(leaked, puzzle, answer, 0))
        return row | {"control": "labelled"}

    def _topology(self, cell: StreamCell, threat: ThreatModel) -> dict[str, Any]:
        sizes, indices = sizes_of(self._cut(self.victim, threat, 0)[0]), []
        for shuffle in range(self.shuffles):
            rng = numpy_generator("stream control", "topology", shuffle, *self.key)
            deployment = Deployment.dealt(sizes, rng)
            served = misdirected(simulate(deployment, cell.requests, rng), deployment, rng)
            traffic, seen = tap(served, deployment, Obfuscation(), 1.0, rng)
            scores = score_groups(self._hijack(cell).groups(traffic), seen, sizes, np.arange(sizes.count))
            indices.append((scores.column_ari + scores.row_ari) / 2)
            stop_if_asked(f"after shuffle {shuffle + 1}")
        mean, low, high = interval(np.array(indices))
        return control_row("topology", "ari", self.shuffles, mean, low, high, UNRELATED, high < UNRELATED)

    def _right(
        self, cell: StreamCell, puzzle: Puzzle, answer: Answer, shuffle: int, alike: bool = True
    ) -> tuple[int, int]:
        traffic = self._traffic(cell, answer, shuffle)
        reached = self._hijack(cell).placement(traffic, evidence_of(puzzle, self.machine))
        return right_places(reached, puzzle, answer, alike)

    def _hijack(self, cell: StreamCell) -> Hijack:
        return Hijack(HijackSettings(method=cell.hijack), [self.fingerprint])

    def _traffic(self, cell: StreamCell, answer: Answer, shuffle: int) -> Traffic:
        rng = numpy_generator("stream control", draws_of(cell), shuffle, *self.key)
        hiding, sizes, own = cell.obfuscation, sizes_of(answer), answer.placement.positions.numpy()
        deployment = Deployment.dealt(sizes, rng, hiding.per_device, cell.topology, own=own)
        served = simulate(deployment, cell.requests, rng, hiding, cell.order)
        return tap(served, deployment, hiding, cell.observed, rng, own, cell.labelled)[0]

    def _drawn_anew(self, threat: ThreatModel, shuffle: int) -> nn.Module:
        (layer,) = scattered_layers(self.victim, self.victim_config, threat.scatter)
        return with_random_layers(self.victim, {layer: None}, ("stream control", *self.key, shuffle))

    def _cut(self, model: nn.Module, threat: ThreatModel, shuffle: int) -> tuple[Puzzle, Answer]:
        key = ("stream control", *self.key, shuffle)
        return make_puzzle(model, self.victim_config, self.dataset, threat, self.block_size, key)


def draws_of(cell: StreamCell) -> str:
    """What names a service's draws: cover by its older name, so that they stay what they were under it."""
    return cell.service.replace("cover=", "decoys=")


def misdirected(served: Served, deployment: Deployment, rng: np.random.Generator) -> Served:
    """The same messages between other ends: slices to devices, and sums from devices, that are drawn at random.

    What a message was for follows its device: the block that lies there. One block on each device.
    """
    flows, at = served.flows, np.sort(deployment.device_at)
    position, device = deployment.copies()
    lies_at = position[np.argsort(deployment.device_at[device], kind="stable")]

    def moved(ends: NDArray[np.int64]) -> NDArray[np.int64]:
        permuted, of_device = ends.copy(), np.isin(ends, at)
        permuted[of_device] = rng.permutation(at)[np.searchsorted(at, ends[of_device])]
        return permuted

    source, destination = moved(flows.source), moved(flows.destination)
    devices = np.where(np.isin(destination, at), destination, source)[served.record]
    return replace(
        served,
        flows=replace(flows, source=source, destination=destination),
        position=lies_at[np.searchsorted(at, devices)],
    )
