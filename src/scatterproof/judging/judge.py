"""What an attack's copy is worth, by the answer and images that the attack never saw."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from scatterproof.attacks import ATTACKS
from scatterproof.attacks.base import Copy, Placed, Reached, Snapshot
from scatterproof.attacks.store import SnapshotsByName
from scatterproof.config.attacks import NEEDS
from scatterproof.config.settings.base import Known, Role
from scatterproof.cutting import logits_on
from scatterproof.evaluation.evaluator import PlacementEvaluator, correction_of
from scatterproof.evaluation.targets import Scores
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset
from scatterproof.victims.models import build_model, dense_layers, load_weights

UNBELIEVED = 0.01  # of every belief so much is spread over all positions: no bits are infinite
CEILING = "whitebox"


@dataclass(frozen=True)
class Judge:
    """Scores what is reached on one puzzle, on the dataset's test images, against labels and the victim's own answers.

    The answer and the victim are the judge's alone.
    """

    puzzle: Puzzle
    answer: Answer
    victim: nn.Module
    dataset: Dataset
    device: torch.device

    @cached_property
    def evaluator(self) -> PlacementEvaluator:
        """Scores placements; its targets hold the victim's logits."""
        test = self.dataset.test
        logits = logits_on(self.victim.to(self.device).eval(), self.puzzle.config, self.dataset, test.images)
        return PlacementEvaluator(self.puzzle, test.images, test.labels, self.device, logits=logits)

    def of(self, puzzle: Puzzle, answer: Answer) -> "Judge":
        """The judge of another puzzle of the same victim: its answers, and what lies before the layer, stay.

        Raises: ValueError where the puzzle is of another network.
        """
        other = replace(self, puzzle=puzzle, answer=answer)
        other.__dict__["evaluator"] = self.evaluator.with_blocks(puzzle)
        return other

    @property
    def correction(self) -> str:
        """What stands in for missing blocks."""
        return correction_of(self.puzzle)

    @cached_property
    def own_accuracy(self) -> float:
        """The victim's."""
        targets = self.evaluator.targets
        assert targets.logits is not None and targets.labels is not None
        return float((targets.logits.argmax(1) == targets.labels).double().mean())

    @cached_property
    def known_places(self) -> Scores:
        """Of the same blocks in their places: what no placement of them is expected to beat."""
        return self.evaluator.score(self.answer.placement.positions[None], self.correction)

    def score(self, reached: Reached) -> Scores:
        """Of one step of an attack."""
        if isinstance(reached, Placed):
            return self.evaluator.score(reached.placement[None], self.correction)
        layers = {name: f"{name}.weight" for name in self.puzzle.layout.grids}
        if reached.config is None and set(reached.tensors) == set(layers.values()):
            return self.evaluator.score_weights({name: reached.tensors[key] for name, key in layers.items()})
        config = reached.config or self.puzzle.config
        model = copied(reached, self.puzzle).to(self.device)
        logits = logits_on(model, config, self.dataset, self.dataset.test.images)
        return self.evaluator.targets.score(logits.to(self.device)[None])

    def rows(self, by_name: SnapshotsByName) -> list[dict[str, Any]]:
        """One row for each step of each attack; `last` marks what counts. The last one is the ceiling: the whole
        victim, which costs the white-box pirate nothing."""
        threat = self.puzzle.threat
        rows = [
            row
            for name, steps in by_name.items()
            for row in self.scored(name, NEEDS[name].role, ATTACKS[name].used(threat), steps)
        ]
        ceiling = Placed(self.answer.placement.positions, self.answer.placement.positions[:, None], _sure(self.answer))
        whole = {"accuracy": self.own_accuracy, "fidelity": 1.0, "relative_accuracy": 1.0}
        row = self._row(CEILING, "ceiling", Snapshot(0.0, ceiling), self.known_places)
        return [*rows, row | whole | {"step": 0, "last": True, "used": None}]

    def scored(self, name: str, role: Role, used: Known | None, steps: Sequence[Snapshot]) -> list[dict[str, Any]]:
        """One row for each step of one attack; used: what of its images it makes use of."""
        return [
            self._row(name, role, snapshot, self.score(snapshot.reached))
            | {"step": step, "last": step == len(steps) - 1, "used": used}
            for step, snapshot in enumerate(steps)
        ]

    def _row(self, name: str, role: str, snapshot: Snapshot, scores: Scores) -> dict[str, Any]:
        reached = snapshot.reached
        return {
            "attack": name,
            "role": role,
            "accuracy": float(scores.accuracy),
            "known_places_accuracy": float(self.known_places.accuracy),
            "relative_accuracy": float(scores.accuracy) / self.own_accuracy,
            "fidelity": float(scores.agreement),
            **(placed(reached, self.puzzle, self.answer) if isinstance(reached, Placed) else NOT_PLACED),
            "evaluations": reached.evaluations if isinstance(reached, Placed) else 0,
            "minutes": snapshot.minutes,
        }


def copied(reached: Copy, puzzle: Puzzle) -> nn.Module:
    """The network that an attack has made, in eval mode."""
    if reached.config is not None:
        model = build_model(reached.config, puzzle.classes)
        load_weights(model, reached.tensors, "the attack's copy")
        return model.eval()
    model = puzzle.model()
    layers = dense_layers(model)
    empty = {f"{name}.weight": torch.zeros_like(layers[name].weight) for name in puzzle.layout.grids}
    load_weights(model, puzzle.state | empty | reached.tensors, "the attack's copy")
    return model


def _sure(answer: Answer) -> torch.Tensor:
    return torch.ones(len(answer.placement), 1)


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
