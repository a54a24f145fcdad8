"""What four ways of running cells on SLURM do where something goes wrong: each number is from a run.

    python benchmarks/executors.py [--check] [--only submitit-plugin,slurm,cluster-generic,submitit]

Needs a SLURM that takes the jobs, with eight GPUs (`make cluster-up`). `submitit-plugin` is ours; `slurm` is
snakemake-executor-plugin-slurm; `cluster-generic` submits by sbatch and asks sacct; `submitit` is a script that maps an
array over the cells without output. The peers are installed into folders of their own. With `--check` it exits 1 where
our own needs more than one sbatch for an array, runs a cell twice, or does not go on by the same command.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PEERS = {
    "slurm": ["snakemake-executor-plugin-slurm==2.8.0", "snakemake-executor-plugin-slurm-jobstep==0.6.1"],
    "cluster-generic": ["snakemake-executor-plugin-cluster-generic==1.0.9"],
}
SNAKEFILE = """
rule all:
    input: [f"out/{i}.txt" for i in range(int(config["cells"]))]
    localrule: True
rule cell:
    output: "out/{i}.txt"
    resources: runtime=10, mem_mb=512, gpu=1
    shell: "echo ran >> ran/{wildcards.i}; sleep SECONDS; echo {wildcards.i} > {output}"
"""
ALONE = """
import subprocess, sys
from pathlib import Path
import submitit

def cell(number):
    command = f"echo ran >> ran/{number}; sleep SECONDS; echo {number} > out/{number}.txt"
    subprocess.run(["bash", "-c", command], check=True)

if __name__ == "__main__":
    executor = submitit.AutoExecutor(folder="log", cluster="slurm")
    executor.update_parameters(timeout_min=10, mem_gb=0.5, gpus_per_node=1, slurm_array_parallelism=1000)
    Path("out").mkdir(exist_ok=True)
    left = [number for number in range(int(sys.argv[1])) if not Path(f"out/{number}.txt").exists()]
    for job in executor.map_array(cell, left) if left else []:
        job.result()
"""
STATUS = """#!/usr/bin/env bash
state=$(sacct -X -n -P -o State -j "$1" | tail -1)
case "$state" in
    COMPLETED) echo success;;
    ""|PENDING|RUNNING|REQUEUED|COMPLETING|CONFIGURING|SUSPENDED) echo running;;
    *) echo failed;;
esac
"""
SUBMIT = "sbatch --parsable --time={resources.runtime} --mem={resources.mem_mb} --gpus-per-node={resources.gpu}"
GENERAL = ["--jobs", "1000", "--local-cores", "2", "--keep-going", "--max-jobs-per-timespan", "100000/1s"]
OFTEN = ["--seconds-between-status-checks", "3"]
EXECUTORS = {
    "submitit-plugin": ["--executor", "submitit", "--submitit-status-interval", "3"],
    "slurm": ["--executor", "slurm", "--slurm-init-seconds-before-status-checks", "3", "--slurm-no-account"],
    "cluster-generic": [
        *("--executor", "cluster-generic", "--cluster-generic-submit-cmd", SUBMIT),
        *("--cluster-generic-status-cmd", "./status.sh", "--cluster-generic-cancel-cmd", "scancel"),
    ],
    "submitit": [],
}
SHIM = '#!/bin/bash\necho sbatch >> "$CALLS"\nexec {path} "$@"\n'
MOST_S = 300.0
ROW = tuple[str, str, str]


@dataclass(frozen=True)
class Way:
    """One way of running cells, and where its packages are."""

    name: str
    peers: Path

    def command(self, cells: int, *more: str) -> list[str]:
        if self.name == "submitit":
            return [sys.executable, "alone.py", str(cells)]
        snakemake = [sys.executable, "-m", "snakemake", *GENERAL, *more]
        return [*snakemake, "--config", f"cells={cells}", *EXECUTORS[self.name], *OFTEN]


class Project:
    """A folder in which cells of so many seconds are run one way."""

    def __init__(self, folder: Path, way: Way, seconds: int) -> None:
        self.folder, self.way = folder, way
        for name in ("bin", "ran"):
            (folder / name).mkdir(parents=True)
        for name, text in (("Snakefile", SNAKEFILE), ("alone.py", ALONE), ("status.sh", STATUS)):
            (folder / name).write_text(text.replace("SECONDS", str(seconds)))
        (folder / "bin/sbatch").write_text(SHIM.format(path=shutil.which("sbatch")))
        for path in (folder / "bin/sbatch", folder / "status.sh"):
            path.chmod(0o755)

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    @property
    def sbatch_calls(self) -> int:
        return len((self.folder / "calls").read_text().split())

    @property
    def runs(self) -> list[int]:
        """How often each cell that was begun has been begun."""
        return [len(path.read_text().split()) for path in (self.folder / "ran").iterdir()]

    def start(self, cells: int, *more: str) -> "subprocess.Popen[bytes]":
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        environment = os.environ | {"CALLS": str(self.folder / "calls"), "PATH": path}
        if self.way.name in PEERS:
            environment["PYTHONPATH"] = str(self.way.peers / self.way.name)
        with (self.folder / "log.txt").open("a") as log:
            return subprocess.Popen(
                self.way.command(cells, *more), cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def run(self, cells: int, *more: str) -> int:
        """The exit status of a run to its end; 124 where it does not end."""
        return ended(self.start(cells, *more))


def ended(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(MOST_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return 124


def until(true: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < MOST_S, "nothing happens: is the cluster idle?"
        time.sleep(0.3)


def queue(state: str = "all") -> list[str]:
    command = ["squeue", "-h", "-r", "-o", "%i", "-t", state]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@contextmanager
def emptied() -> Iterator[None]:
    """Empty the queue, before and after."""
    _empty()
    try:
        yield
    finally:
        _empty()


def _empty() -> None:
    subprocess.run(["scancel", "--me"], check=True)
    until(lambda: not queue())


def forty_cells(folder: Path, way: Way) -> list[ROW]:
    """How often sbatch is called for forty cells that are ready, and how long the run takes."""
    project, begun = Project(folder, way, 0), time.monotonic()
    status = project.run(40)
    seconds = time.monotonic() - begun
    assert status == 0, project.log
    return [("sbatch_of_40", str(project.sbatch_calls), "calls"), ("seconds_of_40", f"{seconds:.0f}", "s")]


def killed_controller(folder: Path, way: Way) -> list[ROW]:
    """Eight cells at work, `kill -9` of the controller, the same command; else with the flags that Snakemake names."""
    project = Project(folder, way, 25)
    process = project.start(8)
    until(lambda: len(project.runs) == 8)
    process.send_signal(signal.SIGKILL)
    process.wait()
    status = project.run(8)
    if status and way.name != "submitit":
        subprocess.run([sys.executable, "-m", "snakemake", "--unlock", "--config", "cells=8"], cwd=folder, check=True)
        again = project.run(8, "--rerun-incomplete")
        assert again == 0, project.log
    until(lambda: not queue())
    rows = [("after_kill_exit", str(status), "exit status of the same command")]
    return [*rows, ("after_kill_begun_twice", str(sum(runs > 1 for runs in project.runs)), "cells of 8")]


def requeued_job(folder: Path, way: Way) -> list[ROW]:
    """A job that is put back into the queue by an administrator, as at a preemption."""
    project = Project(folder, way, 15)
    process = project.start(1)
    until(lambda: len(project.runs) == 1 and bool(queue("running")))
    subprocess.run(["scontrol", "requeue", queue("running")[0]], check=True)
    status = ended(process)
    return [("requeued_exit", str(status), "exit status"), ("requeued_begun", str(sum(project.runs)), "times")]


def cancelled_job(folder: Path, way: Way) -> list[ROW]:
    """A job that someone cancels: whether it is told, and whether the message names SLURM's state."""
    project = Project(folder, way, 60)
    process = project.start(1)
    until(lambda: len(project.runs) == 1)
    begun = time.monotonic()
    subprocess.run(["scancel", queue("running")[0].partition("_")[0]], check=True)
    status = ended(process)
    named = "CANCELLED" in project.log
    return [
        ("cancelled_exit", str(status), "exit status"),
        ("cancelled_told_after", f"{time.monotonic() - begun:.0f}", "s"),
        ("cancelled_named", "yes" if named else "no", "is CANCELLED in the log"),
    ]


PROBES = (forty_cells, killed_controller, requeued_job, cancelled_job)
OURS = {"sbatch_of_40": "1", "after_kill_exit": "0", "after_kill_begun_twice": "0", "requeued_exit": "0"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    options.add_argument("--only", default=",".join(EXECUTORS))
    asked = options.parse_args()
    if shutil.which("sbatch") is None or subprocess.run(["sinfo", "-h"], capture_output=True).returncode:
        sys.exit("benchmarks/executors.py needs a running SLURM: make cluster-up")
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="executors-") as folder:
        root = Path(folder)
        for name in asked.only.split(","):
            if name in PEERS:
                install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", root / "peers" / name]
                subprocess.run([*install, *PEERS[name]], check=True)
            for probe in PROBES:
                with emptied():
                    for what, value, unit in probe(root / name / probe.__name__, Way(name, root / "peers")):
                        print(f"{name}_{what} {value} {unit}", flush=True)
                        found[f"{name}_{what}"] = value
    missed = {what: found.get(f"submitit-plugin_{what}") for what, wanted in OURS.items()}
    missed = {what: value for what, value in missed.items() if value != OURS[what]}
    if asked.check and missed:
        sys.exit(f"missed: {missed}, expected {OURS}")


if __name__ == "__main__":
    main()
