"""What an attack's copy is worth, by the answer and images that the attack never saw."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from scatterproof.attacks import ATTACKS
from scatterproof.attacks.base import Copy, Placed, Reached, Snapshot
from scatterproof.attacks.store import SnapshotsByName
from scatterproof.attacks.training.probing import probe_config
from scatterproof.config.attacks import NEEDS
from scatterproof.config.settings.base import Known, Role
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import logits_on
from scatterproof.evaluation.evaluator import correction_of
from scatterproof.evaluation.head import BATCH, LIMIT, Features, Head
from scatterproof.evaluation.predictions import Candidate, Predictions, in_fixed_order, key_of, key_of_all
from scatterproof.evaluation.scattered_layers import ScatteredLayers
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset
from scatterproof.victims.models import build_model, load_weights
from scatterproof.victims.tasks import agreement, spread

UNBELIEVED = 0.01  # of every belief so much is spread over all positions: no bits are infinite
CEILING = "whitebox"


class Worth(NamedTuple):
    """Of a network on so many test images: its accuracy, or the task's score, its agreement with the victim, and the
    victim's accuracy."""

    accuracy: float
    agreement: float
    own_accuracy: float
    images: int


class Step(NamedTuple):
    """A step of an attack, to be scored. used: what of its images the attack makes use of; last: whether it counts."""

    attack: str
    role: str
    used: Known | None
    number: int
    last: bool
    snapshot: Snapshot
    candidate: Candidate


@dataclass(frozen=True)
class Judge:
    """Scores what is reached on one puzzle, on the dataset's test images, against labels and the victim's own answers.

    What an attack ends with is scored on all of them, its other steps on the first 2,000 in an order drawn once. The
    answer and the victim are the judge's alone.
    """

    puzzle: Puzzle
    answer: Answer
    victim: nn.Module
    dataset: Dataset
    device: torch.device

    @cached_property
    def predictions(self) -> Predictions:
        """Of every network that this judge, and those made of it, have scored."""
        return Predictions(in_fixed_order(self.dataset.test.images), self.dataset.task)

    @cached_property
    def _spread(self) -> torch.Tensor | None:
        return spread(self.dataset.test.labels)

    @cached_property
    def layers(self) -> ScatteredLayers:
        """Those of the puzzle, behind what the network makes of the test images before them."""
        return ScatteredLayers(Head(self.puzzle, self.predictions.images, self.device, LIMIT), self.puzzle)

    def of(self, puzzle: Puzzle, answer: Answer, victim: nn.Module | None = None) -> "Judge":
        """The judge of another puzzle that scatters the same layers, of this victim or another: predictions stay, and
        so does what lies before the layers where it is the same.

        Raises: ValueError where the puzzle scatters other layers.
        """
        puzzle = _sharing(puzzle, self.puzzle)
        other = replace(self, puzzle=puzzle, answer=answer, victim=self.victim if victim is None else victim)
        other.__dict__.update(predictions=self.predictions, layers=self.layers.of(puzzle))
        return other

    @cached_property
    def known_places(self) -> Worth:
        """Of the same blocks in their places: what no placement of them is expected to beat."""
        return self._worth(self._in_place)

    def score(self, reached: Reached) -> Worth:
        """Of what an attack ends with, on all test images."""
        return self._worth(self.candidate(reached))

    def rows(self, by_name: SnapshotsByName) -> list[dict[str, Any]]:
        """One row for each step of each attack; `last` marks what counts. The last one is the ceiling: the whole
        victim, which costs the white-box pirate nothing."""
        return rows_together([(self, by_name)])[0]

    def scored(self, name: str, role: Role, used: Known | None, steps: Sequence[Snapshot]) -> list[dict[str, Any]]:
        """One row for each step of one attack; used: what of its images it makes use of."""
        return [self.row(step) for step in self._steps(name, role, used, steps)]

    def steps(self, by_name: SnapshotsByName) -> list[Step]:
        """Of all these attacks, and the ceiling."""
        threat, positions = self.puzzle.threat, self.answer.placement.positions
        steps = (
            self._steps(name, NEEDS[name].role, ATTACKS[name].used(threat), snapshots)
            for name, snapshots in by_name.items()
        )
        sure = Snapshot(0.0, Placed(positions, positions[:, None], torch.ones(len(positions), 1)))
        return [*chain.from_iterable(steps), Step(CEILING, "ceiling", None, 0, True, sure, self._own)]

    def _steps(self, name: str, role: Role, used: Known | None, snapshots: Sequence[Snapshot]) -> Iterator[Step]:
        for number, snapshot in enumerate(snapshots):
            last = number == len(snapshots) - 1
            yield Step(name, role, used, number, last, snapshot, self.candidate(snapshot.reached))

    def wanted(self, candidates: Iterable[tuple[Candidate, bool]]) -> Iterator[tuple[Candidate, int]]:
        """These, each with whether it counts, and what they are compared with: on how many test images each."""
        for candidate, last in chain([(self._own, True), (self._in_place, True)], candidates):
            yield candidate, self._count(last)

    @cached_property
    def _in_place(self) -> Candidate:
        return self.layers.placed(self.answer.placement.positions, correction_of(self.puzzle))

    @cached_property
    def _own(self) -> Candidate:
        return self._network(self.victim.state_dict(), lambda: self.victim)

    def candidate(self, reached: Reached) -> Candidate:
        """The network that was reached, of which no more is run than differs from the puzzle's."""
        if isinstance(reached, Placed):
            return self.layers.placed(reached.placement, correction_of(self.puzzle))
        if reached.config is None:
            state = self.puzzle.state | _zeros(self.puzzle) | reached.tensors
            return self._network(state, lambda: copied(reached, self.puzzle))
        probe = reached.tensors.get("probe.weight")
        known = self.layers.head.equals(reached.tensors, "head.")
        if probe is not None and known and reached.config == probe_config(self.puzzle, probe.shape[1]):
            return self.layers.probed(probe, reached.tensors["probe.bias"])
        return self._whole(reached.tensors, reached.config, lambda: copied(reached, self.puzzle))

    def _network(self, state: Mapping[str, torch.Tensor], build: Callable[[], nn.Module]) -> Candidate:
        """One of the puzzle's architecture: from the scattered layers on alone where it is the same before them."""
        if state.keys() == (self.puzzle.state | _zeros(self.puzzle)).keys() and self.layers.head.equals(state):
            return self.layers.weighted({name: state[f"{name}.weight"] for name in self.puzzle.layout.grids}, state)
        return self._whole(state, self.puzzle.config, build)

    def _whole(
        self, state: Mapping[str, torch.Tensor], config: VictimConfig, build: Callable[[], nn.Module]
    ) -> Candidate:
        """Any network, on the images themselves."""

        def logits(part: Features) -> Iterator[torch.Tensor]:
            model = build().to(self.device).eval()
            for images in part[0].split(BATCH):
                yield logits_on(model, config, self.dataset, images)

        return Candidate(key_of(config.model_dump_json(), key_of_all(state)), None, logits)

    def _count(self, last: bool = True) -> int:
        return len(self.predictions.images) if last else self.predictions.images.first

    def _worth(self, candidate: Candidate, last: bool = True) -> Worth:
        count = self._count(last)
        own, said = (self.predictions.of(each, count) for each in (self._own, candidate))
        labels = self.predictions.images.pick(self.dataset.test.labels, 0, count)
        pairs = ((said, labels), (said, own), (own, labels))
        accuracy, agrees, own_accuracy = (float(agreement(*pair, self._spread).mean()) for pair in pairs)
        return Worth(accuracy, agrees, own_accuracy, count)

    def row(self, step: Step) -> dict[str, Any]:
        """Of `tables/attacks.csv`, but for what all rows of a puzzle have in common."""
        reached, worth = step.snapshot.reached, self._worth(step.candidate, step.last)
        return {
            "attack": step.attack,
            "role": step.role,
            "used": step.used,
            "step": step.number,
            "last": step.last,
            "test_images": worth.images,
            "accuracy": worth.accuracy,
            "known_places_accuracy": self.known_places.accuracy,
            "relative_accuracy": worth.accuracy / worth.own_accuracy if worth.own_accuracy else None,
            "fidelity": worth.agreement,
            **(placed(reached, self.puzzle, self.answer) if isinstance(reached, Placed) else NOT_PLACED),
            "evaluations": reached.evaluations if isinstance(reached, Placed) else 0,
            "minutes": step.snapshot.minutes,
        }


def rows_together(judged: Sequence[tuple[Judge, SnapshotsByName]]) -> list[list[dict[str, Any]]]:
    """The `rows` of judges made one of another, each of what was reached on its puzzle: in one pass over the images."""
    steps = [(judge, judge.steps(by_name)) for judge, by_name in judged]
    wanted = (judge.wanted((step.candidate, step.last) for step in mine) for judge, mine in steps)
    if judged:
        judged[0][0].predictions.add(chain.from_iterable(wanted))
    return [[judge.row(step) for step in mine] for judge, mine in steps]


def score_together(ends: Sequence[tuple[Judge, Reached]]) -> None:
    """Have ready what the judges' `score` says of what attacks end with, in one pass over the images."""
    if ends:
        candidates = ((judge, [(judge.candidate(reached), True)]) for judge, reached in ends)
        ends[0][0].predictions.add(chain.from_iterable(judge.wanted(each) for judge, each in candidates))


def _sharing(puzzle: Puzzle, other: Puzzle) -> Puzzle:
    """A puzzle with the tensors of another where they are equal: those of one victim differ in few."""
    state = {name: _one_of(value, other.state.get(name)) for name, value in puzzle.state.items()}
    return replace(puzzle, blocks=_one_of(puzzle.blocks, other.blocks), state=state)


def _one_of(value: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
    return value if other is None or not value.equal(other) else other


def copied(reached: Copy, puzzle: Puzzle) -> nn.Module:
    """The network that an attack has made, in eval mode."""
    if reached.config is not None:
        model = build_model(reached.config, puzzle.classes)
        load_weights(model, reached.tensors, "the attack's copy")
        return model.eval()
    model = puzzle.model()
    load_weights(model, puzzle.state | _zeros(puzzle) | reached.tensors, "the attack's copy")
    return model


def _zeros(puzzle: Puzzle) -> dict[str, torch.Tensor]:
    """The scattered weights, as they are without the blocks."""
    return {f"{name}.weight": torch.zeros(grid.outputs, grid.inputs) for name, grid in puzzle.layout.grids.items()}


NOT_PLACED = dict.fromkeys(("position_accuracy", "row_accuracy", "column_accuracy", "residual_bits"), None)


def placed(reached: Placed, puzzle: Puzzle, answer: Answer) -> dict[str, float]:
    """Shares of blocks at the right position, row and column, and the bits that the truth is still away.

    Over whole blocks alone: an edge's shape betrays its place. residual_bits: minus the sum of log2 of the attack's own
    belief in each block's true position, a hundredth of every belief spread evenly over all positions.
    """
    whole = puzzle.layout.ambiguous()
    truth = answer.placement.positions
    counted = whole[truth]
    rows, columns = puzzle.layout.rows_and_columns()
    at, right = reached.placement[counted], truth[counted]
    hit = reached.candidates == truth[:, None]
    others = max(1, int(whole.sum()) - reached.candidates.shape[1])
    rest = (1 - reached.beliefs.sum(1)).clamp(min=0) / others
    believed = torch.where(hit.any(1), (reached.beliefs * hit).sum(1), rest)[counted].double()
    believed = (1 - UNBELIEVED) * believed + UNBELIEVED / int(whole.sum())
    return {
        "position_accuracy": float((at == right).double().mean()),
        "row_accuracy": float((rows[at] == rows[right]).double().mean()),
        "column_accuracy": float((columns[at] == columns[right]).double().mean()),
        "residual_bits": float(-believed.log2().sum()),
    }
