"""How the cells under way are doing: their own result files first, then one squeue and one sacct for each cluster."""

import re
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.begun import has_begun
from snakemake_executor_plugin_submitit.fencing import STALE_S, last_start
from snakemake_executor_plugin_submitit.job_ids import cluster_of, number_of, submission_of
from snakemake_executor_plugin_submitit.job_states import Kind, canonical, meaning_of
from snakemake_executor_plugin_submitit.shared_files import read_json, tail
from snakemake_executor_plugin_submitit.slurm import JobState, SlurmError

FILE_LATENCY_S = 5.0  # a result file may become visible so long after SLURM says that its job has ended
MAX_RELEASES = 1
NOTHING_STARTED = re.compile(  # what srun says last in such a case
    r"srun: error: (Unable to (create step|confirm allocation|contact slurm controller)|Application launch failed"
    r"|Task launch for \S+ failed)"
)


@dataclass(frozen=True)
class Outcome:
    """A cell's new state; `ended` with `exit` 0 is success. `lost`: for no fault of its own; to be submitted again."""

    state: str
    reason: str = ""
    node: str = ""
    ended: bool = False
    exit: int | None = None
    lost: bool = False
    columns: dict[str, Any] = field(default_factory=dict)

    def change(self, number: int) -> dict[str, Any]:
        """What it changes of a row of the journal, by the row's id."""
        columns = {"state": self.state, "reason": self.reason, "node": self.node, "detail": self.reason}
        return {"id": number, **columns, **self.columns}


@dataclass
class Watch:
    """What has been seen so far, and when SLURM may be asked again."""

    cluster: str
    interval: float
    lost_after: float
    returns: bool = True
    asked: float = 0.0
    queues: dict[str, dict[str, JobState]] = field(default_factory=dict)  # of the clusters that answer
    records: dict[tuple[str, str], JobState] = field(default_factory=dict)
    gone_since: dict[int, float] = field(default_factory=dict)
    releases: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    say: Callable[[str], None] = lambda text: None
    failing_since: dict[str, float] = field(default_factory=dict)  # squeue, in a row, by cluster
    said: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def poll(self, cells: list[dict[str, Any]]) -> dict[int, Outcome]:
        """The new states of cells (rows of the journal), by id; those without news are left out."""
        with self.lock:
            return self._poll(cells)

    def _poll(self, cells: list[dict[str, Any]]) -> dict[int, Outcome]:
        outcomes = {}
        waiting = []
        for cell, result in _results(cells):
            if result:
                outcomes[cell["id"]] = _finished(result)
            else:
                waiting.append(cell)
        if waiting and time.monotonic() - self.asked >= self.interval:
            self._ask(waiting)
            self.asked = time.monotonic()
            for cell in waiting:
                outcome = self._judge(cell)
                if outcome is not None:
                    outcomes[cell["id"]] = outcome
        return outcomes

    def _ask(self, cells: list[dict[str, Any]]) -> None:
        self.queues, self.records = {}, {}
        if self.cluster != "slurm":
            self.queues[""] = _processes(cells)
            return
        there: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for cell in cells:
            there[cluster_of(cell["job_id"])].append(cell)
        for cluster, its in there.items():
            self._ask_cluster(cluster, its)

    def _ask_cluster(self, cluster: str, cells: list[dict[str, Any]]) -> None:
        """Ask one cluster (empty: the default one) for its cells; where it is silent, nothing is known of them."""
        try:
            self.queues[cluster] = slurm.squeue(cluster)
        except SlurmError as error:
            if not self._fails_for_long(cluster, error):
                return
        else:
            self.failing_since.pop(cluster, None)
            self._release_held(cells)
        gone = [cell for cell in cells if not self._queued(cell)]
        if gone and shutil.which("sacct"):
            try:
                since = min(cell["submitted"] or cell["intended"] for cell in gone)
                numbers = (number_of(submission_of(cell["job_id"])) for cell in gone)
                self.records |= slurm.sacct(numbers, since, cluster)
            except SlurmError as error:
                if cluster not in self.queues:  # else squeue remembers for a while, and result files tell of success
                    self._say_once(
                        f"sacct fails, too{_on(cluster)}: {error}; only the jobs' own result files tell of their end"
                    )

    def _fails_for_long(self, cluster: str, error: SlurmError) -> bool:
        """Whether squeue has failed for so long that sacct has to do without it."""
        now = time.monotonic()
        if now - self.failing_since.setdefault(cluster, now) < self.lost_after:
            return False
        instead = "sacct is asked instead" if shutil.which("sacct") else "there is no sacct to ask instead"
        self._say_once(f"squeue has failed for {self.lost_after:.0f} s{_on(cluster)}: {error}; {instead}")
        return True

    def _say_once(self, text: str) -> None:
        kind = text.partition(":")[0]
        if kind not in self.said:
            self.said.add(kind)
            self.say(text)

    def _queued(self, cell: dict[str, Any]) -> JobState | None:
        state = self.queues.get(cluster_of(cell["job_id"]), {}).get(cell["job_id"])
        return state if state and state.name in (cell["submission"], "") else None

    def _release_held(self, cells: list[dict[str, Any]]) -> None:
        held = []
        for cell in cells:
            state = self._queued(cell)
            if state and state.state == "PENDING" and "launch" in state.reason and "held" in state.reason:
                self.releases[cell["job_id"]] += 1
                if self.releases[cell["job_id"]] <= MAX_RELEASES:
                    held.append(cell["job_id"])
        if held:
            with suppress(SlurmError):
                slurm.release(held)

    def _judge(self, cell: dict[str, Any]) -> Outcome | None:
        recorded = self.records.get((cell["job_id"], cell["submission"]))
        if cluster_of(cell["job_id"]) not in self.queues:
            return self._judge_by_record(cell, recorded) if recorded else None  # nothing known, nothing given up
        queued = self._queued(cell)
        if queued and queued.kind is Kind.LIVE:
            self.gone_since.pop(cell["id"], None)
            changed = (queued.state, queued.reason) != (cell["state"], cell["reason"])
            return Outcome(queued.state, queued.reason, queued.node) if changed else None
        other = _runs_elsewhere(cell)
        if other:
            return Outcome("RUNNING", "adopted from a submission that had seemed to fail", columns={"job_id": other})
        now = time.monotonic()
        gone = now - self.gone_since.setdefault(cell["id"], now)
        last = recorded if recorded and recorded.kind is not Kind.LIVE else queued
        if last is not None and last.kind is not Kind.LIVE:
            return self._ended(cell, last) if gone >= FILE_LATENCY_S else None
        return self._forgotten(cell, gone)

    def _judge_by_record(self, cell: dict[str, Any], recorded: JobState) -> Outcome | None:
        """By sacct alone; it comes late, so that a job it does not know may well run."""
        if recorded.kind is Kind.LIVE:
            self.gone_since.pop(cell["id"], None)
            changed = recorded.state != cell["state"]
            return Outcome(recorded.state, recorded.reason, recorded.node) if changed else None
        now = time.monotonic()
        gone = now - self.gone_since.setdefault(cell["id"], now)
        # one that goes back to the queue by itself has a new record by then
        patience = self.lost_after if recorded.kind is Kind.RETURNS else FILE_LATENCY_S
        return self._ended(cell, recorded) if gone >= patience else None

    def _ended(self, cell: dict[str, Any], last: JobState) -> Outcome | None:
        state = canonical(last.state)
        why = last.reason if last.reason not in ("None", "") else meaning_of(state)
        folder, columns = Path(cell["folder"]), {"ended": time.time()}
        number, _, silent = last_start(folder, cell["task"])
        begun = has_begun(folder, cell["task"], cell["cell"])
        if state in ("FAILED", "CANCELLED") and _over_memory(cell):
            state, why = "OUT_OF_MEMORY", meaning_of("OUT_OF_MEMORY")
        refusal = _refusal(cell) if state == "FAILED" else ""
        if refusal:
            return Outcome(state, refusal, last.node, True, lost=True, columns=columns)
        if last.kind is Kind.RETURNS and self.returns:  # the cluster cancels what it preempts: we bring it back
            return Outcome(state, why, last.node, True, lost=True, columns=columns) if silent >= STALE_S else None
        if number and not begun and state != "CANCELLED":  # another cell of its task was to blame
            return Outcome(state, why, last.node, True, lost=True, columns=columns)
        if state == "COMPLETED":
            state, why = "FAILED", "SLURM says COMPLETED, but the job left no result"
        return Outcome(state, why, last.node, True, 1, columns=columns)

    def _forgotten(self, cell: dict[str, Any], gone: float) -> Outcome | None:
        """Neither squeue nor sacct knows how it ended: by its own signs of life."""
        patience = self.lost_after if self.cluster == "slurm" else FILE_LATENCY_S
        if gone < patience:
            return None
        number, start, silent = last_start(Path(cell["folder"]), cell["task"])
        if not number:
            return Outcome("LOST", "the cluster has forgotten it before it started", ended=True, lost=True)
        if silent < STALE_S and self.cluster == "slurm":
            return None
        return Outcome("LOST", "ended without a result", str(start.get("node", "")), ended=True, exit=1)


def _on(cluster: str) -> str:
    return f" on cluster {cluster}" if cluster else ""


def _results(cells: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each cell with its result file's content; one listing for a folder, however many cells it has."""
    folders: dict[str, set[str]] = {}
    for folder in {cell["folder"] for cell in cells}:
        try:
            folders[folder] = {path.name for path in Path(folder).iterdir()}
        except OSError:
            folders[folder] = set()
    results = []
    for cell in cells:
        name = f"{cell['task']}.{cell['cell']}.json"
        results.append((cell, read_json(Path(cell["folder"]) / name) if name in folders[cell["folder"]] else {}))
    return results


def _finished(result: dict[str, Any]) -> Outcome:
    code = int(result["exit"])
    columns = {
        "job_id": result["job_id"],
        "started": result["cell_started"],
        "ended": result["ended"],
        "task_started": result["task_started"],
        "work_s": result.get("work_s"),
    }
    why = result.get("interrupted", "")
    state = "COMPLETED" if code == 0 else (why.split(",")[0] or "FAILED")
    why = why or (f"exit status {code}" if code else "")
    return Outcome(state, why, result["node"], True, code, lost=state == "BUDGET", columns=columns)


def _refusal(cell: dict[str, Any]) -> str:
    """Why SLURM did not start the job's program, where it has not: a job may begin just as slurmctld ends."""
    lines = _output(cell).strip().splitlines()
    return lines[-1] if lines and NOTHING_STARTED.match(lines[-1]) else ""


def _output(cell: dict[str, Any]) -> str:
    return tail(Path(cell["folder"]) / f"{number_of(cell['job_id'])}_0_log.out")


def _over_memory(cell: dict[str, Any]) -> bool:
    """Whether SLURM's own words in the task's output say so: without cgroups its state is a plain FAILED."""
    text = _output(cell).lower()
    return "memory limit" in text or "oom-kill" in text or "oom_kill" in text


def _runs_elsewhere(cell: dict[str, Any]) -> str | None:
    """The job that runs this cell, where it is not the one that we know of: a ghost submit that came first."""
    number, start, _ = last_start(Path(cell["folder"]), cell["task"])
    other = start.get("job_id") if number else None
    return other if other and other != cell["job_id"] and ":" not in cell["job_id"] else None


def _processes(cells: list[dict[str, Any]]) -> dict[str, JobState]:
    """The same table for processes of this machine: PENDING until they hold what they need, then RUNNING."""
    states = {}
    for cell in cells:
        pid, _, created = cell["job_id"].partition(":")
        try:
            process = psutil.Process(int(pid))
            alive = process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(created)) < 2
        except (psutil.Error, ValueError):
            alive = False
        if alive:
            started = last_start(Path(cell["folder"]), cell["task"])[0]
            states[cell["job_id"]] = JobState(cell["submission"], "RUNNING" if started else "PENDING", "", "")
    return states
