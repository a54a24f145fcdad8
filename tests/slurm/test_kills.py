"""Controllers that die: whenever it is, the same command ends with every cell run exactly once."""

import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sweeps import CELLS, Sweep, kill

pytestmark = pytest.mark.slurm
FAULTY = Path(__file__).with_name("faulty.py")


def assert_each_once(sweep: Sweep, cells: int) -> None:
    count = sweep.completed()
    assert {int(name) for name in count} == set(range(cells))
    assert set(count.values()) == {1}, [name for name in count if count[name] != 1]
    assert [(sweep.folder / f"out/{i}.txt").read_text() for i in range(cells)] == [f"{i}\n" for i in range(cells)]


@pytest.mark.timeout(1500)
def test_twelve_kills_in_a_sweep_of_120_cells(tmp_path: Path) -> None:
    """Four cells a task, on eight GPUs, each cell long enough that the sweep outlasts the kills on any machine."""
    slow = CELLS.replace('shell: "', 'shell: "sleep 6; ')
    sweep = Sweep(tmp_path, slow, "--config", "cells=120", "--submitit-pack", "4")
    draw = random.Random(5)
    kills = 0
    while kills < 12:
        process = sweep.start()
        time.sleep(draw.uniform(0.5, 11))  # from before the first submission to the taking up of what runs
        assert process.poll() is None, sweep.log
        kill(process)
        kills += 1
    assert sweep.run(timeout=900) == 0, sweep.log
    assert_each_once(sweep, 120)
    assert sweep.log.count("Submitted cell-") >= 1
    assert "going on with job" in sweep.log


def faulty(folder: Path, fault: str) -> tuple[int, set[str]]:
    """A sweep of three cells under a fault; its exit status, and the moments that it passed."""
    passed = folder / "passed.txt"
    sweep = Sweep(folder, CELLS, "--config", "cells=3", wrapper=[sys.executable, str(FAULTY)])
    status = sweep.run(env={"FAULT": fault, "FAULT_LOG": str(passed)}, timeout=120)
    return status, set(passed.read_text().splitlines()) if passed.exists() else set()


@pytest.mark.timeout(1500)
def test_a_kill_before_and_after_every_write_of_the_journal_and_every_sbatch(tmp_path: Path) -> None:
    status, moments = faulty(tmp_path / "whole", "none 0 before")
    assert status == 0
    assert len(moments) >= 6
    assert "sbatch 1" in moments
    faults = [f"{moment} {when}" for moment in sorted(moments) for when in ("before", "after")]
    with ThreadPoolExecutor(4) as pool:
        killed = sum(pool.map(lambda fault: continued(tmp_path / fault.replace(" ", "_"), fault), faults))
    assert killed >= len(faults) - 4, "the number of writes varies a little with the order of events"


def continued(folder: Path, fault: str) -> bool:
    """A sweep that a fault interrupted, and the same command again; whether the fault came to pass."""
    status, _ = faulty(folder, fault)
    sweep = Sweep(folder, CELLS, "--config", "cells=3")
    assert status in (0, -signal.SIGKILL), (fault, sweep.log)
    assert sweep.run(timeout=300) == 0, (fault, sweep.log)
    assert_each_once(sweep, 3)
    return status != 0
