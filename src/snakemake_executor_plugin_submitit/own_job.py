"""The job that this process runs in: what it is called, where it is, and its way back into the queue."""

import os
import socket
import subprocess
import sys


def on_slurm() -> bool:
    """Whether SLURM runs it."""
    return bool(os.environ.get("SLURM_JOB_ID"))


def job_id() -> str:
    """The id of this job, of an array's task as `123_4`."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_LOCAL_JOB_ID") or f"debug-{os.getppid()}"


def node() -> str:
    """SLURM's name of this node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def requeue() -> bool:
    """Put the job back into SLURM's queue; whether it goes there."""
    job = os.environ["SLURM_JOB_ID"]
    asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    print(f"scontrol requeue {job}: {asked.returncode} {asked.stderr.strip()}", file=sys.stderr)
    return asked.returncode == 0 or "completing" in asked.stderr.lower()
