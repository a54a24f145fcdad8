"""What is made of SLURM's answers: late, missing, of other jobs, of states that mean less than they say."""

import time
from pathlib import Path
from typing import Any

import pytest

from snakemake_executor_plugin_submitit import slurm, status
from snakemake_executor_plugin_submitit.fencing import run_file
from snakemake_executor_plugin_submitit.job_states import STATES, Kind
from snakemake_executor_plugin_submitit.shared_files import write_json
from snakemake_executor_plugin_submitit.slurm import JobState, SlurmError
from snakemake_executor_plugin_submitit.status import Outcome, Watch

Queue = dict[str, JobState] | SlurmError
Records = dict[tuple[str, str], JobState] | SlurmError


@pytest.fixture
def cell(tmp_path: Path) -> dict[str, Any]:
    return {
        "id": 1, "submission": "r-1", "folder": str(tmp_path), "task": 4, "cell": 0, "job_id": "12_4",
        "state": "RUNNING", "reason": "", "submitted": time.time(), "intended": time.time(),
    }  # fmt: skip


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What squeue and sacct say, to be changed by a test; no latency of files."""
    says: dict[str, Any] = {"squeue": {}, "sacct": {}, "released": []}

    def answer(name: str) -> Any:
        if isinstance(says[name], SlurmError):
            raise says[name]
        return says[name]

    monkeypatch.setattr(slurm, "squeue", lambda cluster: answer("squeue"))
    monkeypatch.setattr(slurm, "sacct", lambda jobs, since, cluster: answer("sacct"))
    monkeypatch.setattr(slurm, "release", says["released"].append)
    monkeypatch.setattr(status.shutil, "which", lambda name: f"/usr/bin/{name}")  # type: ignore[attr-defined]
    monkeypatch.setattr(status, "FILE_LATENCY_S", 0.0)
    return says


def job(state: str, name: str = "r-1", reason: str = "None") -> JobState:
    return JobState(name, state, reason, "node7")


def look(cell: dict[str, Any], lost_after: float = 60) -> Outcome | None:
    return Watch("slurm", 0, lost_after).poll([cell]).get(1)


def test_a_result_on_file_comes_before_anything_slurm_says(cell: dict[str, Any], told: dict[str, Any]) -> None:
    told["squeue"] = {"12_4": job("RUNNING")}
    times = {"cell_started": 1, "ended": 2, "task_started": 0}
    write_json(Path(cell["folder"]) / "4.0.json", {"exit": 0, "job_id": "12_4", "node": "n"} | times)
    found = look(cell)
    assert found is not None
    assert (found.state, found.ended, found.exit) == ("COMPLETED", True, 0)


@pytest.mark.parametrize("state", [name for name, state in STATES.items() if state.kind is Kind.LIVE])
def test_no_live_state_ends_a_job_whatever_sacct_says(cell: dict[str, Any], told: dict[str, Any], state: str) -> None:
    told["squeue"] = {"12_4": job(state)}
    told["sacct"] = {("12_4", "r-1"): job("NODE_FAIL")}
    found = look(cell)
    assert found is None or not found.ended


@pytest.mark.parametrize("state", [name for name, state in STATES.items() if state.kind is Kind.FAILED])
def test_failed_states_end_a_job_by_their_own_name(cell: dict[str, Any], told: dict[str, Any], state: str) -> None:
    told["sacct"] = {("12_4", "r-1"): job(state)}
    found = look(cell)
    assert found is not None
    assert (found.state, found.ended, found.exit, found.node) == (state, True, 1, "node7")
    assert found.reason == STATES[state].meaning


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_that_came_back_is_not_ended_by_its_earlier_attempt(
    cell: dict[str, Any], told: dict[str, Any], state: str
) -> None:
    told["sacct"] = {("12_4", "r-1"): job(state)}
    told["squeue"] = {"12_4": job("PENDING", reason="BeginTime")}
    found = look(cell)
    assert found is not None
    assert (found.state, found.ended) == ("PENDING", False)
    told["squeue"] = {}
    found = look(cell)
    assert found is not None
    assert (found.state, found.ended, found.lost) == (state, True, True), "brought back where the cluster does not"
    found = Watch("slurm", 0, 60, returns=False).poll([cell]).get(1)
    assert found is not None
    assert (found.state, found.ended, found.lost) == (state, True, False)


@pytest.mark.parametrize(
    "said, lost",
    [
        ("srun: error: Unable to create step for job 14: Invalid generic resource (gres) specification", True),
        ("srun: error: Unable to confirm allocation for job 14: Unable to contact slurm controller", True),
        ("srun: error: Task launch for StepId=14.0 failed on node gpu2: Invalid job credential", True),
        ("srun: error: gpu2: task 0: Exited with exit code 1", False),
        ("srun: error: Unable to create step for job 14: retried\nTraceback: no such module", False),
    ],
)
def test_a_job_whose_program_slurm_did_not_start_is_brought_back(
    cell: dict[str, Any], told: dict[str, Any], said: str, lost: bool
) -> None:
    told["sacct"] = {("12_4", "r-1"): job("FAILED")}
    (Path(cell["folder"]) / "12_4_0_log.out").write_text(said + "\n")
    found = look(cell)
    assert found is not None
    assert (found.state, found.ended, found.lost, found.reason == said) == ("FAILED", True, lost, lost)


def test_a_cell_that_had_not_begun_when_its_task_ended_is_brought_back(
    cell: dict[str, Any], told: dict[str, Any]
) -> None:
    told["sacct"] = {("12_4", "r-1"): job("TIMEOUT")}
    folder = Path(cell["folder"])
    write_json(run_file(folder, 4, 1), {"job_id": "12_4", "node": "node7"})
    found = look(cell)
    assert found is not None
    assert (found.state, found.lost) == ("TIMEOUT", True)
    (folder / "4.0.begun").touch()
    found = look(cell)
    assert found is not None
    assert (found.state, found.lost, found.exit) == ("TIMEOUT", False, 1)


def test_squeue_alone_is_enough_where_there_is_no_accounting(cell: dict[str, Any], told: dict[str, Any]) -> None:
    told["sacct"] = SlurmError("sacct: Slurm accounting storage is disabled")
    told["squeue"] = {"12_4": job("TIMEOUT", reason="TimeLimit")}
    found = look(cell)
    assert found is not None
    assert (found.state, found.reason, found.ended) == ("TIMEOUT", "TimeLimit", True)


def test_nothing_is_given_up_while_slurm_cannot_be_reached(cell: dict[str, Any], told: dict[str, Any]) -> None:
    told["squeue"] = SlurmError("Unable to contact slurm controller")
    told["sacct"] = {("12_4", "r-1"): job("FAILED")}
    assert look(cell) is None


@pytest.mark.parametrize("why", ["squeue: error: Invalid user: ?", "squeue timed out after 60 s"])
def test_where_squeue_fails_for_long_it_is_said_once_and_sacct_is_asked(
    cell: dict[str, Any], told: dict[str, Any], why: str
) -> None:
    said: list[str] = []
    watch = Watch("slurm", 0, 0, say=said.append)
    told["squeue"] = SlurmError(why)
    assert watch.poll([cell]) == {}, "what sacct does not know may well run"
    told["sacct"] = {("12_4", "r-1"): job("PENDING")}
    assert not watch.poll([cell])[1].ended
    told["sacct"] = {("12_4", "r-1"): job("CANCELLED by 5")}
    found = watch.poll([cell])[1]
    assert (found.state, found.ended, found.lost) == ("CANCELLED", True, False)
    assert said == [f"squeue has failed for 0 s: {why}; sacct is asked instead"]


def test_a_job_that_may_go_back_to_the_queue_is_waited_for_where_squeue_fails(
    cell: dict[str, Any], told: dict[str, Any]
) -> None:
    watch = Watch("slurm", 0, 60)
    watch.failing_since[""] = time.monotonic() - 61
    told |= {"squeue": SlurmError("no such option"), "sacct": {("12_4", "r-1"): job("PREEMPTED")}}
    assert watch.poll([cell]) == {}
    watch.gone_since[1] -= 61
    assert watch.poll([cell])[1].lost


def test_where_both_fail_that_is_said_and_nothing_is_given_up(cell: dict[str, Any], told: dict[str, Any]) -> None:
    said: list[str] = []
    watch = Watch("slurm", 0, 0, say=said.append)
    told |= {"squeue": SlurmError("no such option"), "sacct": SlurmError("accounting is disabled")}
    assert watch.poll([cell]) == watch.poll([cell]) == {}
    assert [line.partition(":")[0] for line in said] == ["squeue has failed for 0 s", "sacct fails, too"]


def test_an_id_that_was_used_again_is_another_job(cell: dict[str, Any], told: dict[str, Any]) -> None:
    told["squeue"] = {"12_4": job("COMPLETED", name="other-2")}
    told["sacct"] = {("12_4", "other-2"): job("FAILED", name="other-2")}
    assert look(cell) is None


def test_a_forgotten_job_that_never_started_is_lost_and_may_be_submitted_again(
    cell: dict[str, Any], told: dict[str, Any]
) -> None:
    assert look(cell, lost_after=60) is None
    found = look(cell, lost_after=0)
    assert found is not None
    assert (found.state, found.lost, found.ended) == ("LOST", True, True)


def test_a_forgotten_job_that_lives_is_waited_for_and_a_silent_one_has_failed(
    cell: dict[str, Any], told: dict[str, Any]
) -> None:
    start = run_file(Path(cell["folder"]), 4, 1)
    write_json(start, {"job_id": "12_4", "node": "node7"})
    assert look(cell, lost_after=0) is None
    start.with_name(start.name + ".ended").touch()
    found = look(cell, lost_after=0)
    assert found is not None
    assert (found.state, found.lost, found.exit) == ("LOST", False, 1)


def test_completed_without_a_result_is_no_success(cell: dict[str, Any], told: dict[str, Any]) -> None:
    told["sacct"] = {("12_4", "r-1"): job("COMPLETED")}
    found = look(cell)
    assert found is not None
    assert (found.state, found.exit) == ("FAILED", 1)


def test_a_ghost_that_runs_the_cell_is_adopted(cell: dict[str, Any], told: dict[str, Any]) -> None:
    told["sacct"] = {("12_4", "r-1"): job("FAILED")}
    write_json(run_file(Path(cell["folder"]), 4, 1), {"job_id": "11_4", "node": "node7"})
    found = look(cell)
    assert found is not None
    assert (found.state, found.ended, found.columns) == ("RUNNING", False, {"job_id": "11_4"})


def test_a_job_held_after_a_failed_launch_is_released_once(cell: dict[str, Any], told: dict[str, Any]) -> None:
    told["squeue"] = {"12_4": job("PENDING", reason="launch failed requeued held")}
    watch = Watch("slurm", 0, 60)
    watch.poll([cell])
    watch.poll([cell])
    assert told["released"] == [["12_4"]]


def test_the_clients_are_asked_once_for_all_and_not_too_often(cell: dict[str, Any], told: dict[str, Any]) -> None:
    watch = Watch("slurm", 30, 60)
    cells = [cell | {"id": number, "task": number, "job_id": f"12_{number}"} for number in range(50)]
    calls = []
    told["squeue"] = {}
    original = slurm.squeue
    slurm.squeue = lambda cluster: calls.append(1) or original(cluster)  # type: ignore[func-returns-value,assignment]
    try:
        for _ in range(5):
            watch.poll(cells)
    finally:
        slurm.squeue = original
    assert len(calls) == 1
