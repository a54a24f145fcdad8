"""What the searches of `search.grids` had reached, by accuracy on test images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from scatterproof.attacks.base import Placed, Snapshot
from scatterproof.config.search import SearchRun
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.head import Images
from scatterproof.evaluation.predictions import in_fixed_order
from scatterproof.puzzle import Puzzle
from scatterproof.victims.data import Split


def search_rows(
    puzzle: Puzzle,
    test: Split,
    device: torch.device,
    memory_mb: int,
    runs: Sequence[SearchRun],
    reached: Mapping[str, Sequence[Snapshot]],
) -> list[dict[str, Any]]:
    """One row for each cost at which a run noted what it had reached.

    The first and the last of each run, whose difference is what it gained, are scored on all test images, the others on
    those that earlier steps of attacks are. reached: by the runs' names; memory_mb: what scoring may hold.
    """
    images = in_fixed_order(test.images)
    rows: list[dict[str, Any]] = []
    placements: list[torch.Tensor] = []
    for run in sorted(runs, key=lambda run: run.images):
        steps = [(each, each.reached) for each in reached[run.name] if isinstance(each.reached, Placed)]
        about = asdict(run)
        about["budget"] = about.pop("evaluations")
        about["population"] = run.population or None
        for number, (snapshot, step) in enumerate(steps):
            placements.append(step.placement)
            rows.append(
                about
                | {
                    "generation": step.generation,
                    "evaluations": step.evaluations,
                    "minutes": snapshot.minutes,
                    "best_fitness": step.fitness,
                    "test_images": len(images) if number in (0, len(steps) - 1) else images.first,
                }
            )
    counts = torch.tensor([row["test_images"] for row in rows])

    def evaluator(begin: int, end: int) -> PlacementEvaluator:
        pixels, labels = images.at(begin, end), images.pick(test.labels, begin, end)
        return PlacementEvaluator(puzzle, pixels, labels, device, memory_mb=memory_mb)

    accuracy = _accuracy(images, evaluator, torch.stack(placements), counts)
    return [row | {"accuracy": each} for row, each in zip(rows, accuracy.tolist(), strict=True)]


def _accuracy(
    images: Images,
    evaluator: Callable[[int, int], PlacementEvaluator],
    placements: torch.Tensor,
    counts: torch.Tensor,
) -> torch.Tensor:
    """float64 [placements]: of placements int64 [placements, blocks] on the first so many images each; equal ones are
    scored once. evaluator: on the images from one on and before another."""
    distinct, number = torch.unique(placements, dim=0, return_inverse=True)
    most = torch.zeros(len(distinct), dtype=torch.int64).scatter_reduce(0, number, counts, "amax")
    right, accuracy = torch.zeros(len(distinct), dtype=torch.float64), torch.zeros(len(placements), dtype=torch.float64)
    for begin, end in images.parts(images.first):
        due = most > begin
        if due.any():
            right[due] += (end - begin) * evaluator(begin, end).score_population(distinct[due]).accuracy
        accuracy = torch.where(counts == end, right[number] / end, accuracy)
    return accuracy
