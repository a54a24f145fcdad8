"""What jobs held, by the ledger and by sacct itself: the same to the second; and budgets are kept."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from sweeps import Sweep, down, kill, up, wait_for
from test_outages import ROOT, stop

from scatterproof.config.cost import CostConfig
from scatterproof.cost.account import account
from scatterproof.cost.allocations import allocations, read_tasks
from scatterproof.cost.ledger import build_ledger
from scatterproof.cost.sacct import SacctError, read_sacct

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

FATES = """
rule all:
    input: [f"out/{rule}{i}.txt" for rule, n in config["fates"].items() for i in range(int(n))]
    localrule: True
rule steady:
    output: "out/steady{i}.txt"
    resources: runtime=5, mem_mb=400, gpu=1
    shell: "sleep 1; touch {output}"
rule failing:
    output: "out/failing{i}.txt"
    resources: runtime=5, mem_mb=400, gpu=1
    shell: "sleep 1; false"
rule timed:
    output: "out/timed{i}.txt"
    resources: runtime=1, mem_mb=400, gpu=1
    shell: "sleep 300"
rule preempted:
    output: "out/preempted{i}.txt"
    resources: runtime=5, mem_mb=400, gpu=2, slurm_partition="preempt"
    shell: "sleep 14; touch {output}"
rule requeued:
    output: "out/requeued{i}.txt"
    resources: runtime=5, mem_mb=400, gpu=1
    shell: "sleep 14; touch {output}"
rule cancelled:
    output: "out/cancelled{i}.txt"
    resources: runtime=5, mem_mb=400, gpu=1
    shell: "sleep 60"
"""


def names(sweep: Sweep) -> list[str]:
    return [path.name for path in (sweep.folder / ".submitit/jobs").glob("*")]


def running(sweep: Sweep, rule: str) -> tuple[str, str] | None:
    """Job and node of a rule's job, once its command runs."""
    folders = [name for name in names(sweep) if name.startswith(f"{rule}-")]
    if not folders or not list((sweep.folder / ".submitit/jobs" / folders[0]).glob("*.begun")):
        return None
    asked = ["squeue", "-h", "-r", "-t", "R", "--name", folders[0], "-o", "%i %N"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    return (found[0], found[1]) if found else None


def raw(sweep: Sweep) -> list[tuple[str, str, int]]:
    """(job id, state, GPU-seconds) of every attempt, as sacct prints them; None of them still under way."""
    while True:
        asked = ["sacct", "-X", "-D", "-n", "-P", "-S", "now-1day", f"--name={','.join(names(sweep))}"]
        asked += ["-o", "JobID,State,End,ElapsedRaw,AllocTRES"]
        lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
        rows = [line.split("|") for line in lines]
        if rows and all(row[2] != "Unknown" for row in rows):
            return [(row[0], row[1].split()[0], int(row[3]) * held(row[4])) for row in rows]
        time.sleep(1)


def held(tres: str) -> int:
    return sum(int(part.removeprefix("gres/gpu=")) for part in tres.split(",") if part.startswith("gres/gpu="))


def ledger(sweep: Sweep) -> pd.DataFrame:
    tasks = read_tasks(sweep.folder / ".submitit/journal.sqlite")
    ids = {task["job_id"].split("_")[0] for task in tasks}
    said = read_sacct(ids, min(task["submitted"] for task in tasks))
    return pd.DataFrame(build_ledger([], allocations(tasks, said)))


def gpu_seconds(table: pd.DataFrame) -> float:
    return float(table["allocated_gpu_minutes"].sum() * 60)


@pytest.mark.timeout(300)
def test_the_ledgers_sum_is_saccts_own_after_three_controllers(tmp_path: Path) -> None:
    """Attempts that were preempted, requeued, cancelled, that failed and ran out of time; one controller is killed."""
    fates = dict.fromkeys(("steady", "failing", "timed", "preempted", "requeued", "cancelled"), 1) | {"steady": 2}
    sweep = Sweep(tmp_path, FATES, "--config", f"fates={fates}")
    first = sweep.start()
    disturbed = ("preempted", "requeued", "cancelled")
    wait_for(lambda: sweep.log.count("Submitted ") == len(fates), 60, "submissions")
    wait_for(lambda: all(running(sweep, rule) for rule in disturbed), 60, "running jobs")
    jobs = {rule: running(sweep, rule) for rule in disturbed}
    node = jobs["preempted"][1]  # type: ignore[index]
    for command in (
        ["scontrol", "requeue", jobs["requeued"][0]],  # type: ignore[index]
        ["scancel", jobs["cancelled"][0]],  # type: ignore[index]
        ["sbatch", "-p", "gpu", "-w", node, "--gres=gpu:2", "-o", "/dev/null", "--wrap=sleep 2"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    kill(first)
    second = sweep.start()
    wait_for(lambda: "going on with job" in sweep.log, 60, "second controller")
    os.kill(second.pid, signal.SIGUSR1)
    assert second.wait(30) == 1
    assert sweep.run(timeout=240) == 1, sweep.log
    rows, table = raw(sweep), ledger(sweep)
    states = {state for _, state, _ in rows}
    assert {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "REQUEUED", "PREEMPTED"} <= states
    assert sorted(zip(table["job_id"], table["state"], strict=True)) == sorted((job, state) for job, state, _ in rows)
    assert gpu_seconds(table) == pytest.approx(sum(seconds for *_, seconds in rows), abs=1e-6)
    assert set(table["source"]) == {"sacct"}
    assert ledger(sweep).equals(table), "building it again changes nothing"
    wasted = table[table["wasted"]]
    assert {"FAILED", "CANCELLED", "TIMEOUT", "REQUEUED", "PREEMPTED"} <= set(wasted["state"])


def test_rows_say_where_they_come_from_and_nothing_counts_twice(tmp_path: Path, cluster: Callable[..., None]) -> None:
    """No gres/gpu in accounting; then ids used again; then slurmdbd down, and back."""

    def more(count: int) -> None:
        assert sweep.run("--config", f"fates={{'steady': {count}}}", timeout=90) == 0, sweep.log

    sweep = Sweep(tmp_path / "sweep", FATES)
    down()
    shutil.copytree(ROOT / "ctld", tmp_path / "ctld", copy_function=shutil.copy2)
    up(ACCOUNT_TRES="")
    more(2)
    rows = raw(sweep)
    assert [seconds for *_, seconds in rows] == [0, 0], "sacct knows of no GPU"
    table = ledger(sweep)
    assert list(table["source"]) == ["requested"] * 2
    assert gpu_seconds(table) == pytest.approx(table["elapsed_s"].sum())
    assert table["elapsed_s"].min() >= 1
    before, reused = gpu_seconds(table), set(table["job_id"])

    down()
    restore(tmp_path / "ctld")
    up()
    more(4)
    rows, table = raw(sweep), ledger(sweep)
    assert set(table["job_id"]) == reused, "slurmctld has lost its memory and counts from the same id on"
    assert list(table["source"]) == ["requested"] * 2 + ["sacct"] * 2
    assert len(table) == len(rows) == 4
    assert gpu_seconds(table) == pytest.approx(before + sum(seconds for *_, seconds in rows))

    stop("slurmdbd")
    try:
        more(6)
        with pytest.raises(SacctError):
            ledger(sweep)
        found = account(sweep.folder, sweep.folder / ".submitit/journal.sqlite", CostConfig())
    finally:
        up()
    assert [row["source"] for row in found.costs] == ["measured"] * 6
    assert all(row["elapsed_s"] >= 1 for row in found.costs)
    assert any("the jobs' own clocks stand in" in note for note in found.notes)
    wait_for(lambda: len(raw(sweep)) == 6, 60, "record of the time when slurmdbd was away")
    rows, table = raw(sweep), ledger(sweep)
    assert list(table["source"]) == ["requested"] * 2 + ["sacct"] * 4
    assert len(table) == len(rows) == 6
    assert gpu_seconds(table) == pytest.approx(before + sum(seconds for *_, seconds in rows))


def restore(state: Path) -> None:
    """Put back what slurmctld knew; its files stay its own."""
    for path in (ROOT / "ctld").iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)
    subprocess.run(["cp", "-a", f"{state}/.", ROOT / "ctld"], check=True)
    subprocess.run(["chown", "-R", "slurm:slurm", ROOT / "ctld"], check=True)


BUDGETED = """
rule all:
    input: [f"out/{i}.txt" for i in range(4)]
    localrule: True
rule cell:
    output: "out/{i}.txt"
    resources: runtime=1, mem_mb=400, gpu=2
    shell: "test -e quick || sleep 32; echo {wildcards.i} > {output}"
"""


def test_a_sweep_never_holds_more_than_its_budget_and_goes_on_when_it_is_raised(tmp_path: Path) -> None:
    """Room for two cells at their limits, one of them requeued: both share what was reserved, and the others wait."""
    budget = 2 * 2 * 60
    sweep = Sweep(tmp_path, BUDGETED, "--submitit-signal-delay", "10")
    process = sweep.start("--config", "study=cells", "--submitit-gpu-hours", str((budget + 1) / 3600))
    try:
        wait_for(lambda: running(sweep, "cell"), 60, "running cell")
        assert len(pending_and_running()) == 2, "what does not fit is not submitted"
        subprocess.run(["scontrol", "requeue", running(sweep, "cell")[0]], check=True)  # type: ignore[index]
        assert process.wait(150) == 1
    finally:
        kill(process)
    rows = raw(sweep)
    assert "REQUEUED" in {state for _, state, _ in rows}
    assert sum(seconds for *_, seconds in rows) <= budget
    assert "none of the " in sweep.log
    assert "would pass it by 0.0" in sweep.log
    assert 1 <= len(list(tmp_path.glob("out/*.txt"))) <= 2
    (tmp_path / "quick").touch()
    assert sweep.run("--config", "study=cells", "budget={gpu_hours: -1}", timeout=90) == 1
    assert "config key budget.gpu_hours: " in sweep.log
    assert sweep.run("--config", "study=cells", "--submitit-gpu-hours", "1", timeout=90) == 0, sweep.log
    assert [(tmp_path / f"out/{i}.txt").read_text() for i in range(4)] == [f"{i}\n" for i in range(4)]
    assert sum(seconds for *_, seconds in raw(sweep)) <= 3600
    assert "What is left: " in sweep.log


def pending_and_running() -> list[str]:
    asked = ["squeue", "-h", "-r", "-o", "%i"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
