"""From ready cells to the cluster: grouped, packed, cut into arrays, written down before and after, and found again."""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.begun import SOURCES
from snakemake_executor_plugin_submitit.cluster import Cluster
from snakemake_executor_plugin_submitit.fencing import fence, revoke
from snakemake_executor_plugin_submitit.forks import ForkError, Forks
from snakemake_executor_plugin_submitit.gpus import local_gpus
from snakemake_executor_plugin_submitit.job_ids import submission_of, tasks_of
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.requests import Request, clusters_in
from snakemake_executor_plugin_submitit.sbatch_errors import Fault
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.shared_files import write_json
from snakemake_executor_plugin_submitit.slurm import SlurmError, UnreadableError

GHOST_S = 15.0  # an sbatch that was under way when its controller was killed may need so long to get through
UNKNOWN_S = 600.0  # a failure that no one knows, and that says nothing of the request, is tried again for so long


class FullError(Exception):
    """The user has too many jobs in the queue for this submission; a smaller one may fit."""


class RejectedError(Exception):
    """The cluster will not take this submission, however long we wait; says why."""


@dataclass(frozen=True)
class Ready:
    """A cell to submit: its columns in the journal, its program and what it asks for.

    sources: digests of the files beside its inputs that its program reads.
    """

    job: Any
    cell: dict[str, Any]
    program: dict[str, Any]
    request: Request
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sent:
    """A submission under way: its cells' ids in the journal, and how it may be found again."""

    name: str
    folder: Path
    ids: list[int]
    tasks: int
    arrays: bool
    clusters: list[str]


@dataclass
class Submitter:
    """Submits for one controller."""

    settings: ExecutorSettings
    journal: Journal
    base: Path
    say: Callable[[str], None]
    array_limit: int = 1000
    stopping: Callable[[], bool] = lambda: False
    study: str | None = None  # whose budget the submissions count against
    capped: bool = False  # whether there is a budget
    overrun_s: float = 0.0
    arrays: bool = True
    forks: Forks | None = None
    named: Callable[[Sequence[str]], Cluster] | None = None  # what clusters that a rule names allow
    recent: list[float] = field(default_factory=list)

    def serve(self, study: str | None, capped: bool, overrun_s: float) -> None:
        """Whose budget, if any, submissions count against from now on; overrun_s: see seconds_held."""
        self.study, self.capped, self.overrun_s = study, capped, overrun_s

    def chunks(self, ready: Sequence[Ready]) -> list[list[list[Ready]]]:
        """Submissions, each a list of tasks, each a list of cells: one rule, one request and one attempt each."""
        groups: dict[str, list[Ready]] = defaultdict(list)
        for one in ready:
            signature = [one.cell["rule"], one.cell["attempt"], one.request.parameters, one.request.minutes]
            groups[json.dumps([signature, one.request.pack], sort_keys=True)].append(one)
        submissions = []
        for group in groups.values():
            tasks = _cut(group, group[0].request.pack)
            submissions += _cut(tasks, self._allowed(group[0].request)[0])
        return submissions

    def _allowed(self, request: Request) -> tuple[int, bool]:
        """Most tasks of an array where a request goes to, and whether there are arrays."""
        if request.clusters and self.named:
            there = self.named(request.clusters)
            return there.array_limit, there.arrays
        return self.array_limit, self.arrays

    def submit(self, tasks: list[list[Ready]]) -> list[dict[str, Any]]:
        """Submit one chunk; the rows of its cells, in order.

        Raises: RejectedError, FullError, UnreadableError, the journal's errors.
        """
        from snakemake_executor_plugin_submitit.submission import auto_executor, unique_name

        request, rule = for_all(tasks), tasks[0][0].cell["rule"]
        places = [(task, number, one) for task, cells in enumerate(tasks) for number, one in enumerate(cells)]
        name = unique_name(rule)
        folder = self.base / "jobs" / name
        folder.mkdir(parents=True, mode=0o700)
        folder.chmod(0o700)
        write_json(folder / SOURCES, {path: value for _, _, one in places for path, value in one.sources.items()})
        callables = [self._task(folder, index, cells, request) for index, cells in enumerate(tasks)]
        delay = callables[0].signal_delay_s
        more: dict[str, Any] = {"slurm_signal_delay_s": delay}
        if self.settings.array_parallelism:
            more["slurm_array_parallelism"] = self.settings.array_parallelism
        arrays = self._allowed(request)[1]
        auto = auto_executor(str(self.settings.cluster), folder, name, request, more, arrays, self.forks)
        submission: dict[str, Any] = {
            "name": name,
            "rule": rule,
            "attempt": tasks[0][0].cell["attempt"],
            "cluster": self.settings.cluster,
            "request": json.dumps(
                {**request.parameters, "minutes": request.minutes, "gpus": request.gpus, "study": self.study}
                | {"capped": self.capped, "arrays": arrays}
            ),
            "folder": str(folder),
        }
        rows = [one.cell | {"task": task, "cell": number} for task, number, one in places]
        ids = self.journal.intend(submission, rows)
        for _, _, one in places:
            one.job.register()  # before it may run: the job takes the mark away when it ends
        ask = lambda: [job.job_id for job in auto.submit_array(callables)]  # noqa: E731
        sent = _Sent(name, folder, ids, len(tasks), arrays, request.clusters)
        task_ids = self._until_taken(sent, ask)
        self.journal.submitted(name, submission_of(task_ids[0]), dict(enumerate(task_ids)))
        now = time.time()
        known: dict[str, Any] = {
            "submission": name,
            "folder": str(folder),
            "state": "PENDING",
            "reason": "",
            "node": "",
        }
        known |= {"cluster": self.settings.cluster, "intended": now, "submitted": now, "settled": 0}
        return [
            row | known | {"id": number, "job_id": task_ids[row["task"]]} for number, row in zip(ids, rows, strict=True)
        ]

    def _task(self, folder: Path, index: int, cells: list[Ready], request: Request) -> Any:
        from snakemake_executor_plugin_submitit.task import Task

        more = {"preload": self.settings.modules}
        delay = int(self.settings.signal_delay or 60)
        if request.minutes:
            delay = min(delay, max(10, request.minutes * 60 // 3))
        capped = self.capped and request.gpus > 0
        local = self.settings.cluster != "slurm"
        return Task(
            folder=folder,
            index=index,
            cells=[{**one.program, "log": one.cell["log"], "name": one.cell["name"]} | more for one in cells],
            requeue=self.settings.requeue == "always",
            max_requeues=int(self.settings.max_requeues or 0),
            signal_delay_s=delay,
            gpus=request.gpus,
            limit_s=request.minutes * 60.0 if request.minutes and (local or capped) else None,
            gpu_names=local_gpus(self.settings.gpus) if local else None,
            capped=capped,
            overrun_s=self.overrun_s,
            clusters=request.clusters,
        )

    def _until_taken(self, sent: _Sent, submit: Callable[[], list[str]]) -> list[str]:
        """Ids of the tasks. Waits out an unreachable or full cluster; a submit that only seemed to fail is adopted."""
        first, wait = time.time(), 2.0
        while True:
            self._keep_rate()
            try:
                return submit()
            except ForkError as error:
                self._give_up(sent, str(error))
                raise RejectedError(str(error)) from None
            except UnreadableError as error:
                self._give_up(sent, str(error))
                with suppress(SlurmError):
                    slurm.scancel_named(sent.name, sent.clusters)
                raise
            except SlurmError as error:
                reason, fault = str(error), error.fault
            full, unknown = fault is Fault.FULL, fault is Fault.UNKNOWN
            if fault is Fault.REQUEST or (full and sent.tasks > 1):
                self._give_up(sent, reason)
                shutil.rmtree(sent.folder, ignore_errors=True)  # nothing can come of it
                raise FullError(reason) if full else RejectedError(reason)
            self.say(f"{sent.name}: not submitted yet: {reason}; trying again")
            ghost = None
            patience = 60.0 * int(self.settings.submit_patience or 60)
            while True:
                if self.stopping() or time.time() - first > (min(patience, UNKNOWN_S) if unknown else patience):
                    self._give_up(sent, reason)
                    raise RejectedError(reason)
                time.sleep(wait)
                wait = min(30.0, wait * 1.5)
                try:
                    ghost = slurm.find(sent.name, first, sent.clusters)
                    break
                except SlurmError as error:
                    reason = str(error)
            if ghost:
                self.say(f"{sent.name}: had been submitted after all, as job {ghost}")
                return tasks_of(ghost, sent.tasks, sent.arrays)

    def _give_up(self, sent: _Sent, why: str) -> None:
        for task in range(sent.tasks):
            fence(sent.folder, task, why)  # should it have got through all the same
        rejected = {"state": "REJECTED", "reason": why, "settled": 1, "detail": why}
        self.journal.change([{"id": number} | rejected for number in sent.ids])

    def _keep_rate(self) -> None:
        limit = self.settings.submissions_per_minute
        while limit:
            self.recent = [moment for moment in self.recent if time.monotonic() - moment < 60]
            if len(self.recent) < limit:
                break
            time.sleep(0.5)
        self.recent.append(time.monotonic())

    def recover(self) -> list[dict[str, Any]]:
        """Open cells of earlier controllers; those whose submission was cut short are found again or closed for good.

        Raises: SlurmError where the cluster cannot be asked.
        """
        cells = self.journal.open_cells()
        unsure: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for cell in cells:
            if cell["submitted"] is None:
                unsure[cell["submission"]].append(cell)
        for name, members in unsure.items():
            self._recover_submission(name, members)
        return self.journal.open_cells() if unsure else cells

    def _recover_submission(self, name: str, cells: list[dict[str, Any]]) -> None:
        intended, request = cells[0]["intended"], json.loads(cells[0]["request"])
        job_id, clusters = None, clusters_in(request)
        if cells[0]["cluster"] == "slurm":
            job_id = slurm.find(name, intended, clusters)
            while job_id is None and time.time() - intended < GHOST_S:
                time.sleep(1)
                job_id = slurm.find(name, intended, clusters)
        if job_id:
            known = tasks_of(job_id, 1 + max(cell["task"] for cell in cells), request.get("arrays", True))
            self.journal.submitted(name, job_id, dict(enumerate(known)))
            self.say(f"{name}: found again as job {job_id}")
            return
        closed, started = [], {}
        for cell in cells:
            if revoke(Path(cell["folder"]), cell["task"], "its controller was killed while it submitted"):
                why = "never submitted: its controller was killed"
                closed.append({"id": cell["id"], "state": "REVOKED", "settled": 1, "detail": why})
            else:
                started[cell["task"]] = _started_as(cell)
        self.journal.change(closed)
        if started:
            self.journal.submitted(name, submission_of(next(iter(started.values()))), started)


def for_all(tasks: list[list[Ready]]) -> Request:
    """What each task of a submission asks for: time for all of its cells."""
    request = tasks[0][0].request
    if request.minutes is None:
        return request
    minutes = request.minutes * max(len(cells) for cells in tasks)
    return replace(request, minutes=minutes, parameters=request.parameters | {"timeout_min": minutes})


def _started_as(cell: dict[str, Any]) -> str:
    from snakemake_executor_plugin_submitit.fencing import last_start

    start = last_start(Path(cell["folder"]), cell["task"])[1]
    job_id = str(start.get("job_id", ""))
    return job_id if cell["cluster"] == "slurm" else f"{start.get('pid', 0)}:{start.get('created', 0)}"


def _cut(items: list[Any], size: int) -> list[list[Any]]:
    return [items[first : first + size] for first in range(0, len(items), size)]
