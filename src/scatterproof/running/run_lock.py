"""The lock that keeps two controllers off one study."""

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from scatterproof.errors import UserError

_held: list[IO[str]] = []  # a lock lives as long as its open file


class GuardError(UserError):
    """Another controller is at work, in one line."""


def hold_study(folder: str) -> None:
    """Keep every other controller off this study until this process ends, however it ends.

    The kernel drops the lock with the process, so a killed controller leaves nothing to clean up.
    Raises: GuardError that names the holder.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = (Path(folder) / ".controller").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise GuardError(f"{folder} is being worked on by {file.read().strip() or 'another controller'}") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    _held.append(file)
