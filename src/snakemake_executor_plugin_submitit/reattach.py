"""Jobs of earlier controllers: gone on with where they do what is wanted now, else ended before others start."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from logging import Logger
from pathlib import Path
from typing import Any, NamedTuple

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.begun import changed_since, has_begun, revoke_cell
from snakemake_executor_plugin_submitit.fencing import fence
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.signature import difference, inputs_of, kept_outputs, members
from snakemake_executor_plugin_submitit.slurm import SlurmError
from snakemake_executor_plugin_submitit.status import Outcome, Watch
from snakemake_executor_plugin_submitit.submitter import Submitter

Row = dict[str, Any]  # of the journal
TaskKey = tuple[str, int]
Cells = Sequence[tuple[JobExecutorInterface, Row]]  # jobs and what `cell_rows.describe` says of them
OUT_OF_DATE = "out of date"


class SortedOut(NamedTuple):
    """Jobs that go on as these rows; rows whose tasks must end; jobs to submit."""

    under_way: list[tuple[JobExecutorInterface, Row]]
    outdated: list[Row]
    fresh: list[tuple[JobExecutorInterface, Row]]


class Reattacher:
    """What earlier controllers have left open; `known` by key, without what has been sorted out.

    signature: of a job, as it would be submitted now.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        journal: Journal,
        watch: Watch,
        logger: Logger,
        signature: Callable[[JobExecutorInterface], str],
    ) -> None:
        self.known = {row["key"]: row for row in rows}
        self.journal, self.watch, self.logger, self.signature = journal, watch, logger, signature

    def sort_out(self, cells: Cells) -> SortedOut:
        """Which of these cells go on, which begin, and which earlier ones must end first."""
        open_rows = list(self.known.values())
        rows = self._rows_of(cells)
        outcomes = self.watch.poll(list(rows.values())) if rows else {}
        stale: dict[int, Row] = {}
        sorted_out = SortedOut([], [], [])
        for job, cell in cells:
            row = rows.get(cell["key"])
            if row is not None and self._goes_on(job, cell, row, outcomes.get(row["id"]), stale):
                sorted_out.under_way.append((job, row))
            else:
                sorted_out.fresh.append((job, cell))
        ending = self._tasks_to_end(stale, open_rows)
        for job, row in [pair for pair in sorted_out.under_way if _task(pair[1]) in ending]:
            if row["id"] in outcomes and outcomes[row["id"]].ended:
                continue  # its result counts, whatever becomes of its task
            sorted_out.under_way.remove((job, row))
            sorted_out.fresh.append((job, next(cell for one, cell in cells if one is job)))
            stale[row["id"]] = row
        sorted_out.outdated.extend(row for row in stale.values() if _task(row) in ending)
        sorted_out.outdated.extend(self._in_the_way(sorted_out.fresh))
        return sorted_out

    def _rows_of(self, cells: Cells) -> dict[str, Row]:
        """The earlier row of each cell, by the cell's key: its own, or that of a group of which it is what is left."""
        makers = {path: row for row in self.known.values() for path in row["outputs"]}
        rows: dict[str, Row] = {}
        for _, cell in cells:
            row = self.known.get(cell["key"])
            of_group = [makers.get(path) for path in cell["outputs"]]
            if row is None and of_group and of_group[0] and all(one is of_group[0] for one in of_group):
                row = self.known.get(of_group[0]["key"])
            if row is not None:
                rows[cell["key"]] = self.known.pop(row["key"])
        return rows

    def _goes_on(
        self, job: JobExecutorInterface, cell: Row, row: Row, outcome: Outcome | None, stale: dict[int, Row]
    ) -> bool:
        """Whether a job counts as this row. One that still runs, but must not, becomes `stale`."""
        folder = Path(row["folder"])
        if outcome is not None and outcome.lost:
            fence(folder, row["task"], "lost")
        ended = outcome is not None and outcome.ended
        why = self._difference(job, cell, row, outcome.columns.get("started") if outcome and ended else None)
        if ended:
            assert outcome is not None
            whole = outcome.exit == 0 and all(map(os.path.lexists, kept_outputs(job)))
            if why or not whole or _is_forced(job):
                self.journal.change([outcome.change(row["id"]) | {"settled": 1}])
                return False
        elif why:
            self.logger.warning(
                f"{cell['rule']} {cell['name']}: job {row['job_id']} is {OUT_OF_DATE} and is cancelled: {why}"
            )
            stale[row["id"]] = row
            return False
        self.logger.info(f"{cell['rule']} {cell['name']}: going on with job {row['job_id']}")
        return True

    def _difference(self, job: JobExecutorInterface, cell: Row, row: Row, started: float | None) -> str | None:
        """Why a row is not what is wanted now, if it is not."""
        if row["state"] == "CANCELLED":
            return "it was cancelled"
        changes = self._changes(job, cell, row)
        if changes:
            return f"changed: {', '.join(changes)}"
        inputs = sorted({*inputs_of(job)} - {*row["outputs"]})  # what a group has made for itself is no input
        path = changed_since(Path(row["folder"]), row["task"], row["cell"], inputs, started)
        return f"changed since it began: {path}" if path else None

    def _changes(self, job: JobExecutorInterface, cell: Row, row: Row) -> list[str]:
        """What has changed of a job. Resources may grow with attempts: those of the row's attempt count."""
        if row["attempt"] == job.attempt:
            return difference(row["signature"], cell["signature"])
        attempt = job.attempt
        job.attempt = row["attempt"]  # it goes on as this attempt, so that its retries are counted on
        changes = difference(row["signature"], self.signature(job))
        if changes:
            job.attempt = attempt
        return changes

    def _tasks_to_end(self, stale: dict[int, Row], open_rows: Sequence[Row]) -> set[TaskKey]:
        """Tasks that have nothing else left, or are at a stale cell; of the others the stale cells are taken out."""
        left: dict[TaskKey, set[int]] = defaultdict(set)
        for row in open_rows:
            left[_task(row)].add(row["id"])
        ending = {_task(row) for row in stale.values() if left[_task(row)] <= stale.keys()}
        taken_out = []
        for row in stale.values():
            place = (Path(row["folder"]), row["task"], row["cell"])
            if _task(row) in ending:
                continue
            if has_begun(*place) or not revoke_cell(*place, OUT_OF_DATE):
                ending.add(_task(row))
            else:
                taken_out.append({"id": row["id"], "state": "REVOKED", "settled": 1, "detail": OUT_OF_DATE})
        self.journal.change(taken_out)
        return ending

    def _in_the_way(self, fresh: Cells) -> list[Row]:
        """Rows that write what these cells are to write, though they are not the same (groups)."""
        writers = {path: row for row in self.known.values() for path in row["outputs"]}
        rows = {writers[path]["id"]: writers[path] for _, cell in fresh for path in cell["outputs"] if path in writers}
        for row in rows.values():
            self.known.pop(row["key"], None)
        return list(rows.values())

    def close_ended(self) -> None:
        """Settle what has ended and was not asked for in this run."""
        unasked = list(self.known.values())
        self.watch.asked = 0.0
        outcomes = self.watch.poll(unasked) if unasked else {}
        ended = {number: outcome for number, outcome in outcomes.items() if outcome.ended}
        self.journal.change([one.change(number) | {"settled": 1} for number, one in ended.items()])


def earlier_rows(submitter: Submitter, logger: Logger) -> list[Row]:
    """Open cells of earlier controllers; waits for minutes where SLURM does not answer. Raises: WorkflowError."""
    for attempt in range(60):
        try:
            rows = submitter.recover()
            if rows:
                logger.info(f"The journal knows {len(rows)} jobs of earlier runs that are not settled.")
            return rows
        except SlurmError as error:
            logger.warning(f"{error}; waiting for it, to find the jobs of an earlier run")
            time.sleep(min(10, 1 + attempt))
    raise WorkflowError("SLURM does not answer, and jobs of an earlier run may be under way: try again later")


def _is_forced(job: Any) -> bool:
    """Whether the user asks for it whatever there is: then what ended before does not count.

    Snakemake also forces what is marked as incomplete. That is no wish: all that ended with no controller is.
    """
    return any(one.rule in one.dag.forcerules or _asked_for(one) for one in members(job))


def _asked_for(one: Any) -> bool:
    files = one.dag.forcefiles.intersection(one.output)
    if not files:
        return False
    workflow = one.dag.workflow
    return bool(files - {*workflow.async_run(workflow.persistence.incomplete(one))})


def _task(row: Row) -> TaskKey:
    return row["submission"], row["task"]
