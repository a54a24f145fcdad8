"""Submitting and running trivial cells on SLURM, against snakemake-executor-plugin-slurm without arrays.

    python benchmarks/submit.py [--check] [--cells 1000] [--sweep 100]

Needs a SLURM that takes the jobs (`make cluster-up`). The peer is installed into a folder of its own, since Snakemake
loads every plugin that it finds. Both submit the same held cells first (they are cancelled once all are in the queue),
then both run a whole sweep. Snakemake starts, makes the graph of jobs and selects what to run before either is asked
anything; a dry run takes as long and is measured too. Targets: 5 times less time to submit beyond a dry run of the same
cells, which no executor can shorten, and a sweep not slower; the ratio with Snakemake's own time in it stands beside.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

PEER = ["snakemake-executor-plugin-slurm==2.8.0", "snakemake-executor-plugin-slurm-jobstep==0.6.1"]
SNAKEFILE = """
rule all:
    input: [f"out/{i}.txt" for i in range(int(config["cells"]))]
    localrule: True
rule cell:
    output: "out/{i}.txt"
    resources: runtime=10, mem_mb=512, gpu=1, slurm_extra="EXTRA"
    shell: "echo {wildcards.i} > {output}"
"""
OURS = ["--executor", "submitit", "--submitit-status-interval", "5"]
THEIRS = ["--executor", "slurm", "--slurm-init-seconds-before-status-checks", "5", "--slurm-no-account"]
OFTEN = ["--seconds-between-status-checks", "5"]
GENERAL = [
    "--jobs",
    "100000",
    "--local-cores",
    "2",
    "--scheduler",
    "greedy",
    "--max-jobs-per-timespan",
    "100000/1s",
    "--config",
]
DRY_RUNS = 3
SHIM = '#!/bin/bash\necho {name} >> "$CALLS"\nexec {path} "$@"\n'


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    options.add_argument("--cells", type=int, default=1000)
    options.add_argument("--sweep", type=int, default=100)
    asked = options.parse_args()
    if shutil.which("sbatch") is None or subprocess.run(["sinfo", "-h"], capture_output=True).returncode:
        sys.exit("benchmarks/submit.py needs a running SLURM: make cluster-up")
    with tempfile.TemporaryDirectory(prefix="submit-") as folder:
        root = Path(folder)
        peer = root / "peer"
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", peer, *PEER], check=True)
        floor = dry_run(root / "dry", asked.cells)
        print(f"dry_run {floor:.2f} s, median of {DRY_RUNS}")
        times: dict[str, float] = {}
        for name, executor, path in (("submitit", OURS, None), ("slurm", THEIRS, peer)):
            times |= measure(name, executor, path, root / name, asked.cells, asked.sweep)
    submit = times["slurm_submit"] / times["submitit_submit"]
    sweep = times["slurm_sweep"] / times["submitit_sweep"]
    beyond = (times["slurm_submit"] - floor) / (times["submitit_submit"] - floor)
    print(f"submit_ratio {submit:.2f} x")
    print(f"submit_beyond_dry_run_ratio {beyond:.2f} x (target 5)")
    print(f"sweep_ratio {sweep:.2f} x")
    if asked.check and (beyond < 5 or sweep < 1):
        sys.exit("missed: at least 5 times less time to submit beyond a dry run, and a sweep not slower")


def dry_run(folder: Path, cells: int) -> float:
    """Seconds of a dry run of as many cells, which neither executor takes part in."""
    taken = []
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE.replace("EXTRA", ""))
    command = [*(sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all", *GENERAL), f"cells={cells}"]
    for _ in range(DRY_RUNS):
        started = time.monotonic()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


def measure(
    name: str, executor: list[str], peer: Path | None, folder: Path, cells: int, sweep: int
) -> dict[str, float]:
    """Seconds until all cells are in the queue, and for a whole sweep; prints them with what the controller spent."""
    found = {}
    process, calls, started = start(folder / "held", executor, peer, cells, "--begin=now+1hour")
    while queued() < cells:
        assert process.poll() is None, (folder / "held/log.txt").read_text()
        time.sleep(0.2)
    found[f"{name}_submit"] = time.monotonic() - started
    cpu = sum(psutil.Process(process.pid).cpu_times()[:4])
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(["scancel", "--me"], check=True)
    print(f"{name}_submit {found[f'{name}_submit']:.2f} s")
    print(f"{name}_submit_cpu {cpu:.2f} s")
    print(f"{name}_submit_sbatch {count(calls, 'sbatch')} calls", flush=True)
    while queued():
        time.sleep(0.5)
    process, calls, started = start(folder / "sweep", executor, peer, sweep, "--nice=0")
    cpu = 0.0
    while process.poll() is None:
        try:
            cpu = sum(psutil.Process(process.pid).cpu_times()[:4])
        except psutil.Error:
            break
        time.sleep(0.2)
    assert process.wait() == 0, (folder / "sweep/log.txt").read_text()
    found[f"{name}_sweep"] = time.monotonic() - started
    print(f"{name}_sweep {found[f'{name}_sweep']:.2f} s")
    print(f"{name}_sweep_cpu {cpu:.2f} s")
    for command in ("sbatch", "sacct", "squeue"):
        print(f"{name}_sweep_{command} {count(calls, command)} calls", flush=True)
    return found


def start(
    folder: Path, executor: list[str], peer: Path | None, cells: int, extra: str
) -> "tuple[subprocess.Popen[bytes], Path, float]":
    """A controller with a shim around each command of SLURM's that counts its calls."""
    folder.mkdir(parents=True)
    (folder / "Snakefile").write_text(SNAKEFILE.replace("EXTRA", extra))
    (folder / "bin").mkdir()
    for command in ("sbatch", "sacct", "squeue"):
        path = folder / "bin" / command
        path.write_text(SHIM.format(name=command, path=shutil.which(command)))
        path.chmod(0o755)
    environment = os.environ | {"CALLS": str(folder / "calls"), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    if peer:
        environment["PYTHONPATH"] = str(peer)
    command = [sys.executable, "-m", "snakemake", *GENERAL, f"cells={cells}", *executor, *OFTEN]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    return process, folder / "calls", time.monotonic()


def queued() -> int:
    return len(subprocess.run(["squeue", "-h", "-r", "-o", "%i"], capture_output=True, text=True).stdout.splitlines())


def count(calls: Path, command: str) -> int:
    return calls.read_text().split().count(command) if calls.exists() else 0


if __name__ == "__main__":
    main()
