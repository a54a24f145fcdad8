"""SLURM's commands: each one call for everything asked, with no shell, and with errors that say if waiting may help."""

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from snakemake_executor_plugin_submitit import sacct_lines
from snakemake_executor_plugin_submitit.job_states import Kind, canonical, kind_of

TIMEOUT_S = 60.0
CALLS: Counter[str] = Counter()  # how often each command was run

TRANSIENT = (
    *("unable to contact", "socket timed out", "connection refused", "temporarily", "zero bytes", "standby"),
    *("connection timed out", "communication", "try again", "timed out after", "authentication", "credential"),
    *("lost connection", "not responding", "i/o error", "connection reset", "broken pipe"),
)
FULL = ("maxsubmit", "submitjob", "submit limit reached")  # as many jobs as this user may have in the queue


class SlurmError(Exception):
    """A command of SLURM that failed, with what it said."""

    @property
    def transient(self) -> bool:
        """Whether the same call may go through later."""
        return self.full or any(text in str(self).lower() for text in TRANSIENT)

    @property
    def full(self) -> bool:
        """Whether this user has too many jobs in the queue for that one."""
        return any(text in str(self).lower() for text in FULL)


class UnreadableError(SlurmError):
    """sbatch has taken a job, but its number cannot be read."""

    @property
    def transient(self) -> bool:
        """It never goes through: each further call would start the same jobs again."""
        return False

    full = transient


STATE_FIELDS = ("JobID", "State", "NodeList", "Reason", "JobName")
ATTEMPT_FIELDS = ("JobID", "Submit", "Start", "End", "State", "ElapsedRaw", "AllocTRES", "JobName")


@dataclass(frozen=True)
class JobState:
    """What SLURM says of one job (an array's task is a job): name, state, reason, node."""

    name: str
    state: str
    reason: str
    node: str

    @property
    def kind(self) -> Kind:
        """What the state says about the job's future."""
        return kind_of(self.state)


_OF_A_JOB = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_")
_OF_COMMANDS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_")
_ID = re.compile(r"(\d+)(;[\w.-]+)?")


def environment(own_call: bool = False) -> dict[str, str]:
    """Ours without what overrides a job's own options: SBATCH_* and SLURM_*, the user's or an enclosing job's.

    own_call: also without what changes the output of the commands whose output is read here.
    """
    prefixes = (*_OF_A_JOB, *(_OF_COMMANDS if own_call else ()))
    return {key: value for key, value in os.environ.items() if key == "SLURM_CONF" or not key.startswith(prefixes)}


def call(*command: str, timeout: float = TIMEOUT_S) -> str:
    """A command's output. Raises: SlurmError."""
    CALLS[command[0]] += 1
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=timeout,
            env=environment(own_call=command[0] != "sbatch"),  # sbatch hands its environment on to the job
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise SlurmError(f"{command[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} timed out after {timeout:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise SlurmError(f"{command[0]}: {said or f'status {done.returncode}'}")
    return done.stdout.decode(errors="replace")


def sbatch(script: str) -> str:
    """Submit a script; the job's id. Raises: SlurmError; UnreadableError where sbatch names none."""
    printed = call("sbatch", "--parsable", script, timeout=120)
    ids = _ids(printed)
    if len(ids) != 1:
        raise UnreadableError(
            f"sbatch: expected one line that is the number of a job (`123` or `123;cluster`), got {printed.strip()!r}"
        )
    return ids[0]


def squeue() -> dict[str, JobState]:
    """Every job of ours that SLURM still remembers, each task of an array by itself. Raises: SlurmError."""
    printed = call("squeue", "--me", "-h", "-r", "-t", "all", "-o", "%i|%T|%N|%r|%j")
    lines = (line.split("|", 4) for line in printed.split("\n"))
    rows = [row for row in lines if len(row) == 5]  # what else there is comes of other people's job names
    return {job: JobState(name, state, reason, node) for job, state, node, reason, name in rows}


def sacct(jobs: Iterable[str], since: float) -> dict[tuple[str, str], JobState]:
    """The last state on record of each job, by (id, name): an id is used again when slurmctld loses its memory.

    jobs: ids, without array indices. since: a time at or before their submission. Raises: SlurmError.
    """
    states = {}
    ids = sorted(set(jobs))
    for first in range(0, len(ids), 500):
        printed = call(*sacct_lines.command(STATE_FIELDS, since, "-j", ",".join(ids[first : first + 500])))
        for record in sacct_lines.records(printed, STATE_FIELDS):
            job, state, node, reason, name = record.values()
            states[job, name] = JobState(name, canonical(state), reason, node)
    return states


@dataclass(frozen=True)
class Attempt:
    """One allocation of a job: its seconds so far, its GPUs where SLURM accounts for them, and whether it has ended."""

    seconds: int
    gpus: int | None
    ended: bool


def attempts(names: Iterable[str], since: float) -> dict[tuple[str, int], list[Attempt]]:
    """Every attempt on record of arrays' tasks, by (unique name, index); requeued ones too. Raises: SlurmError."""
    known: dict[tuple[str, int], list[Attempt]] = {}
    wanted = sorted(set(names))
    for first in range(0, len(wanted), 200):
        some = ",".join(wanted[first : first + 200])
        printed = call(*sacct_lines.command(ATTEMPT_FIELDS, since, f"--name={some}"))
        printed = "\n".join(dict.fromkeys(printed.split("\n")))  # a line may come twice
        for record in sacct_lines.records(printed, ATTEMPT_FIELDS):
            _, _, index = record["JobID"].partition("_")
            if index and record["ElapsedRaw"].isdigit():
                known.setdefault((record["JobName"], int(index)), []).append(_attempt(record))
    return known


def _attempt(record: dict[str, str]) -> Attempt:
    gpus = sacct_lines.held(record["AllocTRES"]).get("gres/gpu", "")
    ended = record["End"] not in ("Unknown", "None", "")
    return Attempt(int(record["ElapsedRaw"]), int(gpus) if gpus.isdigit() else None, ended)


def find(name: str, since: float) -> str | None:
    """The id of the job with a unique name, if SLURM has one. Raises: SlurmError where it cannot be known."""
    queued = _ids(call("squeue", "--me", "-h", "-t", "all", "--name", name, "-o", "%F"))
    if queued:
        return queued[0]
    if not shutil.which("sacct"):
        return None
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
    try:
        printed = call("sacct", "-X", "-n", "-P", "-S", start, "--name", name, "-o", "JobID")
    except SlurmError as error:
        if error.transient:
            raise
        return None  # accounting is not in use here
    recorded = _ids("\n".join(line.split("_")[0] for line in printed.splitlines()))
    return recorded[0] if recorded else None


def _ids(printed: str) -> list[str]:
    """Jobs' numbers in lines of their own; a site's commands may print a banner beside them."""
    matches = (_ID.fullmatch(line.strip()) for line in printed.splitlines())
    return [match[1] for match in matches if match]


def scancel(jobs: Sequence[str]) -> None:
    """Cancel jobs in one call for a thousand. Raises: SlurmError."""
    for first in range(0, len(jobs), 1000):
        call("scancel", "--quiet", *jobs[first : first + 1000])


def release(jobs: Sequence[str]) -> None:
    """Let held jobs go on. Raises: SlurmError."""
    call("scontrol", "release", ",".join(jobs))


def partitions() -> list[str]:
    """The names of all partitions. Raises: SlurmError."""
    lines = call("sinfo", "-h", "-a", "-o", "partition=%R").splitlines()  # a banner has no such lines
    return sorted({line.strip().removeprefix("partition=") for line in lines if line.startswith("partition=")})


def config() -> dict[str, str]:
    """SLURM's configuration, as `scontrol show config` prints it. Raises: SlurmError."""
    pairs = (line.split("=", 1) for line in call("scontrol", "show", "config").splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}
