"""What a cluster allocated: the executor's journal joined with sacct, one row for every attempt of every task.

Ids are used again when slurmctld loses its memory, and a requeue changes the time of submission: the key of a job is
(id, unique name), and its rows in sacct are its attempts. Imports no torch.
"""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd

from scatterproof.cost.sacct import COLUMNS as SACCT_COLUMNS
from scatterproof.errors import UserError
from snakemake_executor_plugin_submitit.journal import JournalError, connect

COLUMNS = ["rule", "job", "attempt", "attempt_name", "state", "partition", "node", "gpus", "submit", "queue_s"]
COLUMNS += ["elapsed_s", "allocated_gpu_minutes", "cpu_minutes", "mem_mb", "wasted", "source", "job_id", "name"]
LIVE = {"PENDING", "RUNNING", "INTENDED", "SUSPENDED", "COMPLETING", "CONFIGURING"}

TASKS = """
SELECT cells.submission AS name, cells.task, MAX(cells.job_id) AS job_id, cells.rule, MIN(cells.name) AS cell,
    COUNT(*) AS cells, MAX(cells.state) AS state, MAX(cells.node) AS node, submissions.request, submissions.submitted,
    MIN(cells.task_started) AS task_started, MAX(cells.ended) AS ended
FROM cells JOIN submissions ON cells.submission = submissions.name
WHERE cells.state NOT IN ('REJECTED', 'REVOKED')
GROUP BY cells.submission, cells.task ORDER BY MIN(cells.id)
"""


class AllocationsError(UserError):
    """A journal that cannot be read; it is left as it is."""


def read_tasks(journal: Path) -> pd.DataFrame:
    """Every task that was submitted, one row each, in order. The journal is only read. Raises: AllocationsError."""
    try:
        database = connect(journal, read_only=True)
        rows = [dict(row) for row in database.execute(TASKS)]
        database.close()
    except (JournalError, sqlite3.Error) as error:
        raise AllocationsError(str(error)) from None
    columns = ["name", "task", "job_id", "rule", "cell", "cells", "state", "node", "submitted", "task_started", "ended"]
    tasks = pd.DataFrame(rows, columns=[*columns, "request"])
    requests = [_request(journal, row) for row in rows]
    tasks["asked_gpus"] = [float(request.get("gpus", 0)) for request in requests]
    return tasks


def _request(journal: Path, row: dict[str, object]) -> dict[str, float]:
    try:
        found = json.loads(str(row["request"]))
        assert isinstance(found, dict)
    except (ValueError, AssertionError):
        raise AllocationsError(f"{journal}: submission {row['name']} has no readable request") from None
    return found


def allocations(tasks: pd.DataFrame, accounted: pd.DataFrame | None) -> pd.DataFrame:
    """One row an attempt: state, node, GPUs, queue and elapsed time, minutes allocated. `accounted`: of read_sacct.

    `source` is `sacct` where SLURM says what was held, `requested` where GPUs are those of the request, and `measured`
    where SLURM says nothing and the task's own clock stands in. Building it again changes nothing.
    """
    accounted = pd.DataFrame(columns=SACCT_COLUMNS) if accounted is None else accounted
    accounted = accounted.drop_duplicates(["job_id", "name", "start", "submit", "state"], keep="last")
    table = tasks.merge(accounted, on=["job_id", "name"], how="left", suffixes=("_journal", ""), sort=False)
    known = table["state"].notna()
    started, ended = table["task_started"].astype(float), table["ended"].astype(float)
    elapsed = table["elapsed_s"].astype(float).where(known, ended - started)
    gpus = table["gpus"].astype(float)
    counted = known & gpus.notna()
    said = counted | (known & (table["asked_gpus"] == 0))
    asked = table["asked_gpus"].where(elapsed > 0, 0.0)
    gpus = gpus.where(counted, asked)
    state = table["state"].where(known, table["state_journal"])
    job = table["cell"].astype(str).where(table["cells"] <= 1, table["cell"].astype(str) + "+")
    attempt = table.groupby([table["rule"], job, table["task"]], sort=False).cumcount() + 1
    found = pd.DataFrame(
        {
            "rule": table["rule"],
            "job": job,
            "attempt": attempt,
            "attempt_name": table["rule"].astype(str) + "/" + job + "." + attempt.astype(str),
            "state": state,
            "partition": table["partition"].where(known, ""),
            "node": table["node"].where(known, table["node_journal"]),
            "gpus": gpus,
            "submit": table["submit"].astype(float).where(known, table["submitted"].astype(float)),
            "queue_s": (table["start"].astype(float) - table["submit"].astype(float)).clip(lower=0),
            "elapsed_s": elapsed,
            "allocated_gpu_minutes": (gpus * elapsed / 60).where(gpus > 0, 0.0),
            "cpu_minutes": table["cpu_s"].astype(float) / 60,
            "mem_mb": table["mem_mb"].astype(float),
            "wasted": ~state.isin({"COMPLETED"} | LIVE),
            "source": np.select([said, known], ["sacct", "requested"], "measured"),
            "job_id": table["job_id"],
            "name": table["name"],
        }
    )
    return found[COLUMNS]
