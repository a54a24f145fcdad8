"""How long a start may hold what its task asked for, where SLURM does not keep the time, or a budget counts it."""

import time
from dataclasses import dataclass

from snakemake_executor_plugin_submitit.fencing import LAUNCH_S, Start, allocated_at, granted, seconds_held

MARGIN_S = 10.0  # before the end of what a task may hold: SLURM counts until its last process is gone


@dataclass
class TimeLimit:
    """The limit of one start. limit_s, capped, overrun_s: see Task. ends_at: a Unix time."""

    start: Start
    limit_s: float | None
    capped: bool
    overrun_s: float
    held_since: float = 0.0
    ends_at: float = float("inf")

    def begin(self) -> None:
        """The start has what it asked for, and its time runs; on SLURM under a budget it has run since the launch."""
        self.held_since = allocated_at() if self.capped and not self.start.waits else time.time()
        self.set_end()

    def set_end(self) -> None:
        """By what the controller has granted so far."""
        if self.limit_s is not None:
            margin = MARGIN_S if self.capped and not self.start.waits else 0.0
            self.ends_at = self.held_since + self._allowed() - margin

    def is_whole(self) -> bool:
        """Whether this start may take the whole time limit."""
        return not self.capped or granted(self.start.folder, self.start.index) >= self.start.number

    def left(self) -> float:
        """Seconds that a next start might hold what the task asked for."""
        return self._allowed() - (time.time() - self.held_since) - 2 * LAUNCH_S

    def _allowed(self) -> float:
        """Seconds that this start may hold what the task asked for."""
        assert self.limit_s is not None
        if self.is_whole():
            return self.limit_s
        folder, index = self.start.folder, self.start.index
        earlier = seconds_held(folder, index, self.overrun_s)[: self.start.number - 1]
        return self.limit_s - sum(earlier[granted(folder, index) - 1 :])
