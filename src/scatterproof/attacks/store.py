"""What the attacks on one puzzle had reached when, in one safetensors file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scatterproof.attacks.base import Copy, Placed, Reached, Snapshot
from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.running.files import atomic

SnapshotsByName = Mapping[str, Sequence[Snapshot]]  # by attack, or by threat and attack: `THREAT/ATTACK`


class StoreError(UserError):
    """A file of results that this version doesn't read."""


PLACED = ("evaluations", "fitness", "generation")


def save_found(path: Path, by_name: SnapshotsByName) -> None:
    """Write atomically what each attack, by name, had reached when."""
    tensors: dict[str, torch.Tensor] = {}
    about: dict[str, list[dict[str, Any]]] = {}
    for name, snapshots in by_name.items():
        about[name] = []
        for step, snapshot in enumerate(snapshots):
            parts, facts = _parts(snapshot.reached)
            # clones: steps may share a tensor, which safetensors refuses
            tensors |= {f"{name}.{step}.{key}": value.contiguous().clone() for key, value in parts.items()}
            about[name].append({"minutes": snapshot.minutes, "names": list(parts), **facts})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"scatterproof": json.dumps(about)})


def load_found(path: Path) -> dict[str, list[Snapshot]]:
    """Read what `save_found` wrote. Raises: StoreError."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["scatterproof"])
        if not isinstance(about, dict):
            raise StoreError(f"{path} holds searches of an earlier version: delete it, so that they are run anew")

        def snapshot(name: str, step: int, facts: dict[str, Any]) -> Snapshot:
            tensors = {key: file.get_tensor(f"{name}.{step}.{key}") for key in facts["names"]}
            return Snapshot(facts["minutes"], _reached(tensors, facts))

        return {
            name: [snapshot(name, step, facts) for step, facts in enumerate(steps)] for name, steps in about.items()
        }


def _parts(reached: Reached) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    if isinstance(reached, Copy):
        config = reached.config and reached.config.model_dump()
        return {key: value.cpu() for key, value in reached.tensors.items()}, {"config": config}
    parts = {
        "placement": reached.placement.to(torch.int32),
        "candidates": reached.candidates.to(torch.int32),
        "beliefs": reached.beliefs,
    }
    return parts, {name: getattr(reached, name) for name in PLACED}


def _reached(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> Reached:
    if "config" in facts:
        return Copy(tensors, facts["config"] and VictimConfig.model_validate(facts["config"]))
    placement, candidates, beliefs = (tensors[key] for key in ("placement", "candidates", "beliefs"))
    progress: dict[str, Any] = {name: facts.get(name) for name in PLACED}
    return Placed(placement.long(), candidates.long(), beliefs, **progress)


def under(by_name: SnapshotsByName, threat: str) -> dict[str, Sequence[Snapshot]]:
    """Of what is named `THREAT/ATTACK` that of one threat, by attack."""
    prefix = f"{threat}/"
    return {name.removeprefix(prefix): steps for name, steps in by_name.items() if name.startswith(prefix)}
