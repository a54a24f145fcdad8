"""P1 and S1: accuracy where the pirate holds part of the blocks, in their places or displaced."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from scatterproof.blocks import Layout, Placement
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.head import LIMIT
from scatterproof.judging.grid_cells import Cell
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.seeds import torch_generator
from scatterproof.victims.data import Split

Key = tuple[int | str, ...]
Rows = list[dict[str, Any]]


def evaluate_slice(
    cells: Sequence[Cell],
    files: Mapping[int, tuple[Path, Path]],
    test: Split,
    device: torch.device,
    chunk: int,
    key: Key,
    score: Callable[[PlacementEvaluator, Answer, Sequence[Cell], Key], Rows],
) -> Rows:
    """The rows of one slice of a grid, with the layer and what was scattered.

    files: puzzle and answer for each block size; `score` is P1's or S1's function below.
    """
    rows: Rows = []
    evaluator = None
    for size, group in groupby(cells, key=lambda cell: cell.block_size):
        puzzle, answer = Puzzle.load(files[size][0]), Answer.load(files[size][1])
        if evaluator is None:
            evaluator = PlacementEvaluator(puzzle, test.images, test.labels, device, chunk, limit=LIMIT)
        evaluator = evaluator.with_blocks(puzzle)
        about = {"layer": "+".join(puzzle.layout.grids), "scatter": puzzle.threat.scatter}
        rows += [about | row for row in score(evaluator, answer, list(group), (*key, size))]
    return rows


def prune(
    evaluator: PlacementEvaluator, answer: Answer, cells: Sequence[Cell], corrections: Sequence[str], key: Key
) -> Rows:
    """P1: one row per cell and correction, blocks held at their true places."""
    placements = torch.stack([draw_placement(answer, cell, key).positions for cell in cells])
    rows = []
    for correction, scores in evaluator.score_corrections(placements, corrections).items():
        rows += [
            {
                "block_size": cell.block_size,
                "keep": cell.keep,
                "correction": correction,
                "repeat": cell.repeat,
                "accuracy": accuracy,
                "loss": loss,
            }
            for cell, accuracy, loss in zip(cells, scores.accuracy.tolist(), scores.loss.tolist(), strict=True)
        ]
    return rows


def shuffle(evaluator: PlacementEvaluator, answer: Answer, cells: Sequence[Cell], key: Key) -> Rows:
    """S1: one row per cell, a share of the blocks held displaced."""
    placements = torch.stack([draw_placement(answer, cell, key).positions for cell in cells])
    scores = evaluator.score(placements)
    return [
        {
            "block_size": cell.block_size,
            "keep": cell.keep,
            "moved": cell.moved,
            "repeat": cell.repeat,
            "accuracy": accuracy,
            "loss": loss,
        }
        for cell, accuracy, loss in zip(cells, scores.accuracy.tolist(), scores.loss.tolist(), strict=True)
    ]


def draw_placement(answer: Answer, cell: Cell, key: Key) -> Placement:
    """A random part of the blocks, of which a random part lies at random places.

    The draw depends on the key and the repeat, and is nested: a larger share keeps what a smaller one kept, so that a
    curve over shares compares like with like.
    """
    count = len(answer.placement)
    order = torch.randperm(count, generator=torch_generator("held", cell.repeat, *key))
    held = order[: round(cell.keep * count)]
    mask = torch.zeros(count, dtype=torch.bool)
    mask[held] = True
    placement = answer.placement.only(mask)
    displaced = held[: round(cell.moved * len(held))]
    return displace(placement, displaced, answer.layout, torch_generator("displaced", cell.repeat, cell.moved, *key))


def displace(placement: Placement, blocks: torch.Tensor, layout: Layout, generator: torch.Generator) -> Placement:
    """Put these blocks at uniformly random free positions of their own shape, their present ones included."""
    classes = layout.shape_classes()
    positions = placement.positions.clone()
    shape_of = classes[positions[blocks]]
    positions[blocks] = -1
    free = torch.ones(placement.slots, dtype=torch.bool)
    free[positions[positions >= 0]] = False
    for shape in shape_of.unique():
        group = blocks[shape_of == shape]
        places = (free & (classes == shape)).nonzero().flatten()
        chosen = torch.randperm(len(places), generator=generator)[: len(group)]
        positions[group] = places[chosen]
    return Placement(positions, placement.slots)
