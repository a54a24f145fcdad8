"""Stopping when the cluster asks: SIGUSR2 (time limit, preemption) or SIGTERM set a flag that long work looks at.

A handler that raised would hit a checkpoint half-written or a library unaware; work asks where it can stop.
"""

import signal
from typing import Any

_asked: list[str] = []


class Interrupted(SystemExit):
    """The work stopped because it was asked to; what it has is in its checkpoint, and the same command goes on."""


def listen() -> None:
    """From now on, SIGUSR2 and SIGTERM ask this process to stop at its next good moment. Main thread only."""
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda number, frame: _ask(number, frame))


def _ask(number: int, _: Any) -> None:
    _asked.append(signal.Signals(number).name)


def asked() -> bool:
    """Whether the work should stop."""
    return bool(_asked)


def stop_if_asked(done: str) -> None:
    """Raises: Interrupted, with what has been done, if the work should stop. What is needed to go on must be saved."""
    if _asked:
        print(f"stopped by {_asked[0]} {done}: the same command goes on from the checkpoint")
        raise Interrupted(75)
