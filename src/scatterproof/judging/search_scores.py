"""What the searches of `search.grids` had reached, by accuracy on test images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from scatterproof.attacks.base import Placed, Snapshot
from scatterproof.config.search import SearchRun
from scatterproof.evaluation.evaluator import PlacementEvaluator


def search_rows(
    evaluator: PlacementEvaluator, runs: Sequence[SearchRun], reached: Mapping[str, Sequence[Snapshot]]
) -> list[dict[str, Any]]:
    """One row for each cost at which a run noted what it had reached, its accuracy that of `evaluator`'s images.

    reached: by the runs' names.
    """
    rows: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda run: run.images):
        snapshots = reached[run.name]
        steps = [snapshot.reached for snapshot in snapshots if isinstance(snapshot.reached, Placed)]
        distinct, number = torch.unique(torch.stack([step.placement for step in steps]), dim=0, return_inverse=True)
        accuracy = evaluator.score_population(distinct).accuracy[number].tolist()
        about = asdict(run)
        about["budget"] = about.pop("evaluations")
        about["population"] = run.population or None
        rows += [
            about
            | {
                "generation": step.generation,
                "evaluations": step.evaluations,
                "minutes": snapshot.minutes,
                "best_fitness": step.fitness,
                "accuracy": each,
            }
            for snapshot, step, each in zip(snapshots, steps, accuracy, strict=True)
        ]
    return rows
