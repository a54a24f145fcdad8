"""The end of jobs that are no longer wanted, and of a controller whose jobs may go on."""

import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from logging import Logger
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.fencing import revoke
from snakemake_executor_plugin_submitit.job_ids import by_cluster, submission_of
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.requests import clusters_in
from snakemake_executor_plugin_submitit.status import Watch


class Interrupts:
    """What an interrupt of the controller is to do: end its jobs, or leave them to the next run of the same command."""

    def __init__(self, detach: bool) -> None:
        self.detach = detach

    def listen(self) -> bool:
        """Leave the jobs from SIGUSR1 on; false where this thread cannot listen to signals."""
        if threading.current_thread() is not threading.main_thread():
            return False
        signal.signal(signal.SIGUSR1, self._on_detach)
        return True

    def _on_detach(self, *_: Any) -> None:
        self.detach = True
        raise KeyboardInterrupt

    def leave_jobs(self) -> bool:
        """Whether jobs go on. Snakemake cancels at any error of its own, too: only an interrupt is a wish to end."""
        return self.detach or not isinstance(sys.exc_info()[1], KeyboardInterrupt | SystemExit)


def cancel(
    on_slurm: bool,
    rows: list[dict[str, Any]],
    logger: Logger,
    unsure: Mapping[str, Sequence[str]] = MappingProxyType({}),
    everything: bool = False,
) -> bool:
    """Whether the order to end these rows' jobs was taken, on all of their clusters.

    unsure: names of submissions that may be queued without our knowing their numbers, each with the clusters that it
    named; everything: no task of the rows' arrays is to be left.
    """
    ids = sorted({row["job_id"] for row in rows if row.get("job_id")})
    if not on_slurm:
        for one in ids:
            _terminate(one)
        return True
    jobs = sorted({submission_of(one) for one in ids}) if everything and len(ids) > 100 else ids
    orders = [(partial(slurm.scancel, jobs), list(by_cluster(jobs).items()))]
    for name, clusters in unsure.items():
        orders.append(
            (partial(slurm.scancel_named, name, clusters), [(one, [f"--name={name}"]) for one in clusters or [""]])
        )
    taken = True
    for order, calls in orders:
        try:
            order()
        except slurm.SlurmError as error:
            by_hand = [shlex.join(["scancel", *slurm.on(cluster), *what]) for cluster, what in calls]
            logger.error(f"Jobs could not be cancelled: {error}. By hand: {'; '.join(by_hand)}")
            taken = False
    return taken


def _terminate(job_id: str) -> None:
    """End a local task's process group, unless its number is another process's by now."""
    pid, _, created = job_id.partition(":")
    try:
        if abs(psutil.Process(int(pid)).create_time() - float(created)) > 2:
            return
    except psutil.NoSuchProcess:
        pass  # its leader has died; while others of the group live, the number is theirs
    except (psutil.Error, ValueError):
        return
    with suppress(ProcessLookupError):
        os.killpg(int(pid), signal.SIGTERM)


def cancel_and_wait(on_slurm: bool, rows: list[dict[str, Any]], watch: Watch, journal: Journal, logger: Logger) -> None:
    """Cancel jobs that are out of date and wait until none of them can write any more."""
    cancel(on_slurm, rows, logger)
    # one that had not started now never will
    left = [row for row in rows if not revoke(Path(row["folder"]), row["task"], "out of date")]
    waiting = Watch(watch.cluster, 1.0, watch.lost_after)
    while left:
        outcomes = waiting.poll(left)
        left = [row for row in left if row["id"] not in outcomes or not outcomes[row["id"]].ended]
        time.sleep(0.5)
    ended = {"state": "CANCELLED", "settled": 1, "detail": "out of date"}
    journal.change([{"id": row["id"]} | ended for row in rows])


def cancel_all(on_slurm: bool, rows: list[dict[str, Any]], journal: Journal, logger: Logger) -> None:
    """Cancel a whole run: jobs, and submissions that were cut short. One that had not started now never will."""
    known = {row["id"] for row in rows}
    cut_short = [row for row in journal.open_cells() if row["submitted"] is None and row["id"] not in known]
    unsure = {row["submission"]: clusters_in(json.loads(row["request"])) for row in cut_short}
    if not cancel(on_slurm, rows, logger, unsure, everything=True):
        return
    changes = []
    for row in rows + cut_short:
        settled = int(revoke(Path(row["folder"]), row["task"], "interrupted"))  # else the next run sees its end
        changes.append({"id": row["id"], "state": "CANCELLED", "settled": settled, "detail": "interrupted"})
    journal.change(changes)
