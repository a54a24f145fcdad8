"""Jobs of earlier controllers: gone on with where they do what is wanted now, else ended before others start."""

import os
from collections.abc import Sequence
from logging import Logger
from pathlib import Path
from typing import Any, NamedTuple

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.cells import newest_input
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.starts import fence
from snakemake_executor_plugin_submitit.status import Outcome, Watch

Row = dict[str, Any]  # of the journal
Cells = Sequence[tuple[JobExecutorInterface, Row]]  # jobs and what `cells.describe` says of them


class SortedOut(NamedTuple):
    """Jobs that go on as these rows; rows that are in the way of others; jobs to submit."""

    under_way: list[tuple[JobExecutorInterface, Row]]
    outdated: list[Row]
    fresh: list[tuple[JobExecutorInterface, Row]]


class Earlier:
    """What earlier controllers have left open; `known` by key, without what has been sorted out."""

    def __init__(self, rows: Sequence[Row], journal: Journal, watch: Watch, logger: Logger) -> None:
        self.known = {row["key"]: row for row in rows}
        self.journal, self.watch, self.logger = journal, watch, logger

    def sort_out(self, cells: Cells) -> SortedOut:
        """Which of these cells go on, which begin, and which earlier ones must end first."""
        rows = {cell["key"]: self.known.pop(cell["key"]) for _, cell in cells if cell["key"] in self.known}
        outcomes = self.watch.poll(list(rows.values())) if rows else {}
        stale = {_task(rows[cell["key"]]) for _, cell in cells if self._is_stale(cell, rows, outcomes)}
        found = SortedOut([], [], [])
        for job, cell in cells:
            row = rows.get(cell["key"])
            if row is not None and _task(row) in stale:
                found.outdated.append(row)
            elif row is not None and self._goes_on(job, cell, row, outcomes.get(row["id"])):
                found.under_way.append((job, row))
                continue
            found.fresh.append((job, cell))
        found.outdated.extend(self._in_the_way(found.fresh))
        return found

    def _is_stale(self, cell: Row, rows: dict[str, Row], outcomes: dict[int, Outcome]) -> bool:
        """Whether a job still runs, but does not do what is wanted now."""
        row = rows.get(cell["key"])
        if row is None or (row["id"] in outcomes and outcomes[row["id"]].ended):
            return False
        if row["signature"] == cell["signature"] and row["state"] != "CANCELLED":
            return False
        self.logger.warning(f"{cell['rule']} {cell['name']}: job {row['job_id']} is out of date and is cancelled")
        return True

    def _goes_on(self, job: JobExecutorInterface, cell: Row, row: Row, outcome: Outcome | None) -> bool:
        """Whether a job goes on as this row, which has not ended in a way that does not count."""
        if outcome is not None and outcome.lost:
            fence(Path(row["folder"]), row["task"], "lost")
        if outcome is not None and outcome.ended:
            whole = outcome.exit == 0 and all(os.path.lexists(path) for path in cell["outputs"])
            same = row["signature"] == cell["signature"] and newest_input(job) <= outcome.columns.get("started", 0)
            if not (whole and same):
                self.journal.change([outcome.change(row["id"]) | {"settled": 1}])
                return False
        self.logger.info(f"{cell['rule']} {cell['name']}: going on with job {row['job_id']}")
        return True

    def _in_the_way(self, fresh: Cells) -> list[Row]:
        """Rows that write what these cells are to write, though they are not the same (groups)."""
        writers = {path: row for row in self.known.values() for path in row["outputs"]}
        found = {writers[path]["id"]: writers[path] for _, cell in fresh for path in cell["outputs"] if path in writers}
        for row in found.values():
            self.known.pop(row["key"], None)
        return list(found.values())


def _task(row: Row) -> tuple[str, int]:
    return row["submission"], row["task"]
