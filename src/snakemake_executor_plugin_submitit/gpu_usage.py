"""What tasks have held, in GPU-seconds: by sacct, all attempts of each; else by the tasks' own clocks.

Where SLURM does not account for GPUs, an attempt's elapsed time counts by the GPUs that were asked for. Own clocks are
rounded up, and never below what was held.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.fencing import seconds_held
from snakemake_executor_plugin_submitit.requests import clusters_in
from snakemake_executor_plugin_submitit.slurm import Attempt

TaskKey = tuple[str, int]
Task = dict[str, Any]  # a row of Journal.tasks()


@dataclass
class GpuUsage:
    """overrun_s: see seconds_held. patience: seconds to wait for sacct, which is late, or away."""

    overrun_s: float
    patience: float
    say: Callable[[str], None]
    said: set[str] = field(default_factory=set)

    def attempts(self, tasks: Iterable[Task]) -> dict[TaskKey, list[Attempt]]:
        """What sacct says of tasks, if anything."""
        rows = [task for task in tasks if task["cluster"] == "slurm"]
        if not rows or not shutil.which("sacct"):
            return {}
        found: dict[TaskKey, list[Attempt]] = {}
        for cluster in dict.fromkeys(one for row in rows for one in _clusters(row)):
            there = [row for row in rows if cluster in _clusters(row)]
            names, since = {row["submission"] for row in there}, min(row["intended"] for row in there)
            try:
                found |= slurm.attempts(names, since, cluster)
            except slurm.SlurmError as error:
                if str(error) not in self.said:
                    self.say(f"{error}; what jobs have held is taken from their own clocks after {self.patience:.0f} s")
                self.said.add(str(error))
        return found

    def held(self, task: Task, attempts: list[Attempt], closed: float) -> tuple[int | None, bool]:
        """What a task that ended at a Unix time has held (None: wait for sacct), and whether sacct says so."""
        clock = self.clocks(task)
        if attempts and len(attempts) >= len(clock) and all(one.ended for one in attempts):
            return accounted(task, attempts), True
        late = task["cluster"] == "slurm" and shutil.which("sacct") and not task.get("refused")
        if late and time.time() - closed < self.patience:
            return None, False
        return self.at_least(task, attempts, clock), False

    def at_least(self, task: Task, attempts: list[Attempt], clock: list[float]) -> int:
        """The larger of what sacct has on record so far and the task's own clock."""
        ended = [one for one in attempts if one.ended]
        return max(accounted(task, ended), math.ceil(sum(clock) * gpus_of(task)))

    def clocks(self, task: Task) -> list[float]:
        """Seconds of each start by the task's own clock; without its files, what was kept of them; else its limit."""
        folder = Path(task["folder"])
        if folder.exists():
            return seconds_held(folder, task["task"], self.overrun_s)
        kept = task["request"].get("clock", {}).get(str(task["task"]))
        if kept is not None:
            return [float(kept)]
        return [] if task.get("refused") else [limit_of(task) / gpus_of(task)]


def _clusters(task: Task) -> list[str]:
    """Where a task may be: one of those that its submission named, else the default cluster."""
    return clusters_in(task["request"]) or [""]


def accounted(task: Task, attempts: Iterable[Attempt]) -> int:
    """GPU-seconds of attempts."""
    return sum(one.seconds * (gpus_of(task) if one.gpus is None else one.gpus) for one in attempts)


def gpus_of(task: Task) -> int:
    """GPUs that a task asked for."""
    return int(task["request"].get("gpus") or 0)


def limit_of(task: Task) -> int:
    """GPU-seconds that one start of a task may hold; without a time limit, more than any budget."""
    minutes = task["request"].get("minutes")
    return gpus_of(task) * 60 * int(minutes) if minutes else 10**12
