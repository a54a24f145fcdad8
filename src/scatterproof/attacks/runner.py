"""The attacks of one job, one after the other; what is finished is not done again."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scatterproof.attacks import DIRECT
from scatterproof.attacks.base import DirectAttack, Run, Snapshot
from scatterproof.attacks.search.base import Machine
from scatterproof.attacks.store import load_found, save_found
from scatterproof.config.attacks import AttacksConfig, hyperparameters
from scatterproof.puzzle import Puzzle


def make_direct(config: AttacksConfig, name: str) -> DirectAttack:
    """The attack of that name with the study's hyperparameters."""
    return DIRECT[name](**hyperparameters(config, name))


def attack(
    config: AttacksConfig,
    names: Sequence[str],
    puzzle: Puzzle,
    key: tuple[int | str, ...],
    machine: Machine,
    work: Path,
    spent: dict[str, Any],
) -> dict[str, list[Snapshot]]:
    """What each attack reaches on one puzzle; `spent` gets the minutes here of each, by its name, added.

    In `work` a finished attack leaves its result, named by all that it depends on, and one under way what it needs to
    go on. Raises: AttackError.
    """
    found: dict[str, list[Snapshot]] = {}
    for name in names:
        made = make_direct(config, name)
        run = Run(machine, (*key, name), work)
        digest = hashlib.blake2b(made.identity(puzzle, run).encode(), digest_size=8).hexdigest()
        finished = work / f"{name}.{digest}.safetensors"
        spent[name] = spent.get(name) or 0.0  # a job's record begins with None
        if not finished.exists():
            started = time.monotonic()
            try:
                save_found(finished, {name: made.run(puzzle, run)})
            finally:
                spent[name] += (time.monotonic() - started) / 60
        found |= load_found(finished)
    return found
