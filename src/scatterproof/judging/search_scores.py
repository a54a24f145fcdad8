"""What the searches of `search.grids` had reached, by accuracy on test images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from scatterproof.attacks.base import Placed, Snapshot
from scatterproof.config.search import SearchRun
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.predictions import SAMPLE, test_images
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
                    "test_images": len(test) if number in (0, len(steps) - 1) else min(SAMPLE, len(test)),
                }
            )
    counts = torch.tensor([row["test_images"] for row in rows])
    accuracy = _accuracy(puzzle, test, device, memory_mb, torch.stack(placements), counts)
    return [row | {"accuracy": each} for row, each in zip(rows, accuracy.tolist(), strict=True)]


def _accuracy(
    puzzle: Puzzle, test: Split, device: torch.device, memory_mb: int, placements: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """float64 [placements]: of placements int64 [placements, blocks], each on so many images. Equal ones are scored
    once, a part of the images after the other."""
    images = test_images(test.images)
    distinct, number = torch.unique(placements, dim=0, return_inverse=True)
    most = torch.zeros(len(distinct), dtype=torch.int64).scatter_reduce(0, number, counts, "amax")
    right = torch.zeros(len(distinct), dtype=torch.float64)
    accuracy = torch.zeros(len(placements), dtype=torch.float64)
    for begin, end in images.parts(SAMPLE):
        due, labels = most > begin, images.pick(test.labels, begin, end)
        evaluator = PlacementEvaluator(puzzle, images.at(begin, end), labels, device, memory_mb=memory_mb)
        right[due] += (end - begin) * evaluator.score_population(distinct[due]).accuracy
        accuracy = torch.where(counts == end, right[number] / end, accuracy)
    return accuracy
