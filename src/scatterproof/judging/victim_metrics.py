"""What is recorded of a victim but for its training."""

from collections.abc import Sequence
from typing import Any

import torch

from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.head import LIMIT
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset
from scatterproof.victims.inputs import input_kind


def grids_of(answers: Sequence[Answer]) -> dict[int, dict[str, list[int]]]:
    """Rows and columns of each layer's grid, by the side of its blocks."""
    return {
        answer.layout.block_shape[0]: {name: [grid.rows, grid.columns] for name, grid in answer.layout.grids.items()}
        for answer in answers
    }


def victim_metrics(
    puzzle: Puzzle, answer: Answer, dataset: Dataset, device: torch.device, chunk: int
) -> dict[str, Any]:
    """What is recorded of a victim but for its training.

    Accuracy and loss are scored as every placement is, every block in its place: what P1 measures at keep = 1 is then
    the same number to the last bit.
    """
    test = dataset.test
    evaluator = PlacementEvaluator(puzzle, test.images, test.labels, device, chunk, limit=LIMIT)
    scores = evaluator.score(answer.placement.positions[None])
    return {
        "layer": "+".join(puzzle.layout.grids),
        "block_size": puzzle.layout.block_shape[0],
        "frozen": puzzle.config.frozen_among(puzzle.layout.grids),
        "model": puzzle.config.model,
        "width": puzzle.config.width,
        "input_size": puzzle.config.input_size if input_kind(puzzle.images) == "images" else None,
        "copies": evaluator.copies,
        "parameters": sum(parameter.numel() for parameter in puzzle.model().parameters()),
        "classes": dataset.classes,
        "chance": dataset.chance,
        "accuracy": float(scores.accuracy),
        "loss": float(scores.loss),
    }
