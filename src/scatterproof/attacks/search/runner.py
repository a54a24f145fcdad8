"""The searches of one job, one after the other, each with its checkpoint."""

import hashlib
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from scatterproof.attacks import ATTACKS
from scatterproof.attacks.search.base import Attack, AttackResult, Machine
from scatterproof.attacks.search.store import load_results, save_results
from scatterproof.config.search import SearchConfig, SearchRun, hyperparameters
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Puzzle


def make_attack(config: SearchConfig, run: SearchRun) -> Attack:
    """The attack of a run with the study's hyperparameters. Raises: AttackError."""
    return ATTACKS[run.attack](**hyperparameters(config, run))


def search(
    config: SearchConfig,
    runs: Sequence[SearchRun],
    puzzle: Puzzle,
    key: tuple[int | str, ...],
    machine: Machine,
    work: Path,
    spent: dict[str, Any],
) -> list[tuple[SearchRun, AttackResult]]:
    """Every run's result, in rising order of images; `spent` gets the minutes here of each attack, by its name.

    In `work` a finished run leaves its result and one under way its checkpoint, named by all that they depend on: a job
    that was killed goes on where it was, and a grid that was changed makes anew only what it changed.
    """

    @lru_cache(maxsize=1)
    def evaluator(images: int) -> PlacementEvaluator:
        return Attack.make_evaluator(puzzle, machine, images)

    spent.update({run.attack: 0.0 for run in runs})
    found = []
    for run in sorted(runs, key=lambda run: run.images):  # so that one evaluator at a time is held
        attack = make_attack(config, run)
        attack.check(puzzle)
        seed = (*key, run.fitness, run.population, run.images, run.seed)
        identity = attack.identity(puzzle, run.evaluations, seed, machine)
        name = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
        finished, checkpoint = work / f"{name}.safetensors", work / f"{name}.pt"
        if not finished.exists():
            started = time.monotonic()
            try:
                result = attack.run(puzzle, run.evaluations, seed, machine, checkpoint, evaluator=evaluator(run.images))
                save_results(finished, [(run, result)])
            finally:
                spent[run.attack] += (time.monotonic() - started) / 60
            checkpoint.unlink(missing_ok=True)
        found += load_results(finished)
    return found
