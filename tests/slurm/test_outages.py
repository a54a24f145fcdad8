"""A controller of SLURM, or its accounting, that is away for a while: the sweep ends complete, nothing runs twice."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from sweeps import CELLS, CLUSTER, Sweep, kill, wait_for
from test_kills import assert_each_once

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

ROOT = Path(os.environ.get("CLUSTER_ROOT", "/var/lib/scatterproof-cluster"))
CHAIN = """
rule all:
    input: [f"out/{i}.txt" for i in range(16)]
    localrule: True
rule first:
    output: "first/{i}.txt"
    resources: runtime=10, mem_mb=300, gpu=1
    shell: "sleep 1; echo {wildcards.i} > {output}"
rule second:
    input: "first/{i}.txt"
    output: "out/{i}.txt"
    resources: runtime=10, mem_mb=300, gpu=1
    shell: "cp {input} {output}"
"""


def stop(daemon: str) -> None:
    pid = (ROOT / f"run/{daemon}.pid").read_text().strip()
    subprocess.run(["kill", pid], check=True)
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z (" in Path(f"/proc/{pid}/status").read_text(), 30, daemon)


def test_slurmctld_away_for_30_s_and_slurmdbd_for_60_s(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, CHAIN)
    process = sweep.start()
    try:
        wait_for(lambda: len(list(tmp_path.glob("first/*.txt"))) >= 4, 90, "first cells")
        stop("slurmctld")
        stop("slurmdbd")
        time.sleep(30)
        environment = os.environ | {"MYSQL_UNIX_PORT": str(ROOT / "mysql-run/sock")}
        subprocess.run(["slurmctld"], check=True, env=environment)
        time.sleep(30)
        subprocess.run([CLUSTER / "up"], check=True, capture_output=True)
        assert process.wait(240) == 0, sweep.log
    finally:
        subprocess.run([CLUSTER / "up"], check=True, capture_output=True)
        kill(process)
    count = sweep.completed()
    assert sorted(count) == sorted(str(i) for i in range(16))
    assert set(count.values()) == {2}, "once for each of two rules"
    assert [(tmp_path / f"out/{i}.txt").read_text() for i in range(16)] == [f"{i}\n" for i in range(16)]


def test_a_submission_that_only_seemed_to_fail_is_adopted(tmp_path: Path) -> None:
    """slurmctld is frozen during the first sbatch: that fails after 10 s, yet the job exists and runs."""
    shim = tmp_path / "bin" / "sbatch"
    shim.parent.mkdir()
    shim.write_text(
        f"""#!/bin/bash
if mkdir {tmp_path}/once 2>/dev/null; then
    kill -STOP $(cat {ROOT}/run/slurmctld.pid); (sleep 13; kill -CONT $(cat {ROOT}/run/slurmctld.pid)) &
fi
exec /usr/bin/sbatch "$@"
"""
    )
    shim.chmod(0o755)
    sweep = Sweep(tmp_path / "sweep", CELLS, "--config", "cells=4")
    assert sweep.run(env={"PATH": f"{shim.parent}:{os.environ['PATH']}"}, timeout=200) == 0, sweep.log
    assert "had been submitted after all" in sweep.log
    assert_each_once(sweep, 4)
