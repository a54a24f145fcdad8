"""What a state says of an attempt: whether it goes on, and as what its minutes were wasted."""

from snakemake_executor_plugin_submitit.job_states import STATES, Kind

KINDS = ["failed", "requeued", "preempted", "timed out", "cancelled", "node failure", "out of memory", "lost", "other"]

_WASTE = {
    **dict.fromkeys(("FAILED", "LAUNCH_FAILED", "INTERRUPTED"), "failed"),
    **dict.fromkeys(("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "BUDGET"), "requeued"),
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), "timed out"),
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL", "RECONFIG_FAIL"), "node failure"),
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
    "OUT_OF_MEMORY": "out of memory",
    "LOST": "lost",
}
_USED = {"COMPLETED", "RESIZING"}  # a job that changes its size goes on in another row of sacct


def is_live(state: str, end: float | None = None) -> bool:
    """Whether an attempt waits or runs; `end`: when accounting says that it ended, which a requeued one has."""
    if end is not None:
        return False
    known = STATES.get(state)
    return state in ("INTENDED", "RUNNING") or (known is not None and known.kind is Kind.LIVE)


def waste_kind(state: str, end: float | None = None) -> str:
    """One of KINDS; empty where nothing was wasted, or not yet."""
    if state in _USED or is_live(state, end):
        return ""
    return _WASTE.get(state, "other")
