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
from snakemake_executor_plugin_submitit.job_ids import by_cluster, cluster_of, index_of, join, number_of, submission_of
from snakemake_executor_plugin_submitit.job_states import Kind, canonical, kind_of
from snakemake_executor_plugin_submitit.sbatch_errors import Fault, fault_of

TIMEOUT_S = 60.0
CALLS: Counter[str] = Counter()  # how often each command was run


class SlurmError(Exception):
    """A command of SLURM that failed, with what it said."""

    @property
    def fault(self) -> Fault:
        """What it speaks of."""
        return fault_of(str(self))

    @property
    def transient(self) -> bool:
        """Whether the same call may go through later, as far as is known."""
        return self.fault in (Fault.CLUSTER, Fault.FULL)


class UnreadableError(SlurmError):
    """sbatch has taken a job, but its number cannot be read."""

    @property
    def fault(self) -> Fault:
        """It never goes through: each further call would start the same jobs again."""
        return Fault.REQUEST


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
_ID = re.compile(r"\d+(;[\w.-]+)?")
_NAME = re.compile(r"[\w.-]+")


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


def on(cluster: str) -> tuple[str, ...]:
    """The option of SLURM's commands for a cluster; none for the default one."""
    return ("-M", cluster) if cluster else ()


def sbatch(script: str, output: str, clusters: Sequence[str] = ()) -> str:
    """Submit a script; the job's id. output: a pattern; clusters: that the script names, of which SLURM takes one.

    Raises: SlurmError; UnreadableError where sbatch names no job, or not the cluster it has taken.
    """
    printed = call("sbatch", "--parsable", f"--output={output}", script, timeout=120)
    ids = _ids(printed)
    if len(ids) != 1:
        raise UnreadableError(
            f"sbatch: expected one line that is the number of a job (`123` or `123;cluster`), got {printed.strip()!r}"
        )
    if not clusters:
        return number_of(ids[0])
    cluster = cluster_of(ids[0]) or (clusters[0] if len(clusters) == 1 else "")
    if not cluster:
        raise UnreadableError(f"sbatch: expected `123;cluster` with one of {', '.join(clusters)}, got {ids[0]!r}")
    return join(number_of(ids[0]), cluster.lower())


def squeue(cluster: str = "") -> dict[str, JobState]:
    """Every job of ours that a cluster still remembers, each task of an array by itself. Raises: SlurmError."""
    printed = call("squeue", *on(cluster), "--me", "-h", "-r", "-t", "all", "-o", "%i|%T|%N|%r|%j")
    lines = (line.split("|", 4) for line in printed.split("\n"))
    # what else there is comes of other people's job names, or is squeue's line `CLUSTER: NAME`
    rows = [row for row in lines if len(row) == 5]
    return {join(job, cluster): JobState(name, state, reason, node) for job, state, node, reason, name in rows}


def sacct(jobs: Iterable[str], since: float, cluster: str = "") -> dict[tuple[str, str], JobState]:
    """The last state on record of each job, by (id, name): an id is used again when slurmctld loses its memory.

    jobs: numbers on the cluster, without array indices. since: a time at or before their submission.
    Raises: SlurmError.
    """
    states = {}
    ids = sorted(set(jobs))
    for first in range(0, len(ids), 500):
        chosen = (*on(cluster), "-j", ",".join(ids[first : first + 500]))
        printed = call(*sacct_lines.command(STATE_FIELDS, since, *chosen))
        for record in sacct_lines.records(printed, STATE_FIELDS):
            job, state, node, reason, name = record.values()
            states[join(job, cluster), name] = JobState(name, canonical(state), reason, node)
    return states


@dataclass(frozen=True)
class Attempt:
    """One allocation of a job: its seconds so far, its GPUs where SLURM accounts for them, and whether it has ended."""

    seconds: int
    gpus: int | None
    ended: bool


def attempts(names: Iterable[str], since: float, cluster: str = "") -> dict[tuple[str, int], list[Attempt]]:
    """Every attempt that a cluster has on record of arrays' tasks, by (unique name, index); requeued ones too.

    Raises: SlurmError.
    """
    known: dict[tuple[str, int], list[Attempt]] = {}
    wanted = sorted(set(names))
    for first in range(0, len(wanted), 200):
        some = ",".join(wanted[first : first + 200])
        printed = call(*sacct_lines.command(ATTEMPT_FIELDS, since, *on(cluster), f"--name={some}"))
        printed = "\n".join(dict.fromkeys(printed.split("\n")))  # a line may come twice
        for record in sacct_lines.records(printed, ATTEMPT_FIELDS):
            if record["ElapsedRaw"].isdigit():
                known.setdefault((record["JobName"], index_of(record["JobID"])), []).append(_attempt(record))
    return known


def _attempt(record: dict[str, str]) -> Attempt:
    gpus = sacct_lines.held(record["AllocTRES"]).get("gres/gpu", "")
    ended = record["End"] not in ("Unknown", "None", "")
    return Attempt(int(record["ElapsedRaw"]), int(gpus) if gpus.isdigit() else None, ended)


def find(name: str, since: float, clusters: Sequence[str] = ()) -> str | None:
    """The id of the job with a unique name, if SLURM has one on the clusters that its submission named.

    Raises: SlurmError where it cannot be known: a cluster that does not answer may have it.
    """
    silent: SlurmError | None = None
    for cluster in clusters or ("",):
        try:
            number = _find(name, since, cluster)
        except SlurmError as error:
            silent = silent or error
        else:
            if number:
                return join(number, cluster)
    if silent:
        raise silent
    return None


def _find(name: str, since: float, cluster: str) -> str | None:
    silent: SlurmError | None = None
    try:
        queued = _ids(call("squeue", *on(cluster), "--me", "-h", "-t", "all", "--name", name, "-o", "%F"))
        if queued:
            return number_of(queued[0])
    except SlurmError as error:
        if error.transient:
            raise
        silent = error  # it may fail for ever: what sacct knows counts then
    if not shutil.which("sacct"):
        if silent:
            raise silent
        return None
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
    try:
        printed = call("sacct", *on(cluster), "-X", "-n", "-P", "-S", start, "--name", name, "-o", "JobID")
    except SlurmError as error:
        if error.transient or silent:
            raise
        return None  # accounting is not in use here
    recorded = _ids("\n".join(submission_of(line) for line in printed.splitlines()))
    return number_of(recorded[0]) if recorded else None


def _ids(printed: str) -> list[str]:
    """Jobs' ids in lines of their own; a site's commands may print a banner beside them."""
    lines = (line.strip() for line in printed.splitlines())
    return [line for line in lines if _ID.fullmatch(line)]


def scancel(jobs: Iterable[str]) -> None:
    """Cancel jobs, in one call for a thousand of a cluster. Raises: SlurmError, once all clusters have been asked."""
    failed: SlurmError | None = None
    for cluster, numbers in by_cluster(jobs).items():
        try:
            for first in range(0, len(numbers), 1000):
                call("scancel", *on(cluster), "--quiet", *numbers[first : first + 1000])
        except SlurmError as error:
            failed = failed or error
    if failed:
        raise failed


def scancel_named(name: str, clusters: Sequence[str] = ()) -> None:
    """Cancel the job with a unique name on the clusters that its submission named. Raises: see scancel."""
    failed: SlurmError | None = None
    for cluster in clusters or ("",):
        try:
            call("scancel", *on(cluster), "--quiet", f"--name={name}")
        except SlurmError as error:
            failed = failed or error
    if failed:
        raise failed


def release(jobs: Iterable[str]) -> None:
    """Let held jobs go on. Raises: SlurmError."""
    for cluster, numbers in by_cluster(jobs).items():
        call("scontrol", *on(cluster), "release", ",".join(numbers))


def clusters() -> list[str]:
    """The names of all clusters that accounting knows. Raises: SlurmError."""
    lines = call("sacctmgr", "-n", "-P", "list", "clusters", "format=cluster").splitlines()
    return sorted({line.strip().lower() for line in lines if _NAME.fullmatch(line.strip())})


def partitions(cluster: str = "") -> list[str]:
    """The names of all partitions of a cluster. Raises: SlurmError."""
    lines = call("sinfo", *on(cluster), "-h", "-a", "-o", "partition=%R").splitlines()  # a banner has no such lines
    return sorted({line.strip().removeprefix("partition=") for line in lines if line.startswith("partition=")})


def config(cluster: str = "") -> dict[str, str]:
    """A cluster's configuration, as `scontrol show config` prints it. Raises: SlurmError."""
    printed = call("scontrol", *on(cluster), "show", "config")
    pairs = (line.split("=", 1) for line in printed.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}
