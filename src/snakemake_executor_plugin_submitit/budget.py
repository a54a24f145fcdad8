"""A budget of GPU-hours: what it is, and the arithmetic that keeps it, in whole GPU-seconds.

A task is reserved the most that it may hold when it is submitted, and charged what it has held once that is known.
Reserved and charged together never pass the budget.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

KEY = "budget.gpu_hours"


@dataclass
class Budget:
    """limit: None where there is none. reserved: by task. charged: for those that have ended. used: both."""

    limit: int | None
    reserved: dict[Hashable, int] = field(default_factory=dict)
    charged: int = 0
    used: int = 0

    @property
    def room(self) -> float:
        """What may still be reserved; below 0 where the budget was lowered."""
        return math.inf if self.limit is None else self.limit - self.used

    def reserve(self, task: Hashable, most: int) -> bool:
        """Reserve `most` for a task, in place of what it has; nothing changes, and false, where that does not fit."""
        if most - self.reserved.get(task, 0) > self.room:
            return False
        self.force(task, most)
        return True

    def force(self, task: Hashable, most: int) -> None:
        """Reserve `most` for a task that is out already, whether or not it fits."""
        self.used += most - self.reserved.get(task, 0)
        self.reserved[task] = most

    def rename(self, old: Hashable, new: Hashable) -> None:
        """A reserved task has got its name."""
        self.reserved[new] = self.reserved.pop(old)

    def drop(self, task: Hashable) -> None:
        """A task was never submitted."""
        self.used -= self.reserved.pop(task, 0)

    def charge(self, task: Hashable, held: int) -> None:
        """A task has ended, and has held so much."""
        self.drop(task)
        self.charged += held
        self.used += held


def gpu_hours(setting: float | None, config: Mapping[str, Any]) -> float | None:
    """The budget: the setting, else the config's key. Raises: WorkflowError that names the key."""
    section = config.get("budget")
    given = section.get("gpu_hours") if isinstance(section, Mapping) else None
    if given is not None:
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or not 0 <= given < math.inf:
            raise WorkflowError(f"config key {KEY}: {given!r}, expected a number of GPU-hours of at least 0")
    return given if setting is None else setting


def seconds(hours: float | None) -> int | None:
    """GPU-hours as whole GPU-seconds, rounded down."""
    return None if hours is None else math.floor(hours * 3600 + 1e-6)


def hours(gpu_seconds: float) -> str:
    """GPU-seconds as GPU-hours to tell, rounded up."""
    return f"{math.ceil(gpu_seconds / 36 - 1e-9) / 100:.2f}"
