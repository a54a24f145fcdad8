"""What a job cost, written down by the job itself: one JSON record for each attempt, in the records folder.

The record is written when the work starts and again when it ends. An attempt that was killed in between leaves its
first record, by which the ledger knows it as lost. Imports no torch.
"""

import os
import platform
import re
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil  # type: ignore[import-untyped,unused-ignore]

from scatterproof.running.files import write_json
from scatterproof.running.nvml import GpuSampler

VERSION = 1


@dataclass
class Meter:
    """What the job itself may add to its record.

    device_minutes: those that its device worked in this attempt, if not the whole `with` body; attacks: the minutes of
    each attack that it ran, by name, None while they are unknown.
    """

    device_minutes: float | None = None
    attacks: dict[str, float | None] = field(default_factory=dict)
    entered: float = field(default_factory=time.monotonic)

    def minutes_so_far(self) -> float:
        """Minutes since the useful work began."""
        return (time.monotonic() - self.entered) / 60


@contextmanager
def measured(
    folder: Path,
    stage: str,
    rule: str,
    job: str,
    device: str,
    gpu: str | None = None,
    wildcards: Mapping[str, str] | None = None,
    attacks: Iterable[str] = (),
) -> Iterator[Meter]:
    """Measure the useful work of one attempt of a job: `with measured(...) as meter:` goes around it.

    Writes `<folder>/<rule>/<job>.<attempt>.json`: state RUNNING on entry; COMPLETED, or FAILED if an exception passes
    through, on exit. Times are in seconds: `elapsed_s` since the process started (imports included), `useful_s` of the
    body, `startup_s` before it, `cpu_s` of the process and its children; memory in MiB. `device` names what does the
    work, such as `cpu: AMD EPYC 9654` or `cuda: NVIDIA H200`; anything but a cpu counts as one GPU. `gpu` is the UUID
    of the one whose utilisation and energy are sampled. In a SLURM job the record names it, so that the ledger can join
    the two. `attacks`: those that the job is to run.
    Raises: OSError where the folder cannot be written.
    """
    process_started: float = psutil.Process().create_time()
    path, attempt = _next_attempt(folder / rule, job)
    record: dict[str, Any] = {
        "version": VERSION,
        "stage": stage,
        "rule": rule,
        "job": job,
        "attempt": attempt,
        "state": "RUNNING",
        "node": platform.node(),
        "pid": os.getpid(),
        "process_started": process_started,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "device": device,
        "gpus": 0 if device.startswith("cpu") else 1,
        "wildcards": dict(wildcards or {}),
        "attacks": dict.fromkeys(attacks),
        **enclosing_job(),
    }
    startup_s = max(0.0, time.time() - process_started)
    meter = Meter(attacks=dict.fromkeys(attacks))
    write_json(path, record)
    sampler = GpuSampler(gpu) if gpu else None
    if sampler:
        sampler.start()
    state = "FAILED"
    try:
        yield meter
        state = "COMPLETED"
    finally:
        useful_s = meter.minutes_so_far() * 60
        used = {
            "state": state,
            "elapsed_s": round(startup_s + useful_s, 3),
            "useful_s": round(useful_s, 3),
            "startup_s": round(startup_s, 3),
            "cpu_s": round(sum(os.times()[:4]), 3),
            "mem_mb": round(_peak_mb(), 1),
            "device_minutes": useful_s / 60 if meter.device_minutes is None else meter.device_minutes,
            "attacks": meter.attacks,
            **(sampler.stop() if sampler else {}),
        }
        write_json(path, record | used)


def enclosing_job() -> dict[str, str | int | None]:
    """The SLURM job that this process runs in: id (a task's as `12_3`), name, restarts before this one, partition.

    Of a process that submitit started on this machine only an id.
    """
    job_id = os.environ.get("SLURM_JOB_ID")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job_id = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    if not job_id:
        return {"job_id": os.environ.get("SUBMITIT_LOCAL_JOB_ID")}
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return {
        "job_id": job_id,
        "job_name": os.environ.get("SLURM_JOB_NAME"),
        "restart": int(restarts) if restarts.isdigit() else None,
        "partition": os.environ.get("SLURM_JOB_PARTITION"),
    }


def _next_attempt(folder: Path, job: str) -> tuple[Path, int]:
    """Where the next attempt of a job is written, and its number; the job's name is escaped so that no two collide."""
    folder.mkdir(parents=True, exist_ok=True)
    name = quote(job, safe=" =,+@")
    pattern = re.compile(re.escape(name) + r"\.([0-9]+)\.json")
    earlier = [int(match[1]) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    attempt = 1 + max(earlier, default=0)
    return folder / f"{name}.{attempt}.json", attempt


def _peak_mb() -> float:
    """Peak resident memory in MiB of this process or of its largest child."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
