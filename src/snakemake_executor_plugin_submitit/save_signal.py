"""SIGUSR2, which asks a program to save what it has: sent to the processes that listen for it, and to no other.

Nothing may be killed by it, so that it can't be sent to all; nor may it be ignored from birth on, since a shell can't
trap what was ignored when it started. Standard library and psutil alone.
"""

import os
import re
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

NUMBER = signal.SIGUSR2
BATCH = "SUBMITIT_BATCH_PID"  # the batch script's shell, which listens only to hand the signal to us
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
TRAPS_NUMBER = re.compile(rf"\btrap\b[^\n;&|]*\s{int(NUMBER)}\b")
CAN_TELL = Path("/proc/self/status").exists()  # else it is ignored from birth on, and sent to all


def as_a_child(catching: bool) -> None:
    """Set how a new process treats the signal before its program starts.

    catching: the program is Snakemake, which has no use for the signal, but starts programs that have.
    """
    if catching:
        signal.signal(NUMBER, lambda *_: None)  # a handler is not inherited by programs; being ignored would be
    else:
        signal.signal(NUMBER, signal.SIG_DFL if CAN_TELL else signal.SIG_IGN)


def ask_to_save(asked: Collection[int] = ()) -> set[int]:
    """Send it to each process of this job that listens for it; their ids. asked: those that have had it."""
    sent = set()
    for process in _others():
        with suppress(psutil.Error, OSError):
            if process.pid not in asked and (not CAN_TELL or listens(process.pid)):
                process.send_signal(NUMBER)
                sent.add(process.pid)
    return sent


def listens(pid: int) -> bool:
    """Whether a process catches the signal, or waits for it with the signal blocked. Raises: OSError."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    caught, blocked = int(status["SigCgt"], 16), int(status["SigBlk"], 16)
    if status["Name"].strip() in ("bash", "sh") and _has(caught, signal.SIGVTALRM):
        return _speaks_of_it(pid)
    return _has(caught | blocked, NUMBER)


def _has(mask: int, number: int) -> bool:
    return bool(mask >> (number - 1) & 1)


def _speaks_of_it(pid: int) -> bool:
    """Whether the text of a shell has the signal's name, or its number in a trap. One with a trap on EXIT catches
    every signal that would end it, and then ends: only its text tells whether it has a trap on this one, too."""
    words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    texts = list(words)
    for word in words[1:3]:
        with suppress(OSError, ValueError):
            texts.append((Path(f"/proc/{pid}/cwd") / word).read_text(errors="replace"))
    return any("USR2" in text or TRAPS_NUMBER.search(QUOTED.sub("''", text)) for text in texts)


def _others() -> Iterator[psutil.Process]:
    """Our descendants, and what else our SLURM job runs here: steps of its own (srun) are no children of ours."""
    me = psutil.Process()
    found = {process.pid: process for process in me.children(recursive=True)}
    job, batch = os.environ.get("SLURM_JOB_ID"), os.environ.get(BATCH)
    for process in psutil.process_iter() if job else ():
        with suppress(psutil.Error):
            if process.pid not in found and process.environ().get("SLURM_JOB_ID") == job:
                found[process.pid] = process
    for process in found.values():
        with suppress(psutil.Error):
            # srun would send it to all of its step, and slurmstepd is none of ours
            ours = process.pid == me.pid or str(process.pid) == batch
            if not ours and process.name() not in ("srun", "slurmstepd"):
                yield process
