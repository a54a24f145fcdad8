"""`kill -9` of Snakemake and its children, then the same command, nothing else: the tables of an uninterrupted run."""

import random
import shutil
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest

import workflow
from workflow import RESULTS, TABLES, TINY, Finished

PACE = 85.0  # seconds that an uninterrupted run takes where the delays below are seconds


@dataclass(frozen=True)
class Moment:
    """When to kill: so long after a script of this name is at work (empty: after the start), and this file is there."""

    script: str
    delay: float
    file: str = ""


def run_and_kill(folder: Path, study: dict[str, object], moment: Moment, pace: float, *args: str) -> set[str]:
    """Start the command, kill it at its moment; the scripts that were at work."""
    process = workflow.start(folder, study, *args)
    try:
        while moment.script and not (
            any(name.startswith(moment.script) for name in workflow.scripts(process))
            and (not moment.file or any((folder / RESULTS).glob(moment.file)))
        ):
            assert process.poll() is None, f"ended before {moment}:\n" + (folder / "out.txt").read_text()
            time.sleep(0.02)
        time.sleep(moment.delay * pace)
        assert process.poll() is None, f"ended before {moment}:\n" + (folder / "out.txt").read_text()
    finally:
        at_work = workflow.kill(process, folder)
    return at_work


def models(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("results/tiny/*/seed*/*.safetensors")
    }


def assert_whole(folder: Path) -> None:
    """What a kill leaves half-written has a hidden name that nothing reads; no checkpoint stays beside a model."""
    for path in (folder / "results").rglob("*.tmp"):
        assert path.name.startswith("."), path
    assert not list((folder / "results").rglob("checkpoint.pt"))


@pytest.mark.slow
def test_three_kills_change_nothing(finished: Finished, tmp_path: Path) -> None:
    """One victim and P1 alone: in its training, in its cells, in the gathering of them."""
    study = deepcopy(TINY)
    study["victim"]["seeds"] = [0]
    study["further_victims"] = {}
    study["block_sizes"] = [16]
    (tmp_path / RESULTS).mkdir(parents=True)
    shutil.copy2(finished.folder / RESULTS / "dataset.safetensors", tmp_path / RESULTS)
    target = f"{RESULTS}/tables/prune.csv"
    moments = [
        Moment("train_victim", 0, "victim/seed0/checkpoint.pt"),
        Moment("evaluate", 0.05),
        Moment("concatenate", 0),
    ]
    for moment in moments:
        at_work = run_and_kill(tmp_path, study, moment, 1.0, target)
        assert not at_work or any(name.startswith(moment.script) for name in at_work)
        assert not (tmp_path / target).exists()
    status, output = workflow.snakemake(tmp_path, study, target)
    assert status == 0, output
    assert_whole(tmp_path)
    expected = workflow.without_times(finished.folder, "prune")
    mine = (expected["victim"] == "victim") & (expected["victim_seed"] == "0") & (expected["block_size"] == "16")
    assert workflow.without_times(tmp_path, "prune").equals(expected[mine].reset_index(drop=True))
    found = models(tmp_path)
    assert found
    assert found.items() <= models(finished.folder).items()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_six_kills_at_random_moments_change_nothing(finished: Finished, tmp_path: Path) -> None:
    draw = random.Random(17).uniform
    moments = [
        Moment("", draw(0.2, 3)),
        Moment("train_victim", 0, "*/seed*/checkpoint.pt"),  # the one that surely loses an attempt with a record
        Moment("train_victim", draw(0, 1)),
        Moment("cut_puzzle", draw(0, 0.05)),
        Moment("evaluate", draw(0, 0.2)),
        Moment("draw_figures", draw(0, 0.8)),
    ]
    killed: set[str] = set()
    for moment in moments:
        at_work = run_and_kill(tmp_path, TINY, moment, finished.seconds / PACE)
        print(f"{moment}: killed {sorted(at_work)}")
        killed |= at_work
    status, output = workflow.snakemake(tmp_path, TINY)
    assert status == 0, output
    assert {"train_victim", "cut_puzzle"} < killed
    assert killed & {"evaluate_prune", "evaluate_shuffle"}
    assert_whole(tmp_path)
    for name in TABLES:
        expected = workflow.without_times(finished.folder, name)
        assert workflow.without_times(tmp_path, name).equals(expected), name
    assert models(tmp_path) == models(finished.folder)
    lost = workflow.table(tmp_path, "cost").query("state == 'LOST'")
    assert "train_victim" in set(lost["rule"])  # a job killed before its own code starts leaves no record
    assert set(lost["wasted"]) == {"True"}
    status, output = workflow.snakemake(tmp_path, TINY)
    assert (status, "Nothing to be done" in output) == (0, True), output
