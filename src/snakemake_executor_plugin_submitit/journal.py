"""The journal: one SQLite file that knows every submission, cell, attempt and state, written by one controller.

A controller holds a lease while it writes. One that was killed leaves the journal as it was after its last transaction;
the next one takes the lease over and goes on from there. Write-ahead logging is not used: network file systems, where
clusters keep working directories, do not support it.
"""

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil  # type: ignore[import-untyped,unused-ignore]

VERSION = 1
HEARTBEAT_S = 10.0
LEASE_S = 180.0  # a controller on another host that has been silent for so long is dead

SCHEMA = """
CREATE TABLE lease (one INTEGER PRIMARY KEY CHECK (one = 1),
    token TEXT, host TEXT, pid INTEGER, created REAL, heartbeat REAL);
CREATE TABLE submissions (name TEXT PRIMARY KEY, rule TEXT, attempt INTEGER, cluster TEXT, request TEXT, folder TEXT,
    controller TEXT, intended REAL, job_id TEXT, submitted REAL);
CREATE TABLE cells (id INTEGER PRIMARY KEY, submission TEXT REFERENCES submissions (name), task INTEGER, cell INTEGER,
    key TEXT, signature TEXT, rule TEXT, name TEXT, outputs TEXT, attempt INTEGER, log TEXT, job_id TEXT,
    state TEXT, reason TEXT, node TEXT, started REAL, ended REAL, task_started REAL, work_s REAL, settled INTEGER);
CREATE INDEX cells_by_key ON cells (key, settled);
CREATE TABLE events (time REAL, cell INTEGER REFERENCES cells (id), state TEXT, detail TEXT);
"""


class JournalError(Exception):
    """The journal can't be used: another controller holds it, or it is not one; says which and what to do."""


class LeaseLostError(JournalError):
    """Another controller has taken the journal over while this one was silent."""


class Journal:
    """One controller's hold on the journal. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Open or make the journal and take its lease. Raises: JournalError."""
        self.path = path
        self.token = uuid4().hex
        self._lock = threading.RLock()
        self._db = connect(path)
        self._take_lease()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and only while the lease is ours. Raises: LeaseLostError."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                held = self._db.execute("UPDATE lease SET heartbeat = ? WHERE token = ?", (time.time(), self.token))
                if held.rowcount != 1:
                    raise LeaseLostError(f"{self.path}: another controller has taken over; this one stops")
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._commit()

    def _commit(self) -> None:
        self._db.execute("COMMIT")

    def _take_lease(self) -> None:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            row = self._db.execute("SELECT * FROM lease").fetchone()
            if row is not None and _alive(row):
                self._db.execute("ROLLBACK")
                raise JournalError(
                    f"{self.path}: the controller with process id {row['pid']} on {row['host']} is at work here (last "
                    f"sign of life {time.time() - row['heartbeat']:.0f} s ago). Wait for it, or end it; its jobs stay."
                )
            me = (self.token, socket.gethostname(), os.getpid(), psutil.Process().create_time(), time.time())
            self._db.execute("INSERT OR REPLACE INTO lease VALUES (1, ?, ?, ?, ?, ?)", me)
            self._commit()

    def heartbeat(self) -> None:
        """Say that this controller lives."""
        with self.transaction():
            pass

    def holds(self) -> bool:
        """Whether the lease is still ours."""
        try:
            self.heartbeat()
        except (JournalError, sqlite3.Error):
            return False
        return True

    def keep(self, closed: threading.Event) -> None:
        """Say that we live until `closed`, whatever the other threads wait for."""
        while not closed.wait(HEARTBEAT_S):
            if not self.holds():
                return  # the next write says why

    def close(self) -> None:
        """Give the lease back."""
        with self._lock:
            self._db.execute("DELETE FROM lease WHERE token = ?", (self.token,))
            self._db.close()

    # what is going on

    def intend(self, submission: dict[str, Any], cells: list[dict[str, Any]]) -> list[int]:
        """Write down a submission before it is made; the ids of its cells."""
        with self.transaction() as db:
            _insert(db, "submissions", submission | {"controller": self.token, "intended": time.time()})
            ids = []
            for cell in cells:
                row = cell | {"submission": submission["name"], "state": "INTENDED", "settled": 0}
                ids.append(_insert(db, "cells", row | {"outputs": json.dumps(cell["outputs"])}))
            _note(db, [(number, "INTENDED", "") for number in ids])
        return ids

    def submitted(self, name: str, job_id: str, task_ids: dict[int, str]) -> None:
        """Write down what the cluster called a submission and each of its tasks."""
        with self.transaction() as db:
            db.execute("UPDATE submissions SET job_id = ?, submitted = ? WHERE name = ?", (job_id, time.time(), name))
            open_cells = "SELECT id, task FROM cells WHERE submission = ? AND settled = 0"
            taken = [row for row in db.execute(open_cells, (name,)).fetchall() if row["task"] in task_ids]
            db.executemany(
                "UPDATE cells SET job_id = ?, state = 'PENDING' WHERE id = ?",
                [(task_ids[row["task"]], row["id"]) for row in taken],
            )
            rows = db.execute("SELECT id, job_id FROM cells WHERE submission = ?", (name,)).fetchall()
            _note(db, [(row["id"], "PENDING", f"job {row['job_id']}") for row in rows])

    def change(self, changes: list[dict[str, Any]]) -> None:
        """Write down new states of cells: dicts of `id`, `state`, `detail` and any column of a cell."""
        if not changes:
            return
        with self.transaction() as db:
            for change in changes:
                columns = {key: value for key, value in change.items() if key not in ("id", "detail")}
                assignments = ", ".join(f"{key} = ?" for key in columns)
                db.execute(f"UPDATE cells SET {assignments} WHERE id = ?", (*columns.values(), change["id"]))
            noted = [(c["id"], c["state"], c.get("detail", "")) for c in changes if "state" in c]
            _note(db, noted)

    def open_cells(self) -> list[dict[str, Any]]:
        """Cells that are not settled: under way, or ended unknown to Snakemake; with columns of their submission."""
        with self._lock:
            rows = self._db.execute(
                "SELECT cells.*, folder, cluster, request, intended, submitted FROM cells"
                " JOIN submissions ON cells.submission = submissions.name WHERE settled = 0 ORDER BY cells.id"
            ).fetchall()
        return [dict(row) | {"outputs": json.loads(row["outputs"])} for row in rows]

    def tasks(self) -> list[dict[str, Any]]:
        """See tasks_in."""
        with self._lock:
            return tasks_in(self._db, self.path)

    def open_ids(self) -> dict[int, tuple[str, int]]:
        """Cells that are not settled: the submission and task of each."""
        with self._lock:
            rows = self._db.execute("SELECT id, submission, task FROM cells WHERE settled = 0").fetchall()
        return {row["id"]: (row["submission"], row["task"]) for row in rows}

    def remember(self, key: str, values: dict[tuple[str, int], Any]) -> None:
        """Keep a value for each of some tasks (submission, number) under a key of their submissions' requests."""
        if not values:
            return
        with self.transaction() as db:
            for name in {name for name, _ in values}:
                row = db.execute("SELECT request FROM submissions WHERE name = ?", (name,)).fetchone()
                request = request_in(self.path, {"submission": name, "request": row["request"]})
                kept = request.setdefault(key, {})
                kept |= {str(task): value for (one, task), value in values.items() if one == name}
                db.execute("UPDATE submissions SET request = ? WHERE name = ?", (json.dumps(request), name))

    def overhead(self, since: float) -> list[tuple[str, int, float, float]]:
        """For each rule: its cells that ended since, the minutes of their tasks, and of the rule's bodies in them."""
        with self._lock:
            rows = self._db.execute(
                "SELECT rule, SUM(n) AS n, SUM(busy) / 60 AS busy, SUM(work) / 60 AS work FROM ("
                " SELECT rule, COUNT(*) AS n, MAX(ended) - MIN(task_started) AS busy, SUM(work_s) AS work FROM cells"
                " WHERE ended >= ? AND work_s IS NOT NULL GROUP BY submission, task) GROUP BY rule ORDER BY busy DESC",
                (since,),
            ).fetchall()
        return [(row["rule"], row["n"], row["busy"], row["work"]) for row in rows]

    def finished_folders(self, before: float) -> list[str]:
        """Folders of submissions whose cells were all settled before a time."""
        with self._lock:
            rows = self._db.execute(
                "SELECT folder FROM submissions JOIN cells ON cells.submission = submissions.name"
                " GROUP BY submissions.name HAVING MIN(settled) = 1 AND MAX(COALESCE(ended, intended)) < ?",
                (before,),
            ).fetchall()
        return [row["folder"] for row in rows]


def connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    """Open a journal; made where it is missing, unless read-only. Raises: JournalError, the file left as it is."""
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        db = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if not read_only:
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("PRAGMA synchronous = FULL")
        if version == 0 and not read_only:
            tables = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
            if tables:
                raise JournalError(f"{path}: a database of something else, not a journal; it is left as it is")
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise JournalError(f"{path}: a journal of version {version}, this program knows {VERSION}")
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"{path}: cannot be used as a journal, and is left as it is: {error}") from None
    return db


def holder_lives(db: sqlite3.Connection) -> bool:
    """Whether a controller is at work on a journal."""
    row = db.execute("SELECT * FROM lease").fetchone()
    return row is not None and _alive(row)


def tasks_in(db: sqlite3.Connection, path: Path) -> list[dict[str, Any]]:
    """Every task of every submission: its cells, what it asked for (`request`, an object), when it ran."""
    rows = db.execute(
        "SELECT cells.submission, cells.task, cells.rule, COUNT(*) AS cells, MIN(cells.settled) AS settled,"
        " SUM(cells.state = 'COMPLETED') AS completed, MIN(cells.state IN ('REJECTED', 'REVOKED')) AS refused,"
        " MIN(cells.task_started) AS task_started, MAX(cells.ended) AS ended, submissions.request,"
        " submissions.cluster, submissions.folder, submissions.intended FROM cells"
        " JOIN submissions ON cells.submission = submissions.name GROUP BY cells.submission, cells.task"
        " ORDER BY MIN(cells.id)"
    ).fetchall()
    return [dict(row) | {"request": request_in(path, row)} for row in rows]


def request_in(path: Path, row: Any) -> dict[str, Any]:
    """What a submission asked for. Raises: JournalError naming it, where that cannot be read."""
    try:
        request = json.loads(row["request"])
    except (TypeError, ValueError):
        request = None
    if not isinstance(request, dict):
        raise JournalError(f"{path}: submission {row['submission']} has no readable request")
    for key in ("gpus", "minutes"):
        if not isinstance(request.get(key), int | None):
            raise JournalError(f"{path}: submission {row['submission']}: {key} is {request[key]!r}, not a number")
    return request


def _insert(db: sqlite3.Connection, table: str, row: dict[str, Any]) -> int:
    marks = ", ".join("?" * len(row))
    number = db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values())).lastrowid
    assert number is not None
    return number


def _note(db: sqlite3.Connection, events: list[tuple[int, str, str]]) -> None:
    now = time.time()
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", [(now, *event) for event in events])


def _alive(row: sqlite3.Row) -> bool:
    """Whether the holder of a lease lives: by its process on this host, by its heartbeat on another."""
    if row["host"] != socket.gethostname():
        return bool(time.time() - row["heartbeat"] < LEASE_S)
    try:
        process = psutil.Process(row["pid"])
        return bool(process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - row["created"]) < 2)
    except psutil.Error:
        return False
