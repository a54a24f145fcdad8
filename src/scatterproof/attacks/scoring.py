"""What an attack's copy is worth, by the answer and images that the attack never saw; and its file in between."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scatterproof.attacks.direct import Reached, Snapshot
from scatterproof.blocks import UNPLACED
from scatterproof.evaluate import PlacementEvaluator
from scatterproof.files import atomic
from scatterproof.puzzle import Answer, Puzzle

UNBELIEVED = 0.01  # of every belief so much is spread over all positions: no bits are infinite

Found = Mapping[str, Sequence[Snapshot]]


def save_found(path: Path, found: Found) -> None:
    """Write atomically what each attack, by name, had reached when."""
    tensors: dict[str, torch.Tensor] = {}
    minutes = {name: [snapshot.minutes for snapshot in snapshots] for name, snapshots in found.items()}
    for name, snapshots in found.items():
        for step, snapshot in enumerate(snapshots):
            reached = snapshot.reached
            tensors[f"{name}.{step}.placement"] = reached.placement.to(torch.int32).contiguous()
            tensors[f"{name}.{step}.candidates"] = reached.candidates.to(torch.int32).contiguous()
            tensors[f"{name}.{step}.beliefs"] = reached.beliefs.contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"scatterproof": json.dumps(minutes)})


def load_found(path: Path) -> dict[str, list[Snapshot]]:
    """Read what `save_found` wrote."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["scatterproof"])

        def reached(name: str, step: int) -> Reached:
            placement, candidates, beliefs = (
                file.get_tensor(f"{name}.{step}.{part}") for part in ("placement", "candidates", "beliefs")
            )
            return Reached(placement.long(), candidates.long(), beliefs)

        return {
            name: [Snapshot(minutes, reached(name, step)) for step, minutes in enumerate(steps)]
            for name, steps in about.items()
        }


def score_found(evaluator: PlacementEvaluator, puzzle: Puzzle, answer: Answer, found: Found) -> list[dict[str, Any]]:
    """One row for each step of each attack; `last` marks what counts. `evaluator`: on test images, with the victim's
    logits. Where blocks are missing, the sums of each row are divided by the share held, which the pirate knows.

    withheld_accuracy is that of the same pirate without the blocks: with nothing known of its images it can train
    nothing, and the layer stays zero.
    """
    held = len(puzzle.blocks)
    correction = "scale" if held < puzzle.layout.positions else "none"
    withheld = evaluator.score(torch.full((1, held), UNPLACED))
    victim = evaluator.targets.logits
    assert victim is not None and evaluator.targets.labels is not None
    own = float((victim.argmax(1) == evaluator.targets.labels).double().mean())
    known_places = evaluator.score(answer.placement.positions[None], correction)
    rows = []
    for name, snapshots in found.items():
        for step, snapshot in enumerate(snapshots):
            reached = snapshot.reached
            scores = evaluator.score(reached.placement[None], correction)
            rows.append(
                {
                    "attack": name,
                    "step": step,
                    "last": step == len(snapshots) - 1,
                    "accuracy": float(scores.accuracy),
                    "withheld_accuracy": float(withheld.accuracy) if puzzle.threat.knows == "none" else None,
                    "known_places_accuracy": float(known_places.accuracy),
                    "relative_accuracy": float(scores.accuracy) / own,
                    "fidelity": float(scores.agreement),
                    **placed(reached, puzzle, answer),
                    "minutes": snapshot.minutes,
                }
            )
    return rows


def placed(reached: Reached, puzzle: Puzzle, answer: Answer) -> dict[str, float]:
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
