"""What the cluster has and allows, asked once before anything is submitted."""

import shutil
import time
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

    overrun_s: seconds that a job which died may have held its node after its last sign of life.
    """

    array_limit: int
    partitions: list[str] | None = None
    gpus: int | None = None
    overrun_s: int = 0

    def check(self, rule: str, request: Request) -> None:
        """Raises: WorkflowError where a rule asks for what is not there."""
        partition = request.parameters.get("slurm_partition")
        if self.partitions is not None and partition:
            for name in str(partition).split(","):
                if name not in self.partitions:
                    known = ", ".join(self.partitions)
                    raise WorkflowError(f"rule {rule}: partition {name!r} does not exist, expected one of {known}")
        if self.gpus is not None and request.gpus > self.gpus:
            raise WorkflowError(
                f"rule {rule}, resource gpu={request.gpus} (or as much by gpu_model or gres): this machine has "
                f"{self.gpus} GPUs to hand out; --submitit-gpus N sets their number"
            )


def reach_cluster(settings: ExecutorSettings, logger: Any) -> Cluster:
    """Look at the cluster; waits for minutes where SLURM does not answer. Raises: WorkflowError."""
    limit = int(settings.array_limit or 1000)
    if settings.cluster != "slurm":
        return Cluster(limit, gpus=len(local_gpus(settings.gpus)))
    missing = [name for name in ("sbatch", "squeue", "scancel", "srun") if not shutil.which(name)]
    if missing:
        raise WorkflowError(
            f"--submitit-cluster slurm: {', '.join(missing)} not found. Run this on a login node of a SLURM cluster, "
            "or use --submitit-cluster local"
        )
    for attempt in range(30):
        try:
            config = slurm.config()
            allowed = int(config.get("MaxArraySize", limit))
            overrun = sum(_seconds(config.get(key, "")) for key in ("KillWait", "SlurmdTimeout"))
            return Cluster(min(limit, allowed), slurm.partitions(), overrun_s=overrun)
        except slurm.SlurmError as error:
            reason = error
        if not reason.transient:
            break
        logger.warning(f"{reason}; waiting for it")
        time.sleep(min(10, 1 + attempt))
    raise WorkflowError(f"SLURM does not answer: {reason}")


def _seconds(text: str) -> int:
    """Of `30 sec`; five minutes where the configuration does not say."""
    number = text.partition(" ")[0]
    return int(number) if number.isdigit() else 300
