"""The end of jobs that are no longer wanted."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from logging import Logger
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.fencing import revoke
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.status import Watch


def cancel(
    on_slurm: bool, rows: list[dict[str, Any]], logger: Logger, names: Sequence[str] = (), everything: bool = False
) -> bool:
    """Whether the order to end these rows' jobs was taken.

    names: of submissions that may be queued without our knowing their numbers; everything: no task of the rows' arrays
    is to be left.
    """
    ids = sorted({row["job_id"] for row in rows if row.get("job_id")})
    if not on_slurm:
        for one in ids:
            _terminate(one)
        return True
    arrays = sorted({one.split("_")[0] for one in ids})
    try:
        slurm.scancel(arrays if everything and len(ids) > 100 else ids)
        for name in names:
            slurm.call("scancel", "--quiet", f"--name={name}")
    except slurm.SlurmError as error:
        logger.error(f"Jobs could not be cancelled: {error}. By hand: scancel {' '.join(arrays)}")
        return False
    return True


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
