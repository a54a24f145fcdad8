"""The budget of GPU-hours: never passed, whatever happens to the jobs and to those who submit them."""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.accounts import Accounts, Task, TaskKey
from snakemake_executor_plugin_submitit.budget import gpu_hours, hours, seconds
from snakemake_executor_plugin_submitit.guard import Guard, check
from snakemake_executor_plugin_submitit.requests import Request, gpus_in
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.slurm import Attempt
from snakemake_executor_plugin_submitit.starts import granted, run_file, seconds_held
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
        accounts = Accounts(0.0, math.inf if self.sacct else 0.0, print)
        accounts.attempts = self.attempts  # type: ignore[method-assign]
        self.guard = Guard(self.journal, accounts, self.limit, None)  # type: ignore[arg-type]
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
