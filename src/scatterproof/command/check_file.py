"""The command `check`: whether all that a study's file names fits together, before anything of it is run.

What rules prepare_dataset and check_study refuse is refused here in the same line. Nothing is downloaded or kept.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch

from scatterproof.check import check_study
from scatterproof.config.attacks import attack_jobs, attacks_on
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.puzzles import puzzle_parts
from scatterproof.config.search import plateau_threat, search_jobs, threats
from scatterproof.config.stream import stream_threats
from scatterproof.config.study import Study
from scatterproof.errors import REFUSED, UserError
from scatterproof.running.files import LEAST_FREE, check_writable
from scatterproof.victims.data import DEFAULT_PIRATE, Dataset, DatasetError, Split, is_on_disk, read_dataset

CIFAR100 = {"train": 50_000, "test": 10_000, "classes": 100, "side": 32}


def check_file(path: Path, study: Study) -> int:
    """Check what a study's file says; print one line of what it would run, or of what is wrong; the exit status."""
    rule = ""
    try:
        with redirect_stdout(sys.stderr):  # what is said of the files that are read
            folder = Path("results") / study.study
            check_writable(folder, LEAST_FREE)
            rule = "prepare_dataset"
            here = is_on_disk(study.dataset)
            dataset = read_dataset(study.dataset) if here else _not_here_yet(study.dataset)
            rule = "check_study"
            check_writable(folder, check_study(study, dataset)["disk_bytes"])
    except UserError as error:
        print(f"scatterproof: error in {rule}: {error}" if rule else error, file=sys.stderr)
        return REFUSED
    later = "" if here else "; CIFAR-100 is not here: it is downloaded first, and was not checked"
    print(f"{path}: all fits; it would run {plan(study)}{later}")
    return 0


def plan(study: Study) -> str:
    """How much a study runs, in words: its victims, puzzles, threats, attacks and searches."""
    attacks = sum(len(names) for job in attack_jobs(study.attacks, study.scatter) for names in job.values())
    searches = sum(len(runs) for runs in search_jobs(study.search, study.scatter).values())
    read = sum(study.victim_config(name).kind == "checkpoint" for name, _ in study.victims)
    counts = {
        "victim to train": len(study.victims) - read,
        "victim read from a checkpoint": read,
        "puzzle": len(_puzzles(study)),
        "threat": len(attacks_on(study.attacks, study.scatter)),
        "attack": attacks * len(study.attacked),
        "search": searches * len(study.searched),
    }
    return ", ".join(_counted(count, what) for what, count in counts.items() if count or what in ("threat", "attack"))


def _counted(count: int, what: str) -> str:
    noun, space, rest = what.partition(" ")
    plural = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{plural}{space}{rest}"


def _puzzles(study: Study) -> set[tuple[str, int, str]]:
    """Every puzzle that is cut, by its victim, the victim's seed and its file; one of several parts is one."""
    return {
        (name, seed, cut.file)
        for part, cuts in puzzle_parts(study).items()
        for name, seed in _victims_of(part, study)
        for cut in cuts
    }


def _victims_of(part: str, study: Study) -> list[tuple[str, int]]:
    """The victims whose puzzles of a part are read."""
    stages = {"grid": study.victims, "fineness": study.fineness_victims, "attacks": study.attacked}
    stage = part.partition(".")[0]
    if stage in stages:
        return stages[stage]
    searched = {*threats(study.search, study.scatter), plateau_threat(study.plateau, study.scatter).name}
    streamed = {threat.name for threat in stream_threats(study.stream).values()}
    return [*(study.searched if part in searched else []), *(study.streamed if part in streamed else [])]


def _not_here_yet(config: DatasetConfig) -> Dataset:
    """CIFAR-100's shapes and counts, without its images."""
    pirate = DEFAULT_PIRATE["cifar100"] if config.pirate is None else config.pirate
    train, classes, side = CIFAR100["train"], CIFAR100["classes"], CIFAR100["side"]
    if pirate >= train:
        raise DatasetError(f"dataset.pirate {pirate}: expected fewer than the {train} training images")

    def split(count: int) -> Split:
        images = torch.zeros(1, 3, side, side, dtype=torch.uint8).expand(count, -1, -1, -1)
        return Split(images, torch.arange(count) % classes)

    splits = (split(train - pirate), split(pirate), split(CIFAR100["test"]))
    return Dataset("cifar100", classes, *splits, (0.5,) * 3, (0.25,) * 3, "", config.split_seed)
