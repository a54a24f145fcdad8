"""What a cluster allocated: the executor's journal joined with sacct, one row for every attempt of every task.

Ids are used again when slurmctld loses its memory, and a requeue changes the time of submission: the key of a job is
(id, unique name), and its rows in sacct are its attempts.
"""

import json
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from scatterproof.cost.kept import began
from scatterproof.cost.sacct import Row
from scatterproof.cost.states import is_live
from scatterproof.errors import UserError
from snakemake_executor_plugin_submitit.journal import JournalError, connect
from snakemake_executor_plugin_submitit.requests import gpus_in

CELLS = """
SELECT cells.id, cells.submission AS name, cells.task, cells.job_id, cells.rule, cells.name AS job, cells.outputs,
    cells.state, cells.node, cells.started, cells.task_started, cells.ended,
    submissions.cluster, submissions.request, submissions.submitted
FROM cells JOIN submissions ON cells.submission = submissions.name
WHERE cells.state NOT IN ('REJECTED', 'REVOKED') ORDER BY cells.id
"""


WAITING = ("INTENDED", "PENDING", "CONFIGURING")


class AllocationsError(UserError):
    """A journal that cannot be read: names file and row; it is left as it is."""


def read_tasks(journal: Path, results: Path | None = None) -> list[Row]:
    """Every task that was submitted, in order; off SLURM, every cell. The journal is only read.

    results: the folder of a study, `results/<study>`; tasks of other studies are left out. A project that was moved
    keeps its own: the folder's last two names must stand last in the path of an output.
    Raises: AllocationsError.
    """
    try:
        cells = _read(journal)
    except (JournalError, sqlite3.Error, OSError) as error:
        text = str(error)
        raise AllocationsError(text if str(journal) in text else f"{journal}: cannot be read: {text}") from None
    groups: dict[Any, list[Row]] = defaultdict(list)
    above, study = results.absolute().parts[-2:] if results else ("", "")
    for cell in cells:
        outputs = _outputs(journal, cell)
        if results is None or any(path.rpartition(f"/{above}/")[2].startswith(f"{study}/") for path in outputs):
            groups[(cell["name"], cell["task"], "" if cell["cluster"] == "slurm" else cell["id"])].append(cell)
    requests: dict[str, Row] = {}
    for cell in cells:
        if cell["name"] not in requests:
            requests[cell["name"]] = _request(journal, cell)
    return [_task(group, requests[group[0]["name"]]) for group in groups.values()]


def _read(journal: Path) -> list[Row]:
    """Every cell with its submission. A controller that was killed while it wrote leaves a transaction to roll back,
    which only a writer may do: that is done to a copy."""
    unfinished = journal.with_name(journal.name + "-journal")
    try:
        return _query(journal, read_only=True)
    except JournalError as error:
        if "readonly database" not in str(error) or not unfinished.exists():
            raise
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, journal.name)
        shutil.copy(unfinished, copy.with_name(unfinished.name))  # first: it stays true of what it is to undo
        shutil.copy(journal, copy)
        if unfinished.exists():
            return _query(copy, read_only=False)
    return _query(journal, read_only=True)  # the next controller has rolled it back meanwhile


def _query(journal: Path, read_only: bool) -> list[Row]:
    with closing(connect(journal, read_only)) as database:
        return [dict(row) for row in database.execute(CELLS)]


def _outputs(journal: Path, cell: Row) -> list[str]:
    try:
        outputs = json.loads(cell["outputs"])
    except (ValueError, TypeError):
        outputs = None
    if not isinstance(outputs, list) or not all(isinstance(path, str) for path in outputs):
        raise AllocationsError(f"{journal}: cells, row {cell['id']}: outputs are no list of paths; it is left as it is")
    return outputs


def _request(journal: Path, cell: Row) -> Row:
    """GPUs and partition that a submission asked for."""
    try:
        asked = json.loads(cell["request"])
        gpus = float(asked.get("gpus") or gpus_in(asked.get("slurm_gres") or "")) * int(asked.get("nodes", 1))
        return {"asked_gpus": gpus, "asked_partition": str(asked.get("slurm_partition") or "")}
    except (ValueError, TypeError, AttributeError):
        raise AllocationsError(
            f"{journal}: submissions, row {cell['name']!r}: no readable request; it is left as it is"
        ) from None


def _task(cells: list[Row], request: Row) -> Row:
    """One row for the cells that a task runs one after the other."""
    first, states = cells[0], [cell["state"] for cell in cells]
    ends = [cell["ended"] for cell in cells]
    slurm = first["cluster"] == "slurm"
    starts = [cell["task_started" if slurm else "started"] for cell in cells]
    return {
        **{key: first[key] for key in ("name", "task", "job_id", "rule", "cluster", "submitted")},
        **request,
        "jobs": [job_name(str(cell["job"])) for cell in cells],
        "state": next((state for state in states if state != "COMPLETED"), "COMPLETED"),
        "node": next((cell["node"] for cell in cells if cell["node"]), ""),
        "started": min((start for start in starts if start is not None), default=None),
        "ended": max(ends) if None not in ends else None,
    }


def job_name(cell: str) -> str:
    """A cell's name in the journal as a job's own record has it: wildcards with points between."""
    return cell.partition("#")[0].replace(",", ".")


def allocations(tasks: Iterable[Row], accounted: Iterable[Row]) -> list[Row]:
    """One row an attempt: state, node, GPUs, queue and elapsed time. `accounted`: of read_sacct.

    `source` is `sacct` where SLURM says what was held, `requested` where GPUs are those of the request, and `measured`
    where SLURM says nothing, or not yet, and the task's own clock stands in. Building it again changes nothing.
    """
    said: dict[tuple[str, str], dict[float, Row]] = defaultdict(dict)
    for row in sorted(accounted, key=lambda row: is_live(row["state"], row["end"]), reverse=True):
        said[row["job_id"], row["name"]][began(row)] = row  # what has ended stands for what was still live
    rows = []
    for task in tasks:
        attempts = sorted(said.get((task["job_id"], task["name"]), {}).values(), key=began)
        if task["cluster"] != "slurm" or not attempts:
            rows.append(_unaccounted(task))
            continue
        rows += [_accounted(task, row) for row in attempts]
        if is_live(attempts[-1]["state"], attempts[-1]["end"]) and task["ended"] and not is_live(task["state"]):
            rows[-1] |= _ended(rows[-1], task)
        if task["state"] == "BUDGET" and attempts[-1]["state"] == "FAILED":
            rows[-1]["state"] = "BUDGET"  # it ended itself, to be submitted again: SLURM knows but its exit status
    return rows


def _shared(task: Row) -> Row:
    return {key: task[key] for key in ("rule", "jobs", "cluster", "job_id", "name", "asked_gpus")}


def _unaccounted(task: Row) -> Row:
    started, ended = task["started"], task["ended"]
    elapsed = max(0.0, ended - started) if started and ended else None
    return _shared(task) | {
        "state": task["state"],
        "partition": task["asked_partition"] if task["cluster"] == "slurm" else "local",
        "node": task["node"],
        "gpus": 0.0 if task["state"] in WAITING else task["asked_gpus"],
        "submit": task["submitted"],
        "start": started,
        "end": ended,
        "queue_s": None,
        "elapsed_s": elapsed,
        "cpu_s": None,
        "allocated_mem_mb": None,
        "source": "measured",
    }


def _accounted(task: Row, row: Row) -> Row:
    counted = row["gpus"] is not None or task["asked_gpus"] == 0 or not row["elapsed_s"]
    queued = row["start"] is not None and row["submit"] is not None
    return _shared(task) | {
        **{key: row[key] for key in ("state", "partition", "node", "submit", "start", "end", "elapsed_s", "cpu_s")},
        "gpus": (row["gpus"] or 0.0) if counted else task["asked_gpus"],
        "queue_s": max(0.0, row["start"] - row["submit"]) if queued else None,
        "allocated_mem_mb": row["mem_mb"],
        "source": "sacct" if counted else "requested",
    }


def _ended(attempt: Row, task: Row) -> Row:
    """An attempt that sacct, which lags, still calls live, by the journal."""
    started = attempt["start"] or task["started"]
    elapsed = max(0.0, task["ended"] - started) if started else None
    gpus = attempt["gpus"] if attempt["start"] else task["asked_gpus"] if elapsed else 0.0
    return {"state": task["state"], "end": task["ended"], "elapsed_s": elapsed, "gpus": gpus, "source": "measured"}
