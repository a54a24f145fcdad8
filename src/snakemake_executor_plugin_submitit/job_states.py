"""Every state of a SLURM job: what it means for a cell, and what a user may do about it."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a state says about the job's future."""

    LIVE = "waits or runs"
    RETURNS = "comes back to the queue, unless it must not"
    DONE = "ended well"
    FAILED = "ended"


@dataclass(frozen=True)
class State:
    """A state's kind and what is told about it."""

    kind: Kind
    meaning: str


# https://slurm.schedmd.com/job_state_codes.html
STATES = {
    "PENDING": State(Kind.LIVE, "waits for its turn"),
    "CONFIGURING": State(Kind.LIVE, "its node is being made ready"),
    "RUNNING": State(Kind.LIVE, "runs"),
    "COMPLETING": State(Kind.LIVE, "is ending"),
    "SUSPENDED": State(Kind.LIVE, "was stopped and will be continued; its time limit waits too"),
    "STOPPED": State(Kind.LIVE, "was stopped by a signal and keeps its node"),
    "SIGNALING": State(Kind.LIVE, "is being sent a signal"),
    "STAGE_OUT": State(Kind.LIVE, "its files are being copied"),
    "RESIZING": State(Kind.LIVE, "is changing its size"),
    "REQUEUED": State(Kind.LIVE, "goes back to the queue"),
    "REQUEUE_FED": State(Kind.LIVE, "goes back to the queue of another cluster"),
    "REQUEUE_HOLD": State(Kind.LIVE, "went back to the queue and is held; it is released once, then left to an admin"),
    "SPECIAL_EXIT": State(Kind.LIVE, "went back to the queue and is held for a special exit code"),
    "RESV_DEL_HOLD": State(Kind.LIVE, "is held: its reservation was deleted"),
    "PREEMPTED": State(Kind.RETURNS, "made way for a more urgent job; goes on from its checkpoint when it runs again"),
    "NODE_FAIL": State(Kind.RETURNS, "its node failed; goes on from its checkpoint on another"),
    "REVOKED": State(Kind.RETURNS, "runs on a sibling cluster"),
    "COMPLETED": State(Kind.DONE, "ended well"),
    "FAILED": State(Kind.FAILED, "ended with an error: its log says which"),
    "CANCELLED": State(Kind.FAILED, "was cancelled, by you or by an admin"),
    "TIMEOUT": State(Kind.FAILED, "ran into its time limit without saving on SIGUSR2: raise `runtime`"),
    "OUT_OF_MEMORY": State(Kind.FAILED, "used more memory than it asked for: raise `mem_mb`"),
    "DEADLINE": State(Kind.FAILED, "could not have ended before its deadline"),
    "BOOT_FAIL": State(Kind.FAILED, "its node did not boot"),
    "LAUNCH_FAILED": State(Kind.FAILED, "could not be started on its node"),
    "RECONFIG_FAIL": State(Kind.FAILED, "its node could not be set up"),
}


def canonical(state: str) -> str:
    """`CANCELLED by 1000` and `COMPLETED+` as the table has them."""
    return state.split(" ", 1)[0].rstrip("+")


def kind_of(state: str) -> Kind:
    """A state's kind; one that no one has told us of is live, so that nothing is given up for it."""
    known = STATES.get(canonical(state))
    return known.kind if known else Kind.LIVE


def meaning_of(state: str) -> str:
    """What to tell a user about a state."""
    known = STATES.get(canonical(state))
    return known.meaning if known else "a state unknown here"
