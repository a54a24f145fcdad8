"""Small Snakemake projects on a real SLURM: started, killed, continued, and asked about afterwards."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit.task_file import read_task

CLUSTER = Path(__file__).with_name("cluster")
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
BASE = [
    "--nolock",
    "--rerun-incomplete",
    "--keep-going",
    "--scheduler",
    "greedy",
    "--jobs",
    "1000",
    "--local-cores",
    "2",
]
BASE += ["--max-jobs-per-timespan", "100000/1s"]
PLUGIN = ["--executor", "submitit", "--submitit-status-interval", "2", "--seconds-between-status-checks", "1"]

CELLS = """
rule all:
    input: [f"out/{i}.txt" for i in range(int(config["cells"]))]
    localrule: True
rule cell:
    output: "out/{i}.txt"
    resources: runtime=10, mem_mb=400, gpu=1
    shell: "echo {wildcards.i} > {output}"
"""


class Sweep:
    """One project folder, with the command that runs it."""

    def __init__(self, folder: Path, snakefile: str = CELLS, *args: str, wrapper: list[str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Snakefile").write_text(snakefile)
        self.folder, self.args = folder, list(args)
        self.wrapper = wrapper

    def command(self, *args: str) -> list[str]:
        return [*(self.wrapper or [str(SNAKEMAKE)]), *BASE, *PLUGIN, *self.args, *args]

    def start(self, *args: str, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        log = (self.folder / "snakemake.log").open("a")
        environment = os.environ | {"HOME": str(self.folder)} | (env or {})
        return subprocess.Popen(
            self.command(*args),
            cwd=self.folder,
            stdout=log,
            stderr=log,
            text=True,
            env=environment,
            process_group=0,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in a background
        )

    def run(self, *args: str, timeout: float = 600, env: dict[str, str] | None = None) -> int:
        """To the end; the exit status."""
        process = self.start(*args, env=env)
        try:
            return process.wait(timeout)
        finally:
            kill(process)

    @property
    def log(self) -> str:
        path = self.folder / "snakemake.log"
        return path.read_text() if path.exists() else ""

    def attempts(self) -> list[tuple[str, str, str, str]]:
        """(job id, name, state, TRES) of every attempt of every job of this sweep, as sacct has them."""
        names = ",".join(path.name for path in (self.folder / ".submitit" / "jobs").iterdir())
        if not names:
            return []
        asked = sacct("-D", "--name", names, "-o", "JobID,JobName,State,AllocTRES")
        return [tuple(line.split("|")) for line in asked if "[" not in line]  # type: ignore[misc]

    def completed(self) -> Counter[str]:
        """How often each cell has completed, by what each task was to run."""
        count: Counter[str] = Counter()
        for job, name, state, _ in self.attempts():
            if state == "COMPLETED":
                folder = self.folder / ".submitit" / "jobs" / name
                task = read_task(folder, int(job.split("_")[1]))
                count.update(cell["name"] for cell in task["cells"])
        return count


def up(**knobs: str) -> None:
    """Start what is missing of the cluster. Fails, with what it lacks, where it cannot."""
    done = subprocess.run([str(CLUSTER / "up")], env=os.environ | knobs, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"These tests need a SLURM that they can start on this machine.\n{done.stdout}{done.stderr}", False)


def down(*args: str) -> None:
    """End the cluster; `--wipe` forgets all that it knew."""
    subprocess.run([str(CLUSTER / "down"), *args], check=True, capture_output=True)


def kill(process: "subprocess.Popen[str]") -> None:
    """SIGKILL for the controller and whatever it has in the foreground, not for its jobs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def sacct(*args: str) -> list[str]:
    """Lines of sacct once it has caught up with slurmctld: it lags by seconds."""
    lines: list[str] = []
    for _ in range(60):
        time.sleep(0.5)
        before, lines = (
            lines,
            subprocess.run(
                ["sacct", "-X", "-n", "-P", "-S", "now-1day", *args], capture_output=True, text=True
            ).stdout.splitlines(),
        )
        if lines and lines == before and not any("RUNNING" in line or "PENDING" in line for line in lines):
            break
    return lines


def wait_for(condition: object, timeout: float, what: str) -> None:
    """Until a callable is true. Raises: AssertionError, with what had been waited for."""
    end = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"no {what} within {timeout} s"
        time.sleep(0.1)
