"""What a cluster has and allows, asked once before anything is submitted."""

import difflib
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.gpus import local_gpus
from snakemake_executor_plugin_submitit.requests import Request
from snakemake_executor_plugin_submitit.settings import ExecutorSettings


@dataclass(frozen=True)
class Cluster:
    """Most tasks of an array; partitions, where the cluster has them; GPUs, where it is this machine.

    arrays: whether it has any. names: of the clusters of which SLURM takes one; what holds for any of them counts.
    overrun_s: seconds that a job which died may have held its node after its last sign of life.
    """

    array_limit: int
    partitions: list[str] | None = None
    gpus: int | None = None
    overrun_s: int = 0
    arrays: bool = True
    names: tuple[str, ...] = ()

    def check(self, rule: str, request: Request) -> None:
        """Raises: WorkflowError where a rule asks for what is not there."""
        partition = request.parameters.get("slurm_partition")
        if self.partitions is not None and partition:
            for name in str(partition).split(","):
                if name not in self.partitions:
                    where = f" on {' or '.join(self.names)}" if self.names else ""
                    known = expected(name, self.partitions)
                    raise WorkflowError(f"rule {rule}: partition {name!r} does not exist{where}, {known}")
        if self.gpus is not None and request.gpus > self.gpus:
            raise WorkflowError(
                f"rule {rule}, resource gpu={request.gpus} (or as much by gpu_model or gres): this machine has "
                f"{self.gpus} GPUs to hand out; --submitit-gpus N sets their number"
            )


class NamedClusters:
    """The clusters that rules name, each asked once, and only if one does."""

    def __init__(self, settings: ExecutorSettings, logger: Any) -> None:
        self.settings, self.logger = settings, logger
        self.answers: dict[str, Cluster] = {}
        self.choices: dict[tuple[str, ...], Cluster] = {}
        self.known: list[str] | None = None  # to accounting; empty: it does not say

    def check(self, rule: str, request: Request) -> None:
        """Raises: WorkflowError where a rule names a cluster that does not exist, or asks for what is not there."""
        if self.known is None:
            try:
                self.known = slurm.clusters()
            except slurm.SlurmError as error:
                self.logger.warning(f"{error}; the names of clusters are not checked")
                self.known = []
        for name in request.clusters:
            if self.known and name not in self.known:
                raise WorkflowError(
                    f"rule {rule}, resource clusters: {name!r} does not exist, {expected(name, self.known)}"
                )
        self.of(request.clusters).check(rule, request)

    def of(self, names: Sequence[str]) -> Cluster:
        """What may be asked for where SLURM takes one of these clusters. Raises: WorkflowError where none answers."""
        choice = tuple(names)
        if choice not in self.choices:
            self.choices[choice] = reach(choice, self.answers, int(self.settings.array_limit or 1000), self.logger)
        return self.choices[choice]

    @property
    def overrun_s(self) -> int:
        """The longest of those asked by now."""
        return max((one.overrun_s for one in self.answers.values()), default=0)


def expected(name: str, known: Collection[str]) -> str:
    """What there is instead of a name that there is not, the nearest first."""
    near = difflib.get_close_matches(name, known, 1)
    return f"expected one of {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else "")


def reach_cluster(settings: ExecutorSettings, logger: Any) -> Cluster:
    """Look at the default cluster; waits for minutes where SLURM does not answer. Raises: WorkflowError."""
    limit = int(settings.array_limit or 1000)
    if settings.cluster != "slurm":
        return Cluster(limit, gpus=len(local_gpus(settings.gpus)))
    missing = [name for name in ("sbatch", "squeue", "scancel", "srun") if not shutil.which(name)]
    if missing:
        raise WorkflowError(
            f"--submitit-cluster slurm: {', '.join(missing)} not found. Run this on a login node of a SLURM cluster, "
            "or use --submitit-cluster local"
        )
    return reach(("",), {}, limit, logger)


def reach(names: Sequence[str], answers: dict[str, Cluster], limit: int, logger: Any) -> Cluster:
    """What these clusters allow together; of several, those count that answer. Waits for minutes while none does.

    answers: what they have said before, which is added to. Raises: WorkflowError.
    """
    for attempt in range(30):
        silent: list[slurm.SlurmError] = []
        for name in names:
            try:
                answers[name] = answers.get(name) or _ask(name, limit)
            except slurm.SlurmError as error:
                silent.append(error)
        answered = [name for name in names if name in answers]
        if answered:
            for one in silent:
                logger.warning(f"{one}; what the other clusters have is all that is checked")
            return _together({name: answers[name] for name in answered})
        if not all(one.transient for one in silent):
            break
        logger.warning(f"{silent[0]}; waiting for it")
        time.sleep(min(10, 1 + attempt))
    where = f" on {' or '.join(filter(None, names))}" if any(names) else ""
    raise WorkflowError(f"SLURM does not answer{where}: {silent[0]}")


def _ask(name: str, limit: int) -> Cluster:
    config = slurm.config(name)
    allowed = int(config.get("MaxArraySize", limit))
    overrun = sum(_seconds(config.get(key, "")) for key in ("KillWait", "SlurmdTimeout"))
    most = max(1, min(limit, allowed))  # MaxArraySize=0 switches arrays off
    return Cluster(most, slurm.partitions(name), overrun_s=overrun, arrays=allowed > 0)


def _together(answers: dict[str, Cluster]) -> Cluster:
    """A job may go to any of them; a partition that only some have keeps it to those."""
    found = answers.values()
    return Cluster(
        min(one.array_limit for one in found),
        sorted({partition for one in found for partition in one.partitions or []}),
        overrun_s=max(one.overrun_s for one in found),
        arrays=all(one.arrays for one in found),
        names=tuple(filter(None, answers)),
    )


def _seconds(text: str) -> int:
    """Of `30 sec`; five minutes where the configuration does not say."""
    number = text.partition(" ")[0]
    return int(number) if number.isdigit() else 300
