"""submitit's executors, with a task's file in its place before the cluster is asked.

submitit moves each pickle to the name of its job after sbatch has returned; a controller killed in between leaves tasks
that find nothing to run. Here a task is found by its array index in the file of its own submission, as JSON.
"""

import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
from submitit import AutoExecutor
from submitit.core.utils import DelayedSubmission
from submitit.local.local import LocalExecutor, LocalJob
from submitit.slurm.slurm import SlurmExecutor, SlurmJob, _make_sbatch_string

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.requests import Request
from snakemake_executor_plugin_submitit.task import REQUEUED_LOCALLY, Task
from snakemake_executor_plugin_submitit.task_file import write_tasks

FOREVER_S = 10 * 365 * 86400
CONTROLLER = (
    "import sys; from pathlib import Path; from submitit.local.local import Controller;"
    "Controller(Path(sys.argv[1])).run(max_retry=int(sys.argv[2]))"
)
WRITTEN = ["cells", "requeue", "max_requeues", "signal_delay_s", "gpus", "gpu_names", "limit_s", "capped", "overrun_s"]
LAUNCHER = [sys.executable, "-u", "-m", "snakemake_executor_plugin_submitit.task"]


class SlurmArrays(SlurmExecutor):
    """One array for each submission, one task too."""

    minutes: int | None = None

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[Any]:
        tasks = _write_tasks(delayed_submissions)
        script = Path(self.folder) / "sbatch.sh"
        command = " ".join([*(shlex.quote(word) for word in LAUNCHER), shlex.quote(str(self.folder))])
        parameters = {"array_parallelism": len(tasks), **self.parameters, "time": self.minutes, "map_count": len(tasks)}
        parameters["wckey"] = None  # else submitit's own, which sites that check such keys refuse
        cpus = parameters.get("cpus_per_task")  # None: the cluster's default, of which srun takes all
        parameters["srun_args"] = [f"--cpus-per-task={cpus}"] if cpus else []  # not taken from the job since 22.05
        script.write_text(_make_sbatch_string(command=command, folder=self.folder, **parameters))
        job_id = slurm.sbatch(str(script))
        return [SlurmJob(folder=self.folder, job_id=f"{job_id}_{task.index}") for task in tasks]


class LocalTasks(LocalExecutor):
    """Processes of this machine, each under submitit's controller, that outlive ours."""

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[Any]:
        return [self._start(task) for task in _write_tasks(delayed_submissions)]

    def _start(self, task: Task) -> Any:
        environment = slurm.environment() | {
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_COMMAND": " ".join(
                shlex.quote(word) for word in [*LAUNCHER, str(self.folder), str(task.index)]
            ),
            "SUBMITIT_LOCAL_TIMEOUT_S": str(FOREVER_S),  # the task keeps the time itself, from when it holds its GPUs
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLER, str(self.folder), str(task.max_requeues + 1)],
            env=environment,
            start_new_session=True,  # a Ctrl-C in our terminal is for us alone
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        created = psutil.Process(process.pid).create_time()
        return LocalJob(folder=self.folder, job_id=f"{process.pid}:{created}", process=process)


class DebugTasks(LocalTasks):
    """One task after the other, in the foreground."""

    def _start(self, task: Task) -> Any:
        command = [*LAUNCHER, str(self.folder), str(task.index)]
        while True:  # without SLURM_*: the task must not touch an allocation that we may run in
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=slurm.environment())
            if process.wait() != REQUEUED_LOCALLY:
                break
        return LocalJob(folder=self.folder, job_id=f"debug-{os.getpid()}", process=process)


def auto_executor(cluster: str, folder: Path, name: str, request: Request, more: dict[str, Any]) -> AutoExecutor:
    """submitit's AutoExecutor for one submission. Raises: RuntimeError without SLURM."""
    auto = AutoExecutor(folder=folder, cluster="slurm" if cluster == "slurm" else "local")
    kinds: dict[str, Any] = {"slurm": SlurmArrays, "local": LocalTasks, "debug": DebugTasks}
    backend = kinds[cluster](folder)
    auto._executor = backend
    auto.update_parameters(name=name, **request.parameters, **more)
    if isinstance(backend, SlurmArrays):
        backend.minutes = request.minutes
    return auto


def unique_name(rule: str) -> str:
    """A job name that no other submission has or will have."""
    plain = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in rule)[:40]
    return f"{plain}-{uuid.uuid4().hex[:12]}"


def _write_tasks(delayed: Sequence[DelayedSubmission]) -> list[Task]:
    """The tasks' file, before anything is submitted."""
    tasks: list[Any] = [one.function for one in delayed]
    write_tasks(tasks[0].folder, [{name: getattr(task, name) for name in WRITTEN} for task in tasks])
    return tasks
