"""Who may run beside whom, and what Ctrl-C, a detaching signal and a second controller do."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from sweeps import CELLS, Sweep, kill, wait_for
from test_kills import assert_each_once

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

SLOW = CELLS.replace('shell: "', 'shell: "sleep 12; ')


def jobs() -> list[str]:
    listed = subprocess.run(["squeue", "-h", "-r", "-o", "%i %T"], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def started(folder: Path, snakefile: str = SLOW) -> tuple[Sweep, "subprocess.Popen[str]"]:
    sweep = Sweep(folder, snakefile, "--config", "cells=12")
    process = sweep.start()
    wait_for(lambda: sum("RUNNING" in line for line in jobs()) == 8, 60, "running jobs")
    return sweep, process


def test_ctrl_c_cancels_everything_in_one_call(tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "scancel"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\nexec /usr/bin/scancel "$@"\n')
    shim.chmod(0o755)
    sweep = Sweep(tmp_path / "sweep", SLOW, "--config", "cells=12")
    process = sweep.start(env={"PATH": f"{shim.parent}:{os.environ['PATH']}"})
    wait_for(lambda: sum("RUNNING" in line for line in jobs()) == 8, 60, "running jobs")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(90) == 1
    wait_for(lambda: not jobs(), 30, "empty queue")
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    assert {state.split()[0] for _, _, state, _ in sweep.attempts()} == {"CANCELLED"}
    assert sweep.run(timeout=120) == 0, sweep.log
    assert_each_once(sweep, 12)


@pytest.mark.parametrize("way", ["SIGUSR1", "--submitit-on-interrupt detach"])
def test_detaching_leaves_everything_running(tmp_path: Path, way: str) -> None:
    sweep = Sweep(tmp_path, SLOW, "--config", "cells=12")
    process = sweep.start(*(way.split() if way.startswith("--") else []))
    wait_for(lambda: sum("RUNNING" in line for line in jobs()) == 8, 60, "running jobs")
    os.kill(process.pid, signal.SIGINT if way.startswith("--") else signal.SIGUSR1)
    assert process.wait(90) == 1
    assert len(jobs()) == 12
    assert "Detached: 12 jobs go on" in sweep.log
    wait_for(lambda: len(jobs()) < 12, 60, "job that ends with nobody watching")
    assert sweep.run(timeout=120) == 0, sweep.log
    assert_each_once(sweep, 12)


def test_a_second_controller_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    sweep, process = started(tmp_path)
    assert sweep.run(timeout=120) == 1
    assert f"the controller with process id {process.pid} on {os.uname().nodename} is at work here" in sweep.log
    assert len(jobs()) == 12
    kill(process)
    assert sweep.run(timeout=120) == 0, sweep.log
    assert_each_once(sweep, 12)


def test_a_changed_rule_ends_the_outdated_jobs_first(tmp_path: Path) -> None:
    sweep, process = started(tmp_path)
    kill(process)
    (tmp_path / "Snakefile").write_text(SLOW.replace("echo {wildcards.i}", "echo new {wildcards.i}").replace("12", "1"))
    assert sweep.run(timeout=120) == 0, sweep.log
    assert "is out of date and is cancelled" in sweep.log
    assert [(tmp_path / f"out/{i}.txt").read_text() for i in range(12)] == [f"new {i}\n" for i in range(12)]


def test_impossible_requests_are_refused_before_anything_is_submitted(tmp_path: Path) -> None:
    for resource, expected in {
        'slurm_partition="gqu"': "rule cell: partition 'gqu' does not exist, expected one of cpu, gpu, graced, preempt",
        "mem_mb=0": "rule cell, resource mem_mb=0: expected a whole number of at least 1",
        'slurm_extra="--job-name=mine"': "rule cell, resource slurm_extra: --job-name is managed by the plugin",
        'slurm_extra="--comment=x\\nrm"': "control characters are not allowed",
    }.items():
        sweep = Sweep(tmp_path / str(abs(hash(resource))), CELLS.replace("mem_mb=400", resource), "--config", "cells=2")
        assert sweep.run(timeout=120) == 1
        assert expected in sweep.log
        assert "Submitted" not in sweep.log


def test_what_sbatch_rejects_fails_by_name_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A rejected array of submitit's leaves its pickles; and the cells of another rule go on."""
    good = CELLS.replace("rule cell", "rule good").replace("out/", "good/").split("rule good")[1]
    rejected = CELLS.replace("mem_mb=400", 'mem_mb=400, slurm_extra="--reservation=nosuch"')
    both = rejected.replace('range(int(config["cells"]))]', 'range(2)] + ["good/1.txt"]') + "rule good" + good
    sweep = Sweep(tmp_path, both)
    assert sweep.run(timeout=120) == 1
    assert "cell" in sweep.log
    assert "not submitted: sbatch: " in sweep.log
    assert "Requested reservation is invalid" in sweep.log
    assert (tmp_path / "good/1.txt").exists()
    assert [path.name.rpartition("-")[0] for path in (tmp_path / ".submitit/jobs").iterdir()] == ["good"]


def test_a_controller_inside_a_job_hands_nothing_of_it_down(tmp_path: Path) -> None:
    """SBATCH_* and SLURM_* of an enclosing job would override what the cells ask for."""
    sweep = Sweep(tmp_path, CELLS, "--config", "cells=2")
    inherited = {
        "SBATCH_PARTITION": "nosuch",
        "SLURM_JOB_ID": "1",
        "SLURM_CPUS_PER_TASK": "99",
        "SBATCH_ARRAY_INX": "0-3",
    }
    assert sweep.run(env=inherited, timeout=90) == 0, sweep.log
    assert_each_once(sweep, 2)
