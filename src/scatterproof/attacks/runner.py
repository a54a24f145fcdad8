"""The attacks and searches of one job, one after the other; what is finished is not done again."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from scatterproof.attacks import ATTACKS
from scatterproof.attacks.base import Attack, AttackError, Run, Snapshot
from scatterproof.attacks.search.base import scorer_of
from scatterproof.attacks.store import load_found, save_found
from scatterproof.config.attacks import AttackSettings
from scatterproof.config.search import SearchConfig, SearchRun, settings_of
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Puzzle, with_images


def make_attack(config: AttackSettings, name: str) -> Attack[Any]:
    """The attack of that name with the study's settings, its own and of those that it calls."""
    kind = ATTACKS[name]
    return kind(config.of(name), [make_attack(config, each.name) for each in kind.calls])


def attack(
    config: AttackSettings, names: Sequence[str], puzzle: Puzzle, run: Run, spent: dict[str, Any]
) -> dict[str, list[Snapshot]]:
    """What each attack reaches on one puzzle; `spent` gets the minutes here of each, by its name, added.

    run: its key gets each attack's name. In its folder a finished attack leaves its result, named by all that it
    depends on, and one under way what it needs to go on. Raises: AttackError.
    """
    return {
        name: finished(make_attack(config, name), puzzle, replace(run, key=(*run.key, name)), spent) for name in names
    }


def search(
    config: SearchConfig, searches: Sequence[SearchRun], puzzle: Puzzle, run: Run, spent: dict[str, Any]
) -> dict[str, list[Snapshot]]:
    """The same for searches, each on so many of the images; by the runs' names, in rising order of images.

    Raises: AttackError.
    """

    @lru_cache(maxsize=1)  # so that one scorer at a time is held
    def fewer(images: int) -> tuple[Puzzle, PlacementEvaluator]:
        part = with_images(puzzle, images)
        return part, scorer_of(part, run.machine)

    reached = {}
    for each in sorted(searches, key=lambda each: each.images):
        if each.images > len(puzzle.images):
            raise AttackError(f"{each.attack} wants {each.images} images, the pirate holds {len(puzzle.images)}")
        part, scorer = fewer(each.images)
        made = ATTACKS[each.attack](settings_of(config, each))
        key = (*run.key, each.fitness, each.population, each.images, each.seed)
        reached[each.name] = finished(made, part, replace(run, key=key, scorer=scorer), spent)
    return reached


def finished(made: Attack[Any], puzzle: Puzzle, run: Run, spent: dict[str, Any]) -> list[Snapshot]:
    """What an attack reaches, from its result in the run's folder where it has one."""
    assert run.work is not None
    name = made.file_name(puzzle, run)
    result = run.work / f"{name}.safetensors"
    spent[made.name] = spent.get(made.name) or 0.0  # a job's record begins with None
    if not result.exists():
        started = time.monotonic()
        try:
            save_found(result, {made.name: made.run(puzzle, run)})
        finally:
            spent[made.name] += (time.monotonic() - started) / 60
    (run.work / f"{name}.pt").unlink(missing_ok=True)  # its checkpoint
    return load_found(result)[made.name]
