"""Jobs that are interrupted: each ends as docs/slurm.md says, and a search ends as if nothing had happened."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweeps import CLUSTER, Sweep, kill, sacct, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

HERE = Path(__file__).parent
SEARCH = f"""
rule all:
    input: "found.json"
    localrule: True
rule search:
    output: "found.json"
    resources: runtime=config["runtime"], mem_mb=1500, gpu=1, slurm_partition=config["partition"]
    shell: "{sys.executable} {HERE}/search_cell.py {{output}} work {{config[seconds]}}"
"""


def search(folder: Path, partition: str = "gpu", seconds: int = 12, runtime: int = 10) -> Sweep:
    settings = [f"{key}={value}" for key, value in locals().items() if key != "folder"]
    return Sweep(folder, SEARCH, "--config", *settings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    sweep = search(tmp_path_factory.mktemp("undisturbed"))
    assert sweep.run(timeout=120) == 0, sweep.log
    return (sweep.folder / "found.json").read_text()


def running(sweep: Sweep) -> tuple[str, str]:
    """Job and node of the search, once it has a checkpoint."""
    wait_for(lambda: any((sweep.folder / "work").glob("*.pt")), 90, "checkpoint")
    time.sleep(1.5)
    listed = subprocess.run(
        ["squeue", "-h", "-r", "-t", "R", "-o", "%i %N"], capture_output=True, text=True, check=True
    )
    job, node = listed.stdout.split()
    return job, node


def finish(sweep: Sweep, process: "subprocess.Popen[str]", undisturbed: str) -> list[str]:
    """The search's attempts, once it has ended like the undisturbed one, and gone on, not begun again."""
    try:
        assert process.wait(240) == 0, sweep.log
    finally:
        kill(process)
    assert (sweep.folder / "found.json").read_text() == undisturbed
    log = next((sweep.folder / ".submitit/logs/search").glob("*.log")).read_text()
    assert "goes on" in log
    assert log.count("starts afresh") == 1
    return [state for _, _, state, _ in sweep.attempts()]


@pytest.mark.parametrize("failure", ["crash", "cut"])
def test_a_lost_node(tmp_path: Path, undisturbed: str, failure: str) -> None:
    """Cut off, its processes run on: they make way for the copy that SLURM has started elsewhere."""
    sweep = search(tmp_path, seconds={"crash": 12, "cut": 45}[failure])
    process = sweep.start()
    _, node = running(sweep)
    subprocess.run([CLUSTER / "node", failure, node], check=True)
    try:
        states = finish(sweep, process, undisturbed)
    finally:
        subprocess.run([CLUSTER / "up"], check=True, capture_output=True)
    assert states == ["NODE_FAIL", "COMPLETED"]


@pytest.mark.parametrize("partition", ["preempt", "graced"])
def test_preemption_with_no_time_left_and_with_five_seconds(tmp_path: Path, undisturbed: str, partition: str) -> None:
    sweep = search(tmp_path, partition=partition)
    process = sweep.start()
    running(sweep)
    subprocess.run(["sbatch", "-p", "gpu", "-N4", "--gres=gpu:2", "-o", "/dev/null", "--wrap=sleep 3"], check=True)
    states = finish(sweep, process, undisturbed)
    assert states[-1] == "COMPLETED"
    assert set(states[:-1]) <= {"PREEMPTED", "REQUEUED"}
    assert len(states) == 2


def test_requeued_by_hand(tmp_path: Path, undisturbed: str) -> None:
    sweep = search(tmp_path)
    process = sweep.start()
    job, _ = running(sweep)
    subprocess.run(["scontrol", "requeue", job], check=True)
    assert finish(sweep, process, undisturbed) == ["REQUEUED", "COMPLETED"]


def test_a_time_limit_is_saved_before_and_goes_on(tmp_path: Path, undisturbed: str) -> None:
    sweep = search(tmp_path, seconds=60, runtime=1)  # longer than the limit: it can't end before
    process = sweep.start()
    states = finish(sweep, process, undisturbed)
    assert states[-1] == "COMPLETED"
    assert set(states[:-1]) == {"REQUEUED"}


def test_cancelled_from_outside_fails_and_says_so(tmp_path: Path) -> None:
    sweep = search(tmp_path)
    process = sweep.start()
    job, node = running(sweep)
    subprocess.run(["scancel", job], check=True)
    assert process.wait(90) == 1
    assert "CANCELLED (" in sweep.log
    assert f"job {job} on node {node}" in sweep.log
    assert ".submitit/logs/search/search.log" in sweep.log


def test_out_of_memory_is_named_and_a_retry_may_ask_for_more(tmp_path: Path) -> None:
    hungry = f"{sys.executable} -c 'import time; x = bytearray(600_000_000); x[::4096] = x[::4096]; time.sleep(12)'"
    snakefile = f"""
rule hungry:
    output: "done.txt"
    resources: runtime=5, mem_mb=lambda wildcards, attempt: [400, 1500][attempt - 1]
    retries: 1
    shell: "{hungry} && touch {{output}}"
"""
    sweep = Sweep(tmp_path, snakefile)
    assert sweep.run(timeout=150) == 0, sweep.log
    assert "OUT_OF_MEMORY" in sweep.log
    memory = [line.split("|") for line in sacct("-D", "--name", names(sweep), "-o", "State,ReqMem")]
    assert [state for state, _ in memory] in (
        ["FAILED", "COMPLETED"],
        ["OUT_OF_MEMORY", "COMPLETED"],
    )  # no cgroups here
    assert [asked.rstrip("nc") for _, asked in memory] == ["400M", "1500M"]


def names(sweep: Sweep) -> str:
    return ",".join(path.name for path in (sweep.folder / ".submitit/jobs").iterdir())
