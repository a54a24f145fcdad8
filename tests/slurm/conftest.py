"""The cluster that the tests here run on: a real SLURM on this machine, started where it may be, never skipped."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from sweeps import down, up


@pytest.fixture(autouse=True)
def empty_queue(cluster: Callable[..., None]) -> Iterator[None]:
    """What a failed test leaves in the queue is no other test's business."""
    yield
    subprocess.run(["scancel", "--me"], check=True)
    while subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout:
        time.sleep(0.2)


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[Callable[..., None]]:
    """A fresh cluster for all tests; call it with knobs to change it on the way."""
    if shutil.which("slurmctld"):
        down("--wipe")
    up()

    def restart(**knobs: str) -> None:
        down()
        up(**knobs)

    yield restart
    down("--wipe")
