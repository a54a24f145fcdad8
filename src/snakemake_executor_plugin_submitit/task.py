"""What runs inside a task: its cells one after the other, streamed to their logs, through requeues and crashes.

    python -m snakemake_executor_plugin_submitit.task FOLDER [INDEX]

Imports the standard library and psutil alone: a task should be at work in a tenth of a second. `FOLDER/tasks.jsonl`
says what to run; `INDEX.CELL.json` says how a cell ended. It is written once, whole, and is the first thing that the
controller asks.

A program that wants to be continued after a time limit or a preemption catches SIGUSR2 (or SIGTERM), saves what it has
and ends with a failure in the time that is left; its task then requeues itself. One without a handler never notices:
SLURM sends SIGUSR2 to the task alone, which hands it to those that listen (save_signal.py).
"""

import os
import signal
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]

from snakemake_executor_plugin_submitit.begun import begin, is_revoked
from snakemake_executor_plugin_submitit.fencing import HEARTBEAT_S, Start
from snakemake_executor_plugin_submitit.gpus import GpuSlots
from snakemake_executor_plugin_submitit.own_job import job_id, node, on_slurm, requeue
from snakemake_executor_plugin_submitit.program import spawn
from snakemake_executor_plugin_submitit.save_signal import ask_to_save
from snakemake_executor_plugin_submitit.shared_files import read_json, write_json
from snakemake_executor_plugin_submitit.task_file import read_task
from snakemake_executor_plugin_submitit.time_limit import TimeLimit

GRACE_S = 1.0  # a failure may be the first sign of a signal to all processes: wait so long for our own copy of it
EARLY_S = 60.0  # SLURM may send SIGUSR2 so long before it was to (sbatch, --signal)
KILL_WAIT_S = 10.0  # from SIGTERM to SIGKILL, where SLURM does not send them
FENCED = 75  # exit status of a task that is not (or no longer) allowed to run
USED_UP = "BUDGET, it has held its GPUs for as long as was reserved for it"
PID_FILE = "SUBMITIT_PID_FILE"  # where a batch script looks for the process that is to have SIGUSR2
REQUEUED_LOCALLY = 144  # submitit's sign to its local controller (submitit.local.local.LOCAL_REQUEUE_RETURN_CODE)


@dataclass
class Task:
    """One task: a callable with a `checkpoint()`, as submitit's are.

    cells: dicts of `name`, `log`, `env` and either `argv`, a command, or `snakemake`, arguments of a Snakemake that is
    forked, not started. gpu_names: the GPUs of this machine to choose `gpus` from; None where SLURM hands them out.
    limit_s: seconds from the first cell on that the task may take; None where SLURM keeps the time.
    capped: under a budget of GPU-hours. limit_s is then for all starts together, counted as SLURM counts, from the
    latest on that the controller has granted the whole of it. overrun_s: see seconds_held.
    clusters: that the submission named.
    """

    folder: Path
    index: int
    cells: list[dict[str, Any]]
    requeue: bool = True
    max_requeues: int = 10
    signal_delay_s: int = 60
    gpus: int = 0
    gpu_names: list[str] | None = None
    limit_s: float | None = None
    capped: bool = False
    overrun_s: float = 0.0
    clusters: list[str] = field(default_factory=list)
    asked_at: float = 0.0  # when SIGUSR2 came
    asked: set[int] = field(default_factory=set)  # processes that listened, and were told
    terminated: float = 0.0  # when SIGTERM came
    child: int = 0
    code: int = 1  # exit status of the last child
    cell_started: float = field(default_factory=time.time)

    @cached_property
    def start(self) -> Start:
        """This process's start of the task; a controller, which submits thousands, makes none."""
        return Start(self.folder, self.index, job_id(self.clusters), waits=self.gpu_names is not None)

    @cached_property
    def limit(self) -> TimeLimit:
        """How long that start may hold what the task asked for."""
        return TimeLimit(self.start, self.limit_s, self.capped, self.overrun_s)

    @classmethod
    def load(cls, folder: Path, index: int) -> "Task":
        """Read what the controller wrote."""
        return cls(folder=folder, index=index, **read_task(folder, index))

    def __call__(self) -> int:
        """Run every cell that has not succeeded yet; the exit status of the task."""
        signal.signal(signal.SIGUSR2, self._on_usr2)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, self._on_limit)
        if PID_FILE in os.environ:
            write_json(Path(os.environ.pop(PID_FILE)), os.getpid(), durable=False)
        if not self.start.take():
            return FENCED
        try:
            with self._slots() as environment:
                return self._run_cells(environment or {})
        finally:
            self.start.end()

    def checkpoint(self) -> None:
        """Pass SIGUSR2 on, and wait as long as SLURM lets us until the program has saved and ended.

        It may come early, when the program is still starting: who listens only later gets it then.
        """
        until = self.asked_at + max(1.0, self.signal_delay_s - 3) + (EARLY_S if on_slurm() else 0.0)
        while self.child and time.time() < until:
            self.asked |= ask_to_save(self.asked)
            self._wait(min(until, time.time() + 1.0))

    def _slots(self) -> Any:
        return nullcontext({}) if self.gpu_names is None else GpuSlots(self.gpus, self.gpu_names, self._waiting)

    def _waiting(self) -> bool:
        self._beat()
        return bool(self.terminated)

    def _run_cells(self, environment: dict[str, str]) -> int:
        status = 0
        self.asked_at, self.asked = 0.0, set()  # a signal while waiting for GPUs is for no cell
        self.limit.begin()
        if self.gpu_names is not None:
            self.start.holds()
        left = self._unfinished() is not None
        if left and not self.limit.is_whole() and self.limit.ends_at - time.time() < self.signal_delay_s:
            return self._give_up()
        for number, cell in enumerate(self.cells):
            if read_json(self._result_file(number)).get("exit") == 0:
                continue
            if not self.terminated:
                if not begin(self.folder, self.index, number, cell.get("inputs", [])):
                    continue  # revoked: its controller has given it to another task
                self._run(number, cell, environment)
            if self.child:
                self._await_limit(number)
            if self.terminated:
                return 128 + signal.SIGTERM
            if self.asked and self.code:
                return self._stop(number)
            status = status or self.code
        return status

    def _give_up(self) -> int:
        """End this start, because what its task may hold is used up; the controller submits the rest anew."""
        number = self._unfinished()
        if number is not None:
            self._write_result(number, 1, interrupted=USED_UP)
        return 1

    def _unfinished(self) -> int | None:
        """A cell without a result, else one that has failed; none where all have succeeded or are not wanted."""
        results = [read_json(self._result_file(number)).get("exit") for number in range(len(self.cells))]
        wanted = [number for number in range(len(results)) if not is_revoked(self.folder, self.index, number)]
        order = sorted(wanted, key=lambda number: results[number] is not None)
        return next((number for number in order if results[number] != 0), None)

    def _run(self, number: int, cell: dict[str, Any], environment: dict[str, str]) -> None:
        log = Path(cell["log"])
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        where = f"job {self.start.job_id}, start {self.start.number}, on {node()} at {time.strftime('%F %T')}"
        os.write(descriptor, f"=== {cell['name']}: {where}\n".encode())
        work = self.folder / f"{self.index}.{number}.work"
        self.cell_started, self.code = time.time(), 1
        self.child = spawn(cell, cell["env"] | environment, descriptor, work)
        os.close(descriptor)
        self._wait(float("inf"))
        if self.code:
            self._wait_for_signal()
        if not (self.terminated or self.child or (self.asked and self.code)):
            self._write_result(number, self.code, work_s=read_json(work).get("seconds"))

    def _wait(self, until: float) -> None:
        """Wait for the child to end, `until` then at most; beats meanwhile."""
        beaten = 0.0
        while self.child and time.time() < until:
            ended, status = os.waitpid(self.child, os.WNOHANG)
            if ended:
                self.child = 0
                self.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
                return
            if time.time() > self.limit.ends_at - self.signal_delay_s:
                self.asked_at = self.asked_at or time.time()
            if time.time() > self.limit.ends_at:
                self._on_limit()
            if self.terminated and time.time() > self.terminated + KILL_WAIT_S and not on_slurm():
                self._signal_children(signal.SIGKILL)
            if self.asked_at and until == float("inf"):
                self.checkpoint()
                return
            if time.monotonic() - beaten > HEARTBEAT_S:
                beaten = time.monotonic()
                self._beat()
            time.sleep(0.01 if time.time() < self.cell_started + 10 else 0.05)  # short cells end soon

    def _wait_for_signal(self) -> None:
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end and not (self.terminated or self.asked_at):
            time.sleep(0.02)

    def _beat(self) -> None:
        if self.start.superseded():
            print("a newer start of this task exists: this one makes way", file=sys.stderr)
            self._signal_children(signal.SIGKILL)
            self.start.end()
            os._exit(FENCED)
        if self.capped and self.start.number > 1:
            self.limit.set_end()  # the controller may have granted us more

    def _result_file(self, number: int) -> Path:
        return self.folder / f"{self.index}.{number}.json"

    def _write_result(self, number: int, code: int, **more: Any) -> None:
        result = {
            "exit": code,
            "job_id": self.start.job_id,
            "node": node(),
            "start": self.start.number,
            "task_started": psutil.Process().create_time(),
            "cell_started": self.cell_started,
            "ended": time.time(),
        }
        write_json(self._result_file(number), result | more)

    def _on_usr2(self, *_: Any) -> None:
        self.asked_at = self.asked_at or time.time()

    def _on_term(self, *_: Any) -> None:
        self.terminated = self.terminated or time.time()
        if not on_slurm():  # SLURM sends it to every process itself
            self._signal_children(signal.SIGTERM)

    def _on_limit(self, *_: Any) -> None:
        """End at the time limit, where SLURM does not do it."""
        self._signal_children(signal.SIGKILL)
        if not self.terminated:
            number = self._unfinished()
            if number is not None:
                self._write_result(number, 1, interrupted="TIMEOUT" if self.limit.is_whole() else USED_UP)
        self.start.end()
        os._exit(1)

    def _signal_children(self, number: int) -> None:
        with suppress(psutil.Error):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    process.send_signal(number)

    def _await_limit(self, cell: int) -> None:
        """A program that did not end on SIGUSR2 in time goes on for as long as it may."""
        print("the program did not end on SIGUSR2 in time: left to the time limit", file=sys.stderr)
        self._wait(time.time() + 10 * 365 * 86400)
        self.asked_at, self.asked = 0.0, set()
        if not self.terminated:
            self._write_result(cell, self.code)

    def _stop(self, cell: int) -> int:
        """After SIGUSR2: back into the queue if the program has saved and ended; else a result that says why."""
        if self.requeue and self.start.number <= self.max_requeues:
            if self.capped and self.limit.left() < 2 * self.signal_delay_s:
                return self._give_up()
            if self._requeue():
                return REQUEUED_LOCALLY
        reason = f"after {self.max_requeues} requeues" if self.requeue else "requeueing is switched off"
        self._write_result(cell, 1, interrupted=f"INTERRUPTED, {reason}")
        return 1

    def _requeue(self) -> bool:
        if not on_slurm():
            return True  # submitit's local controller starts us again
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # else the requeue that we ask for would kill its own request
        self.start.end()
        return requeue()


def main() -> None:
    """Run the task named on the command line, or by SLURM's array index."""
    folder = Path(sys.argv[1])
    index = int(sys.argv[2] if len(sys.argv) > 2 else os.environ["SLURM_ARRAY_TASK_ID"])
    try:
        task = Task.load(folder, index)
    except FileNotFoundError:
        print(f"{folder}/{index}.json is gone: this task was given up", file=sys.stderr)
        sys.exit(FENCED)
    sys.exit(task())


if __name__ == "__main__":
    main()
