"""A search run to its end: what it had reached at the costs that it keeps, and after every generation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from scatterproof.attacks.base import Machine, Placed, Run, Snapshot
from scatterproof.attacks.search.base import Progress, SearchAttack
from scatterproof.blocks import Placement
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Puzzle

MACHINE = Machine(torch.device("cpu"), 1)
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class SearchResult:
    """What a search had reached.

    placements int64 [snapshots, blocks]; rows: generation, evaluations, minutes and best_fitness of each; history: the
    same for every generation that was computed, which those before a kill were not.
    """

    placements: torch.Tensor
    rows: Rows
    history: Rows


def searched(
    attack: SearchAttack[Any],
    puzzle: Puzzle,
    budget: int,
    seed: int | str = 0,
    work: Path | None = None,
    start: Placement | None = None,
    scorer: PlacementEvaluator | None = None,
) -> SearchResult:
    """The search with another budget."""
    attack = with_settings(attack, evaluations=budget)
    history: Rows = []
    generation = attack._generation

    def noted(search: Progress) -> None:
        generation(search)
        history.append(row(search.generation, search.evaluations, search.seconds / 60, search.best_fitness))

    with mock.patch.object(attack, "_generation", noted):
        snapshots = attack.run(puzzle, Run(MACHINE, (seed,), work, start, scorer))
    return SearchResult(*snapshot_rows(snapshots), history)


def snapshot_rows(snapshots: Sequence[Snapshot]) -> tuple[torch.Tensor, Rows]:
    """A search's placements int64 [snapshots, blocks], and a row of each."""
    placements, rows = [], []
    for snapshot in snapshots:
        reached = snapshot.reached
        assert isinstance(reached, Placed)
        placements.append(reached.placement)
        rows.append(row(reached.generation, reached.evaluations, snapshot.minutes, reached.fitness))
    return torch.stack(placements), rows


def with_settings(attack: SearchAttack[Any], **changes: Any) -> Any:
    """The same search with some of its settings changed."""
    return type(attack)(attack.settings.model_copy(update=changes))


def row(generation: Any, evaluations: int, minutes: float, best_fitness: Any) -> dict[str, Any]:
    return {
        "generation": generation,
        "evaluations": evaluations,
        "minutes": minutes,
        "best_fitness": best_fitness,
    }


def without_times(rows: Rows) -> Rows:
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


def checkpoint_of(attack: SearchAttack[Any], puzzle: Puzzle, budget: int, work: Path, seed: int | str = 0) -> Path:
    """Where a search that runs in this folder keeps what it needs to go on."""
    run = Run(MACHINE, (seed,), work)
    return work / f"{with_settings(attack, evaluations=budget).file_name(puzzle, run)}.pt"
