"""The guard of the budget: what goes out, and what waits, over all controllers of one journal.

What a task may hold at most is reserved before it is submitted: its GPUs for its time limit. Requeues count: the starts
of a task share that limit (time_limit.py keeps it), until the guard grants a later start the whole of it, which it
does where the budget has room for it beside what the starts before have held.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.budget import KEY, Budget, hours
from snakemake_executor_plugin_submitit.fencing import STALE_S, grant, granted, last_start, run_file, seconds_held
from snakemake_executor_plugin_submitit.gpu_usage import GpuUsage, Task, TaskKey, gpus_of, limit_of
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.requests import Request
from snakemake_executor_plugin_submitit.submitter import Ready, for_all

ASK_S = 3.0  # seconds between two calls of sacct, at least


@dataclass
class BudgetGuard:
    """One controller's; does nothing without a limit. study: whose tasks count; None: all of the journal's."""

    journal: Journal
    usage: GpuUsage
    limit: int | None
    study: str | None
    ask_s: float = ASK_S
    tasks: dict[TaskKey, Task] = field(default_factory=dict)
    closed: dict[TaskKey, float] = field(default_factory=dict)  # ended, not accounted for yet: when
    asked: float = -math.inf

    def __post_init__(self) -> None:
        self.budget = Budget(self.limit)

    def load(self) -> None:
        """Take over every task of earlier controllers, and learn what the ended ones have held."""
        if self.limit is None:
            return
        for task in self.journal.tasks():
            key = (task["submission"], task["task"])
            if not gpus_of(task) or self.study not in (None, task["request"].get("study") or self.study):
                continue
            self.tasks[key] = task
            held = task["request"].get("held", {}).get(str(task["task"]))
            if task["settled"] and held is not None:
                self.budget.charge(key, int(held))
                continue
            self.budget.force(key, self._most(task))
            if task["settled"]:
                self.closed[key] = task["ended"] or task["intended"]
        self._settle()

    def _most(self, task: Task) -> int:
        """GPU-seconds that a task may hold over all of its starts."""
        before = int(task["request"].get("before", {}).get(str(task["task"]), 0))
        if not task["settled"] and not task["request"].get("capped"):  # its starts share nothing: each may hold a limit
            folder = Path(task["folder"])
            number, _, silent = last_start(folder, task["task"])
            over = seconds_held(folder, task["task"], self.usage.overrun_s)
            over = over if silent > STALE_S else over[: number - 1]
            before = max(before, math.ceil(sum(over) * gpus_of(task)))
        return before + limit_of(task)

    # submitting

    def admit(self, chunks: list[list[list[Ready]]]) -> tuple[list[list[list[Ready]]], list[Ready]]:
        """Of submissions (lists of tasks, lists of cells), those that fit, reserved; and the cells that wait."""
        admitted, waiting = [], []
        for tasks in chunks:
            fit = self._reserve_first(tasks)
            cells = [one for task in tasks for one in task]
            waiting += cells[sum(map(len, fit)) :]
            admitted += [fit] if fit else []
        return admitted, waiting

    def _reserve_first(self, tasks: list[list[Ready]]) -> list[list[Ready]]:
        """The first tasks of a submission, as many as fit; at least as many cells of the first."""
        most = cost(tasks[0])  # its time limit is that of all
        fit = []
        for cells in tasks:
            if not self.budget.reserve(id(cells[0]), most):
                break
            fit.append(cells)
        if not fit and len(tasks[0]) > 1:
            few = tasks[0][: max(0, int(self.budget.room // cost(tasks[0][:1])))]
            return self._reserve_first([few]) if few else []
        return fit

    def submitted(self, tasks: list[list[Ready]], rows: list[Task]) -> None:
        """Reserved tasks have names now. rows: of all their cells, in order."""
        request = for_all(tasks)
        if self.limit is None or not request.gpus:
            return
        places = iter(rows)
        for cells in tasks:
            row = [next(places) for _ in cells][0]  # noqa: RUF015 - all of them are taken
            key = (row["submission"], row["task"])
            self.tasks[key] = row | {"request": {"gpus": request.gpus, "minutes": request.minutes, "capped": True}}
            self.budget.rename(id(cells[0]), key)
            self.budget.reserve(key, limit_of(self.tasks[key]))  # less, where a submission was cut in two

    def dropped(self, tasks: list[list[Ready]]) -> None:
        """Reserved tasks were not submitted."""
        for cells in tasks:
            self.budget.drop(id(cells[0]))

    # watching

    def live(self) -> bool:
        """Whether anything is out, or not accounted for yet, that may make room."""
        return bool(self.budget.reserved)

    def watch(self, open_tasks: set[TaskKey]) -> None:
        """Learn what tasks that are not open any more have held; grant the starts that SLURM has made."""
        if self.limit is None:
            return
        for key in self.budget.reserved:
            if key in self.tasks and key not in open_tasks:
                self.closed.setdefault(key, time.time())
        if time.monotonic() - self.asked >= self.ask_s:
            self.asked = time.monotonic()
            self._settle()
            self._grant(open_tasks & self.budget.reserved.keys())

    def _settle(self) -> None:
        said = self.usage.attempts(self.tasks[key] for key in self.closed)
        known: dict[TaskKey, int] = {}
        for key, since in list(self.closed.items()):
            held, for_good = self.usage.held(self.tasks[key], said.get(key, []), since)
            if held is not None:
                if not for_good and self.tasks[key]["request"].get("capped"):
                    held = min(held, self.budget.reserved[key])  # its clock is rounded up, but it was ended in time
                self.budget.charge(key, held)
                del self.closed[key]
                known |= {key: held} if for_good else {}
        self.journal.remember("held", known)

    def _grant(self, open_tasks: Iterable[TaskKey]) -> None:
        """Let requeued tasks take their whole limit again, where that fits."""
        again = [key for key in open_tasks if _started_again(self.tasks[key])]
        said = self.usage.attempts(self.tasks[key] for key in again)
        for key in again:
            task, folder = self.tasks[key], Path(self.tasks[key]["folder"])
            number, _, silent = last_start(folder, task["task"])
            if silent > STALE_S:
                continue
            attempts = [one for one in said.get(key, []) if one.ended]
            clock = seconds_held(folder, task["task"], self.usage.overrun_s)[: number - 1]
            held = self.usage.at_least(task, attempts, [] if len(attempts) >= number - 1 else clock)
            fits = self.budget.reserve(key, held + limit_of(task))
            if not fits and not task["request"].get("capped"):
                self.budget.force(key, held + limit_of(task))  # submitted without a budget: it asks nobody
            if fits:
                self.journal.remember("before", {key: held})
                grant(folder, task["task"], number)

    def keep_clocks(self, folders: Iterable[str]) -> None:
        """Write down what tasks' own clocks say before their files are removed."""
        gone = set(folders)
        tasks = [task for task in self.journal.tasks() if task["folder"] in gone and gpus_of(task)] if gone else []
        clocks = {(one["submission"], one["task"]): round(sum(self.usage.clocks(one)), 3) for one in tasks}
        self.journal.remember("clock", clocks)

    # telling

    def stuck(self, waiting: list[Ready]) -> str:
        """By how much the budget would be passed, and what to set."""
        assert self.limit is not None
        costs = [cost([one]) for one in waiting]
        used = self.budget.used
        least, enough = used + min(costs), used + sum(costs)
        over, all_over = hours(least - self.limit), hours(enough - self.limit)
        return (
            f"Budget of {hours(self.limit)} GPU-hours ({KEY}): {hours(used)} are used, and none of the {len(waiting)} "
            f"jobs that wait now fits. The smallest would pass it by {over} GPU-hours, all {len(waiting)} by up to "
            f"{all_over}. To go on, set {KEY} or --submitit-gpu-hours to {hours(least)} or more (for all that wait "
            f"now: {hours(enough)}) and run the same command."
        )


def check(rule: str, request: Request, limit: int | None) -> None:
    """Raises: WorkflowError where there is a budget, and nobody could say what a job will hold at most."""
    if limit is None:
        return
    extra = request.parameters.get("slurm_additional_parameters", {})
    if any(len(key) >= 6 and "exclusive".startswith(key) for key in extra):  # sbatch takes abbreviations
        raise WorkflowError(f"rule {rule}: --exclusive holds every GPU of a node, which a budget ({KEY}) cannot count")
    if request.gpus and request.minutes is None:
        raise WorkflowError(f"rule {rule}: a budget ({KEY}) needs its time limit: give it the resource runtime")


def cost(cells: list[Ready]) -> int:
    """GPU-seconds that a task with these cells may hold."""
    request = for_all([cells])
    return request.gpus * 60 * (request.minutes or 0)


def _started_again(task: Task) -> bool:
    folder = Path(task["folder"])
    return run_file(folder, task["task"], granted(folder, task["task"]) + 1).exists()
