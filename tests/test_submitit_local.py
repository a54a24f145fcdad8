"""The executor on this machine: the same code path as on SLURM, with processes in place of jobs."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase

from snakemake_executor_plugin_submitit import ExecutorSettings

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
CELLS = """
rule all:
    input: [f"out/{i}.txt" for i in range(int(config["cells"]))]
    localrule: True
rule cell:
    output: "out/{i}.txt"
    resources: runtime=5, mem_mb=200, gpu=int(config.get("gpus", 0))
    shell: "SHELL"
"""


class TestLocal(TestWorkflowsLocalStorageBase):
    """Snakemake's own tests of an executor."""

    __test__ = True

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster="local")


@pytest.mark.slow
class TestDebug(TestLocal):
    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster="debug")


def start(
    folder: Path, shell: str, *args: str, cells: int = 4, snakefile: str = CELLS, **config: object
) -> "subprocess.Popen[str]":
    (folder / "Snakefile").write_text(snakefile.replace("SHELL", shell))
    command = [SNAKEMAKE, "--nolock", "--rerun-incomplete", "--keep-going", "--scheduler", "greedy", "--jobs", "100"]
    command += ["--executor", "submitit", "--submitit-cluster", "local", "--seconds-between-status-checks", "1", *args]
    pairs = [f"{key}={value}" for key, value in ({"cells": cells} | config).items()]
    with (folder / "log.txt").open("a") as log:
        found = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": found}
        return subprocess.Popen(
            [*command, "--config", *pairs],
            cwd=folder,
            stdout=log,
            stderr=log,
            process_group=0,
            env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in a background
        )


def run(folder: Path, shell: str, *args: str, **config: object) -> tuple[int, str]:
    status = start(folder, shell, *args, **config).wait(120)  # type: ignore[arg-type]
    return status, (folder / "log.txt").read_text()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_no_two_jobs_share_a_gpu(tmp_path: Path) -> None:
    """Each job lives alone in a folder named by its GPU, which mkdir would refuse to make twice."""
    shell = "mkdir gpu$CUDA_VISIBLE_DEVICES && sleep 1 && rmdir gpu$CUDA_VISIBLE_DEVICES && echo done > {output}"
    status, log = run(tmp_path, shell, "--submitit-gpus", "2", cells=5, gpus=1)
    assert status == 0, log


@pytest.mark.slow
def test_more_gpus_than_there_are_is_refused_at_once(tmp_path: Path) -> None:
    status, log = run(tmp_path, "touch {output}", "--submitit-gpus", "1", gpus=2)
    assert status == 1
    assert "rule cell, resource gpu=2 " in log
    assert "this machine has 1 GPUs to hand out; --submitit-gpus N sets" in log


@pytest.mark.slow
def test_jobs_outlive_a_killed_controller_and_are_taken_up_again(tmp_path: Path) -> None:
    shell = "echo x >> runs.{wildcards.i}; sleep 25; echo {wildcards.i} > {output}"
    process = start(tmp_path, shell)
    wait_for(lambda: len(list(tmp_path.glob("runs.*"))) == 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    status, log = run(tmp_path, shell)
    assert status == 0, log
    assert "going on with job" in log
    assert [(tmp_path / f"runs.{i}").read_text() for i in range(4)] == ["x\n"] * 4


@pytest.mark.slow
def test_what_ended_meanwhile_counts_unless_its_output_is_gone(tmp_path: Path) -> None:
    shell = "echo x >> runs.{wildcards.i}; echo {wildcards.i} > {output}"
    process = start(tmp_path, "sleep 2; " + shell)
    wait_for(lambda: len(list(tmp_path.glob(".submitit/jobs/*/*.run1"))) == 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: len(list(tmp_path.glob(".submitit/jobs/*/*.0.json"))) == 4)
    (tmp_path / "out/2.txt").unlink()
    status, log = run(tmp_path, "sleep 2; " + shell)
    assert status == 0, log
    assert [len((tmp_path / f"runs.{i}").read_text().splitlines()) for i in range(4)] == [1, 1, 2, 1]


@pytest.mark.slow
def test_a_budget_stops_the_sweep_and_raising_it_goes_on(tmp_path: Path) -> None:
    """Room for one cell at its limit; what it has held leaves none for another."""
    shell, gpus = "sleep 1; touch {output}", ("--submitit-gpus", "1")
    status, log = run(tmp_path, shell, *gpus, "--submitit-gpu-hours", "0.0834", cells=3, gpus=1)
    assert status == 1
    assert len(list(tmp_path.glob("out/*.txt"))) == 1
    assert "2 jobs wait for room in the budget." in log
    assert "none of the 2 jobs that wait now fits. The smallest would pass it by 0.01 GPU-hours" in log
    assert "Traceback" not in log
    status, log = run(tmp_path, shell, *gpus, "--submitit-gpu-hours", "1", cells=3, gpus=1)
    assert status == 0, log
    assert len(list(tmp_path.glob("out/*.txt"))) == 3
    assert "What is left: 2 jobs, " in log


@pytest.mark.slow
def test_ctrl_c_leaves_no_trace_of_what_waits_for_the_budget(tmp_path: Path) -> None:
    process = start(tmp_path, "sleep 60; touch {output}", "--submitit-gpus", "1", "--submitit-gpu-hours", "0.1", gpus=1)
    wait_for(lambda: len(sleeping(tmp_path)) == 1)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 1
    log = (tmp_path / "log.txt").read_text()
    assert "3 jobs had waited for room in the budget and were never submitted." in log
    assert sqlite3.connect(tmp_path / ".submitit/journal.sqlite").execute("SELECT COUNT(*) FROM cells").fetchone() == (
        1,
    )


@pytest.mark.slow
def test_the_next_attempt_of_a_failed_job_may_ask_for_more(tmp_path: Path) -> None:
    shell = "test -e first.{wildcards.i} && touch {output} || (touch first.{wildcards.i}; false)"
    status, log = run(tmp_path, shell, "--retries", "1")
    assert status == 0, log
    database = sqlite3.connect(tmp_path / ".submitit/journal.sqlite")
    asked = database.execute("SELECT attempt, state, settled, COUNT(*) FROM cells GROUP BY attempt ORDER BY 1")
    found = asked.fetchall()
    assert found == [(1, "FAILED", 1, 4), (2, "COMPLETED", 1, 4)]


@pytest.mark.slow
def test_ctrl_c_ends_the_jobs_and_detaching_does_not(tmp_path: Path) -> None:
    shell = "sleep 60; touch {output}"
    process = start(tmp_path, shell)
    wait_for(lambda: len(sleeping(tmp_path)) == 4)
    os.kill(process.pid, signal.SIGUSR1)
    assert process.wait(30) == 1
    assert len(sleeping(tmp_path)) == 4
    process = start(tmp_path, shell)
    wait_for(lambda: "going on with job" in (tmp_path / "log.txt").read_text())
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 1
    wait_for(lambda: not sleeping(tmp_path), 20)


def sleeping(folder: Path) -> list[str]:
    """Processes of the cells' own command that run in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"sleep\x0060") and (process / "cwd").resolve() == folder:
                found.append(process.name)
        except OSError:
            continue
    return found


def test_cells_packed_into_one_task_pay_for_one_start_and_fail_alone(tmp_path: Path) -> None:
    shell = "test {wildcards.i} != 1; touch {output}"
    status, log = run(tmp_path, shell, "--submitit-pack", "4")
    assert status == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.txt", "2.txt", "3.txt"]
    assert "1 tasks with 4 jobs" in log
    assert "cell 1: FAILED (exit status 1)" in log


def test_slow_modules_are_imported_once_for_all_cells_of_a_task(tmp_path: Path) -> None:
    """And a script in a fork has its own arguments, log, benchmark and exit status."""
    (tmp_path / "slow_module.py").write_text("open('imports', 'a').write('x')")
    (tmp_path / "cell.py").write_text(
        "import slow_module, sys\n"
        "print('in', snakemake.wildcards.i, __name__)\n"
        "if snakemake.wildcards.i == '1': sys.exit('stopped')\n"
        "open(snakemake.output[0], 'w').write(snakemake.wildcards.i)\n"
    )
    snakefile = CELLS.replace('shell: "SHELL"', 'benchmark: "out/{i}.tsv"\n    script: "cell.py"')
    process = start(tmp_path, "", "--submitit-pack", "4", "--submitit-preload", "slow_module", snakefile=snakefile)
    assert process.wait(120) == 1
    assert (tmp_path / "imports").read_text() == "x"
    assert sorted(path.name for path in (tmp_path / "out").glob("*.txt")) == ["0.txt", "2.txt", "3.txt"]
    assert (tmp_path / "out/2.tsv").read_text().count("\n") == 2
    assert "in 3 __main__" in (tmp_path / ".submitit/logs/cell/3.log").read_text()
    assert "stopped" in (tmp_path / ".submitit/logs/cell/1.log").read_text()
    assert "of them start-up" in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_a_second_controller_is_refused_by_name(tmp_path: Path) -> None:
    process = start(tmp_path, "sleep 3; touch {output}")
    wait_for(lambda: "Submitted" in (tmp_path / "log.txt").read_text())
    status, log = run(tmp_path, "sleep 3; touch {output}")
    assert status == 1
    assert f"the controller with process id {process.pid} on {os.uname().nodename} is at work here" in log
    assert process.wait(60) == 0


ODD = """
VALUES = ["plain", "it's", 'say"hi"', "a,b", "back\\\\slash", "'quoted'", "k=v", "two words", "a:b,c=d", "100%"]
rule all:
    input: [f"out/{value}.txt" for value in VALUES], [f"again/{value}.txt" for value in VALUES]
    localrule: True
rule make:
    output: temp("out/{v}.txt")
    run:
        with open(output[0], "w") as file:
            file.write(wildcards.v)
rule read:
    input: "out/{v}.txt"
    output: "again/{v}.txt"
    shell: "cat {input:q} > {output:q}"
"""


@pytest.mark.slow
def test_wildcards_reach_a_job_as_they_are(tmp_path: Path) -> None:
    """Quotes, commas, backslashes: in targets, in files that are waited for, in ones that are deleted."""
    snakefile = ODD.replace('input: [f"out/{value}.txt" for value in VALUES], ', "input: ")
    status, log = run(tmp_path, "", "--submitit-pack", "5", snakefile=snakefile)
    assert status == 0, log
    files = [path for path in (tmp_path / "again").iterdir() if path.is_file()]
    assert len(files) == 10
    assert all(path.read_text() == path.name.removesuffix(".txt") for path in files)
    assert not list((tmp_path / "out").glob("*.txt"))


def test_wildcards_that_a_precommand_would_change_are_refused_by_name(tmp_path: Path) -> None:
    snakefile = ODD.replace("VALUES = [", "VALUES = ['a,b'] or [")
    status, log = run(tmp_path, "", "--precommand", "true", snakefile=snakefile)
    assert status == 1
    assert "rule make with wildcards {'v': 'a,b'}: a comma" in log and "Traceback" not in log


@pytest.mark.parametrize("absolute", [False, True])
def test_jobs_start_where_snakemake_was_started(tmp_path: Path, absolute: bool) -> None:
    """`workdir:` beside a configuration that lies where Snakemake was started."""
    where = tmp_path / "elsewhere" if absolute else Path("elsewhere")
    (tmp_path / "own.yaml").write_text(f"where: {where}\ncells: 2\n")
    snakefile = 'configfile: "own.yaml"\nworkdir: config["where"]\n' + CELLS
    status, log = run(tmp_path, "pwd > {output}", snakefile=snakefile)
    assert status == 0, log
    texts = [path.read_text().strip() for path in (tmp_path / "elsewhere/out").iterdir()]
    assert texts == 4 * [str((tmp_path / "elsewhere").resolve())]
