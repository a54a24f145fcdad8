"""The budget of GPU-hours: never passed, whatever happens to the jobs and to those who submit them."""

import json
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.budget import gpu_hours, hours, seconds
from snakemake_executor_plugin_submitit.budget_guard import BudgetGuard, check
from snakemake_executor_plugin_submitit.executor import Executor
from snakemake_executor_plugin_submitit.fencing import granted, run_file, seconds_held
from snakemake_executor_plugin_submitit.gate import Gate
from snakemake_executor_plugin_submitit.gpu_usage import GpuUsage, Task, TaskKey
from snakemake_executor_plugin_submitit.journal import Journal, JournalError
from snakemake_executor_plugin_submitit.requests import Request, gpus_in, request_of
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.slurm import Attempt
from snakemake_executor_plugin_submitit.submitter import Ready, Submitter, for_all


@dataclass
class Memory:
    """The journal's part in it, kept in memory."""

    rows: dict[TaskKey, Task] = field(default_factory=dict)

    def tasks(self) -> list[Task]:
        return [json.loads(json.dumps(row)) for row in self.rows.values()]

    def remember(self, key: str, values: dict[TaskKey, Any]) -> None:
        for (name, task), value in values.items():
            self.rows[name, task]["request"].setdefault(key, {})[str(task)] = value


@dataclass
class Job:
    """A task as SLURM has it: GPU-seconds of a start, those of the starts that have ended, and whether one runs."""

    row: Task
    limit: int
    held: list[int] = field(default_factory=list)
    runs: bool = True

    def allowed(self) -> int:
        """What task.py lets the start that runs hold."""
        first = granted(Path(self.row["folder"]), self.row["task"])
        return max(0, self.limit - sum(self.held[first - 1 :]))


class History(RuleBasedStateMachine):
    """Random requests, ends, requeues, raised budgets and controllers, with and without sacct."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.journal, self.jobs = Memory(), dict[TaskKey, Job]()
        self.waiting: list[Ready] = []
        self.asked = self.limit = 0
        self.late = False

    @initialize(limit=st.integers(0, 60).map(lambda minutes: 60 * minutes), sacct=st.booleans())
    def begin(self, limit: int, sacct: bool) -> None:
        self.limit, self.sacct = limit, sacct
        self.controller()

    @rule()
    def controller(self) -> None:
        """A new one; what waited comes again, since Snakemake has it still."""
        usage = GpuUsage(0.0, math.inf if self.sacct else 0.0, print)
        usage.attempts = self.attempts  # type: ignore[method-assign]
        self.guard = BudgetGuard(self.journal, usage, self.limit, None)  # type: ignore[arg-type]
        self.guard.load()
        self.submitter = Submitter(ExecutorSettings(), self.journal, Path(), print, 3)  # type: ignore[arg-type]

    def attempts(self, tasks: Any) -> dict[TaskKey, list[Attempt]]:
        found = {}
        for task in list(tasks) if self.sacct else []:
            job = self.jobs[task["submission"], task["task"]]
            gpus = task["request"]["gpus"]
            found[task["submission"], task["task"]] = [
                *(Attempt(held // gpus, gpus, True) for held in job.held[: len(job.held) - self.late]),
                *([Attempt(1, gpus, False)] if job.runs else []),
            ]
        return found

    @rule(minutes=st.integers(1, 15), gpus=st.integers(1, 2), count=st.integers(1, 5), pack=st.integers(1, 3))
    def request(self, minutes: int, gpus: int, count: int, pack: int) -> None:
        request = Request({}, minutes, gpus, pack)
        self.waiting += [Ready(object(), {"rule": "cell", "attempt": 1}, {}, request) for _ in range(count)]
        self.asked += count
        self.submit()

    @rule()
    def submit(self) -> None:
        chunks, self.waiting = self.guard.admit(self.submitter.chunks(self.waiting))
        for tasks in chunks:
            self.send(tasks)

    def send(self, tasks: list[list[Ready]]) -> None:
        name, request = f"s{len(self.jobs)}", for_all(tasks)
        folder = Path(self.folder.name) / name
        folder.mkdir()
        asked = {"gpus": request.gpus, "minutes": request.minutes, "capped": True}
        rows = []
        for task, cells in enumerate(tasks):
            row = {"submission": name, "task": task, "folder": str(folder), "cluster": "slurm", "intended": time.time()}
            row |= {"request": dict(asked), "settled": 0, "ended": None, "refused": 0, "cells": len(cells)}
            self.journal.rows[name, task] = row
            self.jobs[name, task] = Job(row, request.gpus * 60 * (request.minutes or 0))
            self.start(self.jobs[name, task])
            rows += [dict(row) for _ in cells]
        self.guard.submitted(tasks, rows)

    def start(self, job: Job) -> None:
        path = run_file(Path(job.row["folder"]), job.row["task"], len(job.held) + 1)
        path.write_text(json.dumps({"created": time.time(), "pid": os.getpid()}))
        job.runs = True

    def stop(self, job: Job, share: float) -> None:
        """A start that has held a share of what it may; the clock in its files says so, too."""
        gpus = job.row["request"]["gpus"]
        held = int(job.allowed() * share) // gpus
        path = run_file(Path(job.row["folder"]), job.row["task"], len(job.held) + 1)
        now = time.time()
        path.write_text(json.dumps({"created": now - held, "pid": os.getpid()}))
        path.with_name(path.name + ".ended").touch()
        job.held.append(held * gpus)
        job.runs = False

    def running(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.runs]

    @precondition(lambda self: self.running())
    @rule(data=st.data(), share=st.floats(0, 1))
    def end(self, data: st.DataObject, share: float) -> None:
        job = data.draw(st.sampled_from(self.running()))
        self.stop(job, share)
        job.row |= {"settled": 1, "ended": time.time()}

    @precondition(lambda self: self.running())
    @rule(data=st.data(), share=st.floats(0, 1), seen=st.booleans())
    def requeue(self, data: st.DataObject, share: float, seen: bool) -> None:
        for job in data.draw(st.lists(st.sampled_from(self.running()), min_size=1, max_size=4)):
            self.stop(job, share)
            self.start(job)
            if seen:
                self.watch(False)

    @rule(late=st.booleans())
    def watch(self, late: bool) -> None:
        """`late`: sacct does not know yet of the latest attempt of each task."""
        self.late = late
        self.guard.asked = -math.inf
        self.guard.watch({key for key, row in self.journal.rows.items() if not row["settled"]})

    @rule(more=st.integers(0, 2000))
    def raise_budget(self, more: int) -> None:
        self.limit += more
        self.controller()

    @invariant()
    def the_budget_is_never_passed(self) -> None:
        worst = sum(sum(job.held) + (job.allowed() if job.runs else 0) for job in self.jobs.values())
        assert worst <= self.limit
        if hasattr(self, "guard"):
            assert worst <= self.guard.budget.used <= self.limit

    def teardown(self) -> None:
        """Everything runs once the budget is large enough."""
        if hasattr(self, "guard"):
            self.limit, self.late = 10**9, False
            self.controller()
            self.submit()
            assert not self.waiting
            assert sum(job.row["cells"] for job in self.jobs.values()) == self.asked
            for job in self.running():
                self.stop(job, 1.0)
                job.row |= {"settled": 1, "ended": time.time()}
            self.watch(False)
            assert not self.guard.live()
            held = sum(sum(job.held) for job in self.jobs.values())
            assert self.guard.budget.used == held if self.sacct else self.guard.budget.used >= held
        self.folder.cleanup()


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=80, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


def task(folder: Path, **request: Any) -> Task:
    asked = {"gpus": 2, "minutes": 1, "capped": True} | request
    return {"submission": "s", "task": 0, "folder": str(folder), "cluster": "slurm", "request": asked}


def write_start(folder: Path, number: int, begin: float, end: float | None) -> None:
    path = run_file(folder, 0, number)
    path.write_text(json.dumps({"created": begin}))
    os.utime(path, (begin + 20, begin + 20))
    if end is not None:
        path.with_name(path.name + ".ended").touch()
        os.utime(path.with_name(path.name + ".ended"), (end, end))


def test_what_was_held_is_what_sacct_says_of_all_attempts(tmp_path: Path) -> None:
    write_start(tmp_path, 1, 1000, 1030)
    write_start(tmp_path, 2, 1100, 1110)
    usage, one = GpuUsage(0, 60, print), task(tmp_path)
    both = [Attempt(31, 2, True), Attempt(11, 2, True)]
    assert usage.held(one, both, 0) == (84, True)
    assert usage.held(one, [Attempt(31, None, True), Attempt(11, None, True)], 0) == (84, True)
    assert usage.held(one, both[:1], 0)[1] is False, "one attempt is not on record yet"
    assert usage.held(one, [both[0], Attempt(3, 2, False)], 0)[1] is False, "sacct is late"


def test_without_sacct_a_tasks_own_clock_counts_rounded_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_start(tmp_path, 1, 1000, None)  # died without a word, 20 s after it began at the earliest
    write_start(tmp_path, 2, 1100, 1110.2)
    usage, one = GpuUsage(30, 60, print), task(tmp_path)
    least = (20 + 10.2) * 2
    held, for_good = usage.held(one, [], 0)
    assert held is not None
    assert least <= held <= least + 2 * (30 + 5 + 20) + 1
    assert not for_good
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert usage.held(one, [], time.time()) == (None, False), "sacct may still answer"
    known = [Attempt(500, 2, True)]
    assert usage.held(one, known, 0) == (1000, False), "never below what is on record"


def test_a_start_that_waited_for_its_gpus_had_none(tmp_path: Path) -> None:
    run_file(tmp_path, 0, 1).write_text(json.dumps({"created": 1000, "waits": True}))
    assert seconds_held(tmp_path, 0) == [0]
    for name, moment in {"0.run1.holds": 1050, "0.run1.ended": 1060}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (moment, moment))
    assert seconds_held(tmp_path, 0) == [10]


def test_a_task_whose_files_are_gone_counts_by_what_was_kept_of_them_else_in_full(tmp_path: Path) -> None:
    usage = GpuUsage(0, 60, print)
    assert usage.held(task(tmp_path / "gone", clock={"0": 7.5}), [], 0) == (15, False)
    assert usage.held(task(tmp_path / "gone"), [], 0) == (120, False)
    assert usage.held(task(tmp_path / "gone") | {"refused": 1}, [], 0) == (0, False)


def test_a_pack_that_does_not_fit_goes_out_smaller() -> None:
    guard = BudgetGuard(Memory(), GpuUsage(0, 0, print), 5 * 60, None)  # type: ignore[arg-type]
    cells = [Ready(number, {}, {}, Request({}, 2, 1, 4)) for number in range(6)]
    found, waiting = guard.admit([[cells[:4], cells[4:]]])
    assert [[[one.job for one in cells] for cells in tasks] for tasks in found] == [[[0, 1]]]
    assert [one.job for one in waiting] == [2, 3, 4, 5]
    assert guard.budget.room == 60
    assert "would pass it by 0.02 GPU-hours" in guard.stuck(waiting)
    assert "to 0.10 or more (for all that wait now: 0.20)" in guard.stuck(waiting)


def test_a_budget_set_later_counts_every_start_of_a_job_that_was_submitted_without_one(tmp_path: Path) -> None:
    one = task(tmp_path, capped=False) | {"settled": 0, "ended": None}
    write_start(tmp_path, 1, 1000, 1040)
    write_start(tmp_path, 2, 1100, 1140)
    write_start(tmp_path, 3, 1200, None)
    running = run_file(tmp_path, 0, 3)
    running.touch()
    guard = BudgetGuard(Memory({("s", 0): one}), GpuUsage(0, 60, print), 10**6, None)  # type: ignore[arg-type]
    guard.load()
    assert guard.budget.used == 2 * (40 + 10) * 2 + 120, "and what the third may hold"
    os.utime(running, (1230, 1230))
    guard.load()
    assert guard.budget.used == 2 * (40 + 10) * 2 + 2 * (30 + 5 + 10) + 120, "it is silent: a fourth may come"


def test_a_gate_that_is_closed_lets_nothing_more_out() -> None:
    guard = BudgetGuard(Memory(), GpuUsage(0, 0, print), 3600, None)  # type: ignore[arg-type]
    sent: list[list[list[Ready]]] = []

    def send(tasks: list[list[Ready]]) -> None:
        sent.append(tasks)
        gate.close()

    gate = Gate(guard, Submitter(ExecutorSettings(), Memory(), Path(), print, 1), send, print)  # type: ignore[arg-type]
    gate.offer([Ready(n, {"rule": "cell", "attempt": 1}, {}, Request({}, 2, 1, 1)) for n in range(3)])
    assert len(sent) == 1
    assert guard.budget.used == 120, "what did not go out is not reserved"


def test_sacct_is_asked_no_more_often_than_squeue() -> None:
    guard = BudgetGuard(Memory(), GpuUsage(0, 0, print), 3600, None, ask_s=10)  # type: ignore[arg-type]
    for ago, asked in ((8, False), (12, True)):
        guard.asked = before = time.monotonic() - ago
        guard.watch(set())
        assert (guard.asked > before) is asked


def test_a_poll_before_snakemake_has_its_scheduler_waits_for_it() -> None:
    executor = object.__new__(Executor)
    executor.limit, executor.over = 3600, set()
    executor.workflow = SimpleNamespace(scheduler=None)
    executor.journal = SimpleNamespace(open_ids=dict)  # type: ignore[assignment]
    executor.gate = Gate(BudgetGuard(Memory(), GpuUsage(0, 0, print), 3600, None), None, print, print)  # type: ignore[arg-type]
    executor._watch_budget({})


@pytest.mark.parametrize("given", [-1, True, "1", math.nan, math.inf, [1]])
def test_a_bad_budget_is_refused_by_its_key(given: object) -> None:
    with pytest.raises(WorkflowError, match=r"config key budget\.gpu_hours: .*, expected a number of GPU-hours"):
        gpu_hours(None, {"budget": {"gpu_hours": given}})


def test_the_setting_comes_before_the_config_and_both_may_be_missing() -> None:
    assert gpu_hours(None, {"budget": {"gpu_hours": 2}}) == 2
    assert gpu_hours(0.5, {"budget": {"gpu_hours": 2}}) == 0.5
    assert gpu_hours(None, {"budget": {"gpu_hours": None}}) is None
    assert gpu_hours(None, {"budget": 7}) is None, "another workflow's key of its own"
    assert seconds(0.1) == 360
    assert hours(361) == "0.11"
    with pytest.raises(WorkflowError, match="--submitit-gpu-hours: -1, expected"):
        ExecutorSettings(gpu_hours=-1)


@pytest.mark.parametrize("request_text", ["{", "[]", '{"gpus": "many"}', '{"gpus": 1, "minutes": "x"}'])
def test_a_corrupted_row_of_the_journal_is_named_and_kept(tmp_path: Path, request_text: str) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.intend({"name": "cell-1", "rule": "cell", "request": request_text}, [{"task": 0, "cell": 0, "outputs": []}])
    before = (tmp_path / "journal.sqlite").read_bytes()
    with pytest.raises(JournalError, match=r"journal\.sqlite: submission cell-1"):
        BudgetGuard(journal, GpuUsage(0, 0, print), 3600, None).load()
    assert (tmp_path / "journal.sqlite").read_bytes() == before
    journal.close()


def test_what_nobody_could_count_is_refused() -> None:
    with pytest.raises(WorkflowError, match=r"rule cell: a budget .* needs its time limit"):
        check("cell", Request({}, None, 1, 1), 3600)
    with pytest.raises(WorkflowError, match=r"rule cell: a budget .* needs its time limit"):
        check("cell", request_of("cell", 1, {"gres": "gpu:a100:1"}, ExecutorSettings()), 3600)
    for option in ("exclusive", "exclus"):
        with pytest.raises(WorkflowError, match="rule cell: --exclusive"):
            check("cell", Request({"slurm_additional_parameters": {option: True}}, 5, 0, 1), 3600)
    check("cell", Request({"slurm_additional_parameters": {"exclude": "gpu1"}}, 5, 1, 1), 3600)
    check("cell", Request({}, None, 0, 1), 3600)
    check("cell", Request({}, None, 1, 1), None)


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [("gpu", 1), ("gpu:2", 2), ("gpu:a100:3", 3), ("gpu:a100", 1), ("shard:4", 0), ("craynetwork:1,gpu:2(S:0-1)", 2)],
)
def test_gpus_among_generic_resources_count_too(gres: str, gpus: int) -> None:
    assert gpus_in(gres) == gpus


def test_saccts_lines_are_attempts_by_name_and_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids used again, the rest of an array, a line twice, no GPU on record, and a name with the separator in it."""
    text = (
        "7_0|10|11|40|REQUEUED|29|billing=1,cpu=1,gres/gpu:h100=2,gres/gpu=2|cell-1\n"
        "7_0|41|42|Unknown|RUNNING|5|cpu=1,gres/gpu=2|cell-1\n"
        "7_0|41|42|Unknown|RUNNING|5|cpu=1,gres/gpu=2|cell-1\n"
        "7_0|1|2|3|COMPLETED|1|cpu=1|cell-2\n"
        "7_[1-3]|10|Unknown|Unknown|PENDING|0||cell-1\n"
        "7_1|10|Unknown|30|CANCELLED by 0|0||cell-1\n"
        "8_0|1|2|3|COMPLETED|9|gres/gpu=1|odd|name\n"
    )
    monkeypatch.setattr(slurm, "call", lambda *command, **_: text)
    assert slurm.attempts(["cell-1", "cell-2"], time.time()) == {
        ("cell-1", 0): [Attempt(29, 2, True), Attempt(5, 2, False)],
        ("cell-2", 0): [Attempt(1, None, True)],
        ("cell-1", 1): [Attempt(0, None, True)],
        ("odd|name", 0): [Attempt(9, 1, True)],
    }
