"""What the searches of a job had reached, in one safetensors file, and its scores."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scatterproof.attacks.search.base import AttackResult
from scatterproof.config.search import SearchRun
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.running.files import atomic

Found = Sequence[tuple[SearchRun, AttackResult]]


def save_results(path: Path, found: Found) -> None:
    """Write atomically: placements by run as int32, everything else as one JSON text in the header."""
    tensors = {f"{i}": result.placements.to(torch.int32).contiguous() for i, (_, result) in enumerate(found)}
    about = [{"run": asdict(run), "rows": result.rows, "history": result.history} for run, result in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"scatterproof": json.dumps(about)})


def load_results(path: Path) -> list[tuple[SearchRun, AttackResult]]:
    """Read what `save_results` wrote."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["scatterproof"])
        return [
            (SearchRun(**each["run"]), AttackResult(file.get_tensor(f"{i}").long(), each["rows"], each["history"]))
            for i, each in enumerate(about)
        ]


def score_results(evaluator: PlacementEvaluator, found: Found) -> list[dict[str, Any]]:
    """One row for each cost at which a run kept what it had reached, its accuracy that of `evaluator`'s images."""
    rows: list[dict[str, Any]] = []
    for run, result in found:
        distinct, number = torch.unique(result.placements, dim=0, return_inverse=True)
        accuracy = evaluator.score_population(distinct).accuracy[number].tolist()
        about = asdict(run)
        about["budget"] = about.pop("evaluations")
        about["population"] = run.population or None
        rows += [about | row | {"accuracy": each} for row, each in zip(result.rows, accuracy, strict=True)]
    return rows
