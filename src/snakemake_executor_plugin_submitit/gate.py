"""Between what Snakemake has ready and the cluster: cells that fit into the budget go out, the others wait here.

One that waits was never submitted: the journal knows nothing of it, and Snakemake takes it for a job under way.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from snakemake_executor_plugin_submitit.budget_guard import BudgetGuard, cost
from snakemake_executor_plugin_submitit.gpu_usage import TaskKey
from snakemake_executor_plugin_submitit.submitter import Ready, Submitter

QUIET_POLLS = 3  # nothing may be under way for so many polls in a row: Snakemake may be about to start more


@dataclass
class Gate:
    """Safe to use from several threads; submits without a lock, since that may take minutes."""

    guard: BudgetGuard
    submitter: Submitter
    submit: Callable[[list[list[Ready]]], None]
    say: Callable[[str], None]
    waiting: list[Ready] = field(default_factory=list)
    closed: bool = False
    quiet: int = 0
    lock: Any = field(default_factory=threading.RLock)

    def offer(self, ready: list[Ready]) -> None:
        """Submit what fits, at once."""
        limited = self.guard.limit is not None
        counted = [one for one in ready if limited and cost([one])]
        for tasks in self.submitter.chunks([one for one in ready if not (limited and cost([one]))]):
            if not self.closed:
                self.submit(tasks)
        with self.lock:
            self.waiting += counted
        self.release()
        if counted and self.waiting:
            self.say(f"{len(self.waiting)} jobs wait for room in the budget.")

    def release(self) -> None:
        """Submit what fits by now."""
        with self.lock:
            if self.closed or not self.waiting:
                return
            admitted, self.waiting = self.guard.admit(self.submitter.chunks(self.waiting))
        for tasks in admitted:
            if not self._is_shut(tasks):
                self.submit(tasks)

    def _is_shut(self, tasks: list[list[Ready]]) -> bool:
        """Whether the gate was closed while other submissions went out; these are dropped then."""
        with self.lock:
            if self.closed:
                self.guard.dropped(tasks)
            return self.closed

    def submitted(self, tasks: list[list[Ready]], rows: list[dict[str, Any]]) -> None:
        """Tasks are out."""
        with self.lock:
            self.guard.submitted(tasks, rows)

    def dropped(self, tasks: list[list[Ready]]) -> None:
        """Tasks were not submitted."""
        with self.lock:
            self.guard.dropped(tasks)

    def watch(self, open_tasks: set[TaskKey]) -> None:
        """See what has ended, and let in what has room now."""
        with self.lock:
            self.guard.watch(open_tasks)
        self.release()

    def stuck(self, running: set[Any]) -> str | None:
        """Why nothing can go on, once nothing runs and nothing that waits fits. running: Snakemake's jobs."""
        with self.lock:
            others = running - {one.job for one in self.waiting}
            self.quiet = 0 if not self.waiting or self.guard.live() or others else self.quiet + 1
            return self.guard.stuck(self.waiting) if self.quiet >= QUIET_POLLS and not self.closed else None

    def close(self) -> int:
        """Let nothing out any more; how many cells waited."""
        with self.lock:
            self.closed = True
            return len(self.waiting)
