"""Controllers that die: whenever it is, the same command ends with every cell run exactly once."""

import random
import time
from pathlib import Path

import pytest
from sweeps import CELLS, Sweep, kill

pytestmark = pytest.mark.slurm


def assert_each_once(sweep: Sweep, cells: int) -> None:
    count = sweep.completed()
    assert {int(name) for name in count} == set(range(cells))
    assert set(count.values()) == {1}, [name for name in count if count[name] != 1]
    assert [(sweep.folder / f"out/{i}.txt").read_text() for i in range(cells)] == [f"{i}\n" for i in range(cells)]


@pytest.mark.timeout(1500)
def test_twenty_kills_in_a_sweep_of_200_cells(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, CELLS, "--config", "cells=200")
    draw = random.Random(5)
    kills = 0
    while kills < 20:
        process = sweep.start()
        time.sleep(draw.uniform(0.5, 16))
        assert process.poll() is None, sweep.log
        kill(process)
        kills += 1
    assert sweep.run(timeout=900) == 0, sweep.log
    assert_each_once(sweep, 200)
    assert sweep.log.count("Submitted cell-") >= 1
    assert "going on with job" in sweep.log
