"""One start of a task at a time, over requeues, nodes that are cut off, and submissions that were given up.

`INDEX.run1`, `.run2` ...: one file for each start of the task, made exclusively. The controller makes `.run1` itself,
with `revoked` in it, where it gives up a submission whose fate it cannot learn: should the task start after all, it
ends without a word of work. The file's time is the heartbeat of that start; `.ended` beside it is its end, and
`.holds`, where a task waits for GPUs, the moment that it had them.
"""

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]

from snakemake_executor_plugin_submitit.shared_files import age, read_json, write_json

HEARTBEAT_S = 5.0
STALE_S = 4 * HEARTBEAT_S  # a start that has been silent for so long is dead
LAUNCH_S = 5.0  # SLURM counts from before a task's first word on, and until after its last


def run_file(folder: Path, index: int, number: int) -> Path:
    """The file of a task's start, numbered from 1."""
    return folder / f"{index}.run{number}"


def revoke(folder: Path, index: int, why: str) -> bool:
    """Keep a task from ever starting; false if it has started before."""
    try:
        with run_file(folder, index, 1).open("x") as file:
            json.dump({"revoked": why}, file)
    except FileExistsError:
        return "revoked" in read_json(run_file(folder, index, 1))
    return True


def fence(folder: Path, index: int, why: str) -> None:
    """Keep a task from starting again, and have one that still runs make way."""
    number = 1
    while True:
        try:
            with run_file(folder, index, number).open("x") as file:
                json.dump({"revoked": why}, file)
            return
        except FileExistsError:
            if "revoked" in read_json(run_file(folder, index, number)):
                return
            number += 1


def last_start(folder: Path, index: int) -> tuple[int, dict[str, Any], float]:
    """Number (0: none), content and age in seconds of a task's latest start; an ended one is infinitely old."""
    number = 0
    while run_file(folder, index, number + 1).exists():
        number += 1
    path = run_file(folder, index, number)
    ended = path.with_name(path.name + ".ended").exists()
    return number, read_json(path) if number else {}, float("inf") if ended or not number else age(path)


def seconds_held(folder: Path, index: int, overrun_s: float = 0.0) -> list[float]:
    """How long each start of a task has held what the task asked for, by its own clock: rounded up, never below.

    overrun_s: seconds that a job which died without a word may have held its node after its last sign of life.
    """
    lengths: list[float] = []
    last = last_start(folder, index)[0]
    for number in range(1, last + 1):
        path = run_file(folder, index, number)
        run, ended = read_json(path), path.with_name(path.name + ".ended")
        holds = path.with_name(path.name + ".holds")
        if "created" not in run:
            break  # revoked: there is no start after that
        if run.get("waits") and not holds.exists():
            lengths.append(0.0)
            continue
        edge = 0.0 if run.get("waits") else LAUNCH_S
        begin = holds.stat().st_mtime if run.get("waits") else run.get("allocated", run["created"] - LAUNCH_S)
        if ended.exists():
            end = ended.stat().st_mtime
        else:
            following = read_json(run_file(folder, index, number + 1)).get("created", float("inf"))
            end = min(path.stat().st_mtime + HEARTBEAT_S + overrun_s, following)
        lengths.append(max(0.0, end - begin) + edge)
    return lengths


def allocated_at() -> float:
    """When SLURM began to count for this process's job, its prolog included, as a Unix time."""
    return float(os.environ.get("SLURM_JOB_START_TIME") or psutil.Process().create_time() - LAUNCH_S)


def grant(folder: Path, index: int, number: int) -> None:
    """Let a start of a task take the whole time limit, whatever the starts before it have taken."""
    write_json(folder / f"{index}.grant.json", {"start": number})


def granted(folder: Path, index: int) -> int:
    """The latest start of a task that may take the whole time limit."""
    return int(read_json(folder / f"{index}.grant.json").get("start", 1))


class Start:
    """This process's start of a task; `waits`: it has no GPUs yet, and will say when it `holds` them."""

    def __init__(self, folder: Path, index: int, job_id: str, waits: bool = False) -> None:
        self.folder, self.index, self.job_id, self.waits = folder, index, job_id, waits
        self.number = 0

    def take(self) -> bool:
        """Take the next number, and wait until no earlier start is alive; false where the task is not ours to run."""
        created = psutil.Process().create_time()
        me = {"job_id": self.job_id, "node": socket.gethostname(), "pid": os.getpid(), "created": created}
        me |= {"waits": True} if self.waits else {"allocated": allocated_at()}
        number = 1
        while True:
            try:
                with run_file(self.folder, self.index, number).open("x") as file:
                    json.dump(me, file)
                break
            except FileExistsError:
                other = read_json(run_file(self.folder, self.index, number))
                if other.get("job_id") != self.job_id:
                    print(f"not ours to run: {other}", file=sys.stderr)
                    return False
                number += 1
        self.number = number
        if number > 1:
            self._await_death(run_file(self.folder, self.index, number - 1))
        return True

    def _await_death(self, path: Path) -> None:
        """Wait until the start before this one has ended or is silent: a lost node's processes may run on."""
        while not path.with_name(path.name + ".ended").exists() and age(path) < STALE_S:
            run = read_json(path)
            if run.get("node") == socket.gethostname() and not _alive(run):
                return
            time.sleep(0.2)

    def superseded(self) -> bool:
        """Say that we live; true where a newer start exists and we must make way."""
        with suppress(OSError):
            os.utime(run_file(self.folder, self.index, self.number))
        return run_file(self.folder, self.index, self.number + 1).exists()

    def holds(self) -> None:
        """Say that this start has its GPUs."""
        path = run_file(self.folder, self.index, self.number)
        path.with_name(path.name + ".holds").touch()

    def end(self) -> None:
        """Let a later start go on at once."""
        with suppress(OSError):
            path = run_file(self.folder, self.index, self.number)
            path.with_name(path.name + ".ended").touch()


def _alive(run: dict[str, Any]) -> bool:
    """Whether the process of a start on this very machine lives."""
    try:
        process = psutil.Process(run["pid"])
        return bool(process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - run["created"]) < 2)
    except (psutil.Error, KeyError):
        return False
