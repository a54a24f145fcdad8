"""GPU slots of one machine: files that a task locks while it runs, so that no two tasks share a GPU by accident.

The kernel drops a lock with the last process that holds it, so a slot is free again however a task ends, and stays
taken while a child of a killed task still runs. Slots are shared by all workflows of a user on the machine.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def visible_gpus() -> list[str]:
    """This machine's GPUs: those of CUDA_VISIBLE_DEVICES if it is set, else those that nvidia-smi lists."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True
    )
    return listed.stdout.split() if listed.returncode == 0 else []


def local_gpus(count: int | None) -> list[str]:
    """The GPUs to hand out: so many, from 0 on, or those that are visible."""
    return visible_gpus() if count is None else [str(number) for number in range(count)]


def slot_folder() -> Path:
    """Where this user's locks lie on this machine; private."""
    folder = Path(tempfile.gettempdir()) / f"submitit-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


class GpuSlots:
    """Hold so many of the named GPUs; waits for them, calling `waiting` meanwhile, until it returns true."""

    def __init__(self, wanted: int, names: list[str], waiting: Callable[[], bool]) -> None:
        self.wanted, self.names, self.waiting = wanted, names, waiting
        self.held: dict[str, IO[str]] = {}

    def __enter__(self) -> dict[str, str]:
        """The environment that shows the held GPUs alone."""
        folder = slot_folder()
        while self._take(folder) < self.wanted:
            self.__exit__()  # hold none while waiting, so that two tasks never wait for each other
            if self.waiting():
                return {}
            time.sleep(0.2 + 0.3 * (os.getpid() % 7) / 7)
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.held)}

    def _take(self, folder: Path) -> int:
        for name in self.names:
            if len(self.held) == self.wanted:
                break
            file = (folder / f"{name}.lock").open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.held[name] = file
            except BlockingIOError:
                file.close()
        return len(self.held)

    def __exit__(self, *_: Any) -> None:
        for file in self.held.values():
            file.close()
        self.held = {}
