"""Cells that an earlier controller packed into one task: what becomes of each when one of them has changed."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakemake_executor_plugin_submitit.begun import begin, is_revoked
from snakemake_executor_plugin_submitit.reattach import Reattacher, SortedOut
from snakemake_executor_plugin_submitit.signature import VERSION
from snakemake_executor_plugin_submitit.status import Outcome

ENDED = Outcome("COMPLETED", ended=True, exit=0, columns={"started": 0.0})


def signature(version: int) -> str:
    return json.dumps({"version": VERSION, "jobs": {"r:": {"code": version}}})


class Output(str):
    is_temp = False


class Task:
    """One task of two cells, 0 and 1, as the journal has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changes: list[dict[str, Any]] = []
        self.outcomes: dict[int, Outcome] = {}
        self.forced: set[str] = set()
        self.rows = [
            {"id": number, "key": f"k{number}", "submission": "s", "task": 0, "cell": number, "folder": str(folder)}
            | {"signature": signature(0), "state": "RUNNING", "attempt": 1, "outputs": [str(folder / f"out{number}")]}
            | {"job_id": "1_0", "rule": "r", "name": str(number)}
            for number in (0, 1)
        ]

    def sort_out(self, *versions: int) -> SortedOut:
        """What becomes of its cells, where these versions of them are wanted now."""
        journal: Any = SimpleNamespace(change=self.changes.extend)
        watch: Any = SimpleNamespace(poll=lambda rows: self.outcomes)
        reattacher = Reattacher(self.rows, journal, watch, logging.getLogger(), lambda job: job.signature)
        cells: list[tuple[Any, dict[str, Any]]] = []
        for row, version in zip(self.rows, versions, strict=True):
            job = SimpleNamespace(attempt=1, input=[], output=[Output(row["outputs"][0])], is_group=lambda: False)
            job.rule, job.dag = "r", SimpleNamespace(forcerules=self.forced, forcefiles=set())
            cell = {name: row[name] for name in ("key", "rule", "name", "outputs")}
            cells.append((job, cell | {"signature": signature(version), "attempt": 1}))
        return reattacher.sort_out(cells)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(tmp_path)


def ids(pairs: list[tuple[Any, dict[str, Any]]]) -> list[str]:
    return [row["key"] for _, row in pairs]


def test_what_has_not_changed_goes_on(task: Task) -> None:
    sorted_out = task.sort_out(0, 0)
    assert ids(sorted_out.under_way) == ["k0", "k1"]
    assert (sorted_out.fresh, sorted_out.outdated) == ([], [])


def test_a_changed_cell_that_waits_is_taken_out_and_the_running_one_goes_on(task: Task) -> None:
    begin(task.folder, 0, 0, [])
    sorted_out = task.sort_out(0, 1)
    assert ids(sorted_out.under_way) == ["k0"]
    assert ids(sorted_out.fresh) == ["k1"]
    assert sorted_out.outdated == []
    assert is_revoked(task.folder, 0, 1)
    assert [(change["id"], change["state"]) for change in task.changes] == [(1, "REVOKED")]


def test_a_changed_cell_that_runs_ends_its_task_and_the_waiting_one_is_submitted_again(task: Task) -> None:
    begin(task.folder, 0, 0, [])
    sorted_out = task.sort_out(1, 0)
    assert sorted_out.under_way == []
    assert sorted(ids(sorted_out.fresh)) == ["k0", "k1"]
    assert [row["id"] for row in sorted_out.outdated] == [0, 1]


def test_a_finished_cell_counts_though_its_task_ends_for_another_one(task: Task) -> None:
    (task.folder / "out0").touch()
    begin(task.folder, 0, 0, [])
    begin(task.folder, 0, 1, [])
    task.outcomes = {0: ENDED}
    sorted_out = task.sort_out(0, 1)
    assert ids(sorted_out.under_way) == ["k0"]
    assert ids(sorted_out.fresh) == ["k1"]
    assert [row["id"] for row in sorted_out.outdated] == [1]


def test_a_finished_cell_that_has_changed_does_not_count(task: Task) -> None:
    (task.folder / "out0").touch()
    task.outcomes = {0: ENDED}
    assert ids(task.sort_out(1, 0).fresh) == ["k0"]


def test_a_task_of_changed_cells_alone_is_ended_as_a_whole(task: Task) -> None:
    sorted_out = task.sort_out(1, 1)
    assert [row["id"] for row in sorted_out.outdated] == [0, 1]
    assert not is_revoked(task.folder, 0, 0)


def test_what_is_forced_is_computed_anew_if_it_has_ended_and_goes_on_if_it_runs(task: Task) -> None:
    (task.folder / "out0").touch()
    task.outcomes, task.forced = {0: ENDED}, {"r"}
    sorted_out = task.sort_out(0, 0)
    assert ids(sorted_out.fresh) == ["k0"]
    assert ids(sorted_out.under_way) == ["k1"]
