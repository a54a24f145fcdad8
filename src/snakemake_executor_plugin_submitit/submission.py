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
from snakemake_executor_plugin_submitit.forks import Forks
from snakemake_executor_plugin_submitit.job_ids import tasks_of
from snakemake_executor_plugin_submitit.requests import Request
from snakemake_executor_plugin_submitit.save_signal import BATCH
from snakemake_executor_plugin_submitit.task import PID_FILE, REQUEUED_LOCALLY, Task
from snakemake_executor_plugin_submitit.task_file import write_tasks

FOREVER_S = 10 * 365 * 86400
CONTROLLER = (  # its log is named here: submitit replaces %j and its kin in the whole path
    "import sys; from pathlib import Path; from submitit.core.utils import JobPaths;"
    "from submitit.local.local import Controller; folder = Path(sys.argv[1]);"
    "JobPaths.stdout = property(lambda self: folder / f'{self.job_id}_{self.task_id}_log.out');"
    "Controller(folder).run(max_retry=int(sys.argv[2]))"
)
NO_OUTPUT = "#SBATCH --output=None\n"
WRITTEN = ["cells", "requeue", "max_requeues", "signal_delay_s", "gpus", "gpu_names", "limit_s", "capped", "overrun_s"]
WRITTEN += ["clusters"]
STEP = """\
# SIGUSR2 comes to this shell alone, which hands it to the task; the task asks whom it concerns
early=
trap early=1 USR2
export {batch}=$$
export {pid}={folder}/"${{SLURM_ARRAY_TASK_ID:-0}}.$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}.pid"
hand_on() {{
    again=1
    until kill -USR2 "$(cat "${pid}" 2>/dev/null)" 2>/dev/null; do  # it may not have begun
        kill -0 "$step" 2>/dev/null || break
        sleep 1
    done
}}
{step} &
step=$!
trap hand_on USR2
[ -z "$early" ] || hand_on
again=1
while [ "$again" ]; do again=; wait "$step"; code=$?; done
exit "$code"
"""
LAUNCHER = [sys.executable, "-u", "-m", "snakemake_executor_plugin_submitit.task"]


class SlurmArrays(SlurmExecutor):
    """One array for each submission, one task too; a job by itself where the cluster has no arrays."""

    minutes: int | None = None
    arrays: bool = True
    clusters: Sequence[str] = ()

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[Any]:
        tasks = _write_tasks(delayed_submissions)
        script = Path(self.folder) / "sbatch.sh"
        pattern, redirection = log_of(Path(self.folder), self.arrays)
        script.write_text(self._script(tasks, redirection))
        job_id = slurm.sbatch(str(script), pattern, self.clusters)
        names = tasks_of(job_id, len(tasks), self.arrays)
        return [SlurmJob(folder=self.folder, job_id=name) for name in names]

    def _script(self, tasks: list[Task], redirection: str) -> str:
        """The batch script. Its step shares all that the job has with the steps that a rule starts by itself."""
        parameters = {"array_parallelism": len(tasks), **self.parameters, "time": self.minutes}
        parameters["map_count"] = len(tasks) if self.arrays else None
        parameters["wckey"] = None  # else submitit's own, which sites that check such keys refuse
        parameters["use_srun"] = False  # not by submitit, which would send the signal to every process
        parameters["additional_parameters"] = {
            **(parameters.get("additional_parameters") or {}),
            "output": None,  # on the command line, where no line break or quote in a path matters
            "signal": f"B:USR2@{parameters['signal_delay_s']}",
        }
        cpus = parameters.get("cpus_per_task")  # None: the cluster's default, of which srun takes all
        step = ["srun", "--overlap", "--unbuffered", "--ntasks=1"]
        step += [f"--cpus-per-task={cpus}"] if cpus else []  # not taken from the job since 22.05
        words = shlex.join([*step, *LAUNCHER, str(self.folder), *([] if self.arrays else ["0"])])
        command = STEP.format(
            folder=shlex.quote(str(self.folder)), batch=BATCH, pid=PID_FILE, step=f"{words} {redirection}".rstrip()
        )
        return _make_sbatch_string(command=command, folder="/", **parameters).replace(NO_OUTPUT, "")


class LocalTasks(LocalExecutor):
    """Processes of this machine, each under submitit's controller or forked by a server, that outlive ours."""

    forks: Forks | None = None

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[Any]:
        return [self._start(task) for task in _write_tasks(delayed_submissions)]

    def _start(self, task: Task) -> Any:
        if self.forks:
            environment = slurm.environment() | {"SUBMITIT_EXECUTOR": "local"}
            made = self.forks.task(Path(self.folder), task.index, task.max_requeues + 1, environment)
            return LocalJob(folder=self.folder, job_id=made)
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


def auto_executor(
    cluster: str,
    folder: Path,
    name: str,
    request: Request,
    more: dict[str, Any],
    arrays: bool = True,
    forks: Forks | None = None,
) -> AutoExecutor:
    """submitit's AutoExecutor for one submission. Raises: RuntimeError without SLURM."""
    auto = AutoExecutor(folder=folder, cluster="slurm" if cluster == "slurm" else "local")
    kinds: dict[str, Any] = {"slurm": SlurmArrays, "local": LocalTasks, "debug": DebugTasks}
    backend = kinds[cluster](folder)
    auto._executor = backend
    auto.update_parameters(name=name, **request.parameters, **more)
    if isinstance(backend, SlurmArrays):
        backend.minutes, backend.arrays, backend.clusters = request.minutes, arrays, request.clusters
    if isinstance(backend, LocalTasks):
        backend.forks = forks
    return auto


def log_of(folder: Path, arrays: bool) -> tuple[str, str]:
    """sbatch's pattern for the output of a submission's tasks, and a redirection where there is none for its path."""
    name = "%A_%a_0_log.out" if arrays else "%j_0_log.out"
    if not set(str(folder)) & set("\\\n"):
        return str(folder).replace("%", "%%") + f"/{name}", ""
    # a backslash anywhere keeps sbatch from reading patterns at all, and vanishes
    job = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" if arrays else "${SLURM_JOB_ID}"
    return "/dev/null", f'>> {shlex.quote(str(folder))}/"{job}_0_log.out" 2>&1'


def unique_name(rule: str) -> str:
    """A job name that no other submission has or will have."""
    plain = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in rule)[:40]
    return f"{plain}-{uuid.uuid4().hex[:12]}"


def _write_tasks(delayed: Sequence[DelayedSubmission]) -> list[Task]:
    """The tasks' file, before anything is submitted."""
    tasks: list[Any] = [one.function for one in delayed]
    write_tasks(tasks[0].folder, [{name: getattr(task, name) for name in WRITTEN} for task in tasks])
    return tasks
