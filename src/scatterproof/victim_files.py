"""What is recorded of a victim: its metrics and its curve."""

from dataclasses import asdict, fields
from typing import Any

import pandas as pd
import torch

from scatterproof.data import Dataset
from scatterproof.evaluate import PlacementEvaluator
from scatterproof.puzzle import ThreatModel, make_puzzle
from scatterproof.study import VictimConfig
from scatterproof.victim import Epoch, Trained


def victim_metrics(
    victim: Trained,
    config: VictimConfig,
    dataset: Dataset,
    scatter: str,
    block_size: int,
    images_per_chunk: int,
    device: torch.device,
) -> dict[str, Any]:
    """The victim's row of tables/victim.csv but for its name and cost.

    Accuracy and loss are scored as every placement is, every block in its place: what P1 measures at keep = 1 is
    then the same number to the last bit.
    """
    threat = ThreatModel.model_validate({"scatter": scatter})
    puzzle, answer = make_puzzle(victim.model, config, dataset, threat, block_size, ("metrics",))
    evaluator = PlacementEvaluator(puzzle, dataset.test.images, dataset.test.labels, device, images_per_chunk)
    scores = evaluator.score(answer.placement.positions[None])
    return {
        "layer": "+".join(puzzle.layout.grids),
        "block_size": block_size,
        "model": config.model,
        "width": config.width,
        "input_size": config.input_size,
        "copies": evaluator.copies,
        "parameters": sum(parameter.numel() for parameter in victim.model.parameters()),
        "classes": dataset.classes,
        "chance": dataset.chance,
        "accuracy": float(scores.accuracy),
        "loss": float(scores.loss),
        "epochs": len(victim.curve),
    }


def curve_table(curve: list[Epoch]) -> pd.DataFrame:
    """Accuracy against minutes of training, one row an epoch; empty where nothing was trained."""
    return pd.DataFrame([asdict(point) for point in curve], columns=[field.name for field in fields(Epoch)])
