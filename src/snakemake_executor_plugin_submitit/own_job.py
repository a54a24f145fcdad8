"""The job that this process runs in: what it is called, where it is, and its way back into the queue."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from snakemake_executor_plugin_submitit.job_ids import join


def on_slurm() -> bool:
    """Whether SLURM runs it."""
    return bool(os.environ.get("SLURM_JOB_ID"))


def job_id(clusters: Sequence[str] = ()) -> str:
    """The id of this job as the journal has it: see job_ids. clusters: that its submission named.

    Raises: RuntimeError where SLURM does not say which of several it runs on.
    """
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return join(f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}", _cluster(clusters))
    if number := os.environ.get("SLURM_JOB_ID"):
        return join(number, _cluster(clusters))
    return os.environ.get("SUBMITIT_LOCAL_JOB_ID") or f"debug-{os.getppid()}"


def _cluster(clusters: Sequence[str]) -> str:
    if not clusters:
        return ""
    name = os.environ.get("SLURM_CLUSTER_NAME", "").lower() or (clusters[0] if len(clusters) == 1 else "")
    if not name:
        raise RuntimeError(f"SLURM_CLUSTER_NAME is not set: which of {', '.join(clusters)} is this?")
    return name


def node() -> str:
    """SLURM's name of this node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def requeue() -> bool:
    """Put the job back into SLURM's queue; whether it goes there."""
    job = os.environ["SLURM_JOB_ID"]
    asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    print(f"scontrol requeue {job}: {asked.returncode} {asked.stderr.strip()}", file=sys.stderr)
    return asked.returncode == 0 or "completing" in asked.stderr.lower()
