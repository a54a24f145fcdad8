"""Every setting, once: the command line (`--submitit-...`), a profile's keys and the docs are made from this class."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from snakemake_executor_plugin_submitit.takeover import install

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=0,
    pass_group_args=True,
)


FOLDER = ".submitit"  # as text: the catalog of plugins writes defaults down as JSON


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text, "env_var": False, "required": False})


@dataclass
class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc,unused-ignore]
    """Settings of the executor. Raises: WorkflowError that names the setting."""

    cluster: Optional[str] = _setting(
        "slurm",
        "Where jobs run: `slurm`; `local`, as processes of this machine; `debug`, one by one in the foreground.",
    )
    clusters: Optional[str] = _setting(
        None,
        "SLURM's clusters for rules without the resource `clusters`: a name, or several with commas, of which SLURM "
        "takes one; the default cluster if not set.",
    )
    folder: Optional[Path] = _setting(
        FOLDER, "Folder of the journal and of the jobs' files, in a file system that all nodes share."
    )
    logdir: Optional[Path] = _setting(None, "Folder of the jobs' logs, RULE/JOB.log each; `logs` in the folder above.")
    partition: Optional[str] = _setting(None, "Partition of rules without the resource `slurm_partition`.")
    account: Optional[str] = _setting(None, "Account of rules without the resource `slurm_account`.")
    qos: Optional[str] = _setting(None, "Quality of service of rules without the resource `qos`.")
    constraint: Optional[str] = _setting(None, "Node features for rules without the resource `constraint`.")
    gres: Optional[str] = _setting(None, "Generic resources of rules without the resources `gres` and `gpu`.")
    extra: Optional[str] = _setting(None, "More options of sbatch, as `--key=value ...`, none that the plugin manages.")
    gpus: Optional[int] = _setting(
        None, "GPUs of this machine that `local` hands out, from 0 on; if not set, those that are visible."
    )
    least_mem_mb: Optional[int] = _setting(
        256, "Least memory of a job: a rule that asks for less gets this, since its Snakemake alone needs some 150 MB."
    )
    array_limit: Optional[int] = _setting(
        1000, "Most tasks of one array; SLURM's own limit, MaxArraySize, holds as well."
    )
    array_parallelism: Optional[int] = _setting(None, "Most tasks of one array that run at once; no limit if not set.")
    pack: Optional[int] = _setting(
        1, "Cells of one rule that one task runs, one after the other; the resource `pack` of a rule comes first."
    )
    preload: Optional[str] = _setting(
        None, "Modules, separated by commas, that a task imports once for the Python scripts of all its cells: `torch`."
    )
    fork_server: bool = _setting(
        False,
        "On this machine (`local`): tasks are forks of one process that has imported Snakemake and the modules of "
        "`preload` once. A job starts in a fraction of a second.",
    )
    submissions_per_minute: Optional[int] = _setting(None, "Most calls of sbatch in a minute; no limit if not set.")
    submit_patience: Optional[int] = _setting(
        60, "Minutes for which a submission is tried again while SLURM cannot be reached or takes no more jobs."
    )
    status_interval: Optional[int] = _setting(
        10, "Seconds between calls of squeue and sacct: one of each for each cluster in use."
    )
    lost_after: Optional[int] = _setting(
        120, "Seconds after which a job that SLURM has forgotten and that shows no sign of life is given up."
    )
    requeue: Optional[str] = _setting(
        "always", "`always`: jobs go back to the queue after preemption, node failure or a saved time-out; or `never`."
    )
    max_requeues: Optional[int] = _setting(20, "How often a job may requeue itself after SIGUSR2.")
    signal_delay: Optional[int] = _setting(
        60, "Seconds before its time limit at which a job gets SIGUSR2, to save what it has."
    )
    gpu_hours: Optional[float] = _setting(
        None,
        "Budget of GPU-hours over all runs on a journal (and of a `study`, where the config has that key): no job goes "
        "out that could pass it. If not set, the config's `budget: {gpu_hours: N}`, else no limit.",
    )
    on_interrupt: Optional[str] = _setting(
        "cancel", "What Ctrl-C does to the jobs: `cancel`; or `detach`, which lets them go on. SIGUSR1 always detaches."
    )

    def __post_init__(self) -> None:
        choices = {
            "cluster": ("slurm", "local", "debug"),
            "requeue": ("always", "never"),
            "on_interrupt": ("cancel", "detach"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                hint = "; names of SLURM's clusters go to --submitit-clusters" if name == "cluster" else ""
                raise bad(name, getattr(self, name), f"expected {' or '.join(allowed)}{hint}")
        least = {"array_limit": 1, "pack": 1, "submit_patience": 1, "status_interval": 0, "lost_after": 1}
        least |= {"max_requeues": 0, "signal_delay": 5, "least_mem_mb": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is None or value < lowest:
                raise bad(name, value, f"expected a whole number of at least {lowest}")
        for name, lowest in {"array_parallelism": 1, "submissions_per_minute": 1, "gpus": 0}.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise bad(name, value, f"expected a whole number of at least {lowest}")
        if self.fork_server and self.cluster != "local":
            raise bad("fork_server", True, "expected --submitit-cluster local beside it")
        if self.gpu_hours is not None and not 0 <= self.gpu_hours < float("inf"):
            raise bad("gpu_hours", self.gpu_hours, "expected a number of at least 0")
        install()  # Snakemake makes these settings before it looks at locks and marks, and the executor after

    @property
    def modules(self) -> list[str]:
        """What `preload` names."""
        return [name.strip() for name in (self.preload or "").split(",") if name.strip()]


def bad(name: str, value: object, expected: str) -> WorkflowError:
    """One line for a setting that can't be."""
    return WorkflowError(f"--submitit-{name.replace('_', '-')}: {value!r}, {expected}")


def documentation() -> str:
    """Every setting as a Markdown table."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for one in fields(ExecutorSettings):
        default = "" if one.default is None else f"`{one.default}`"
        lines.append(f"| `--submitit-{one.name.replace('_', '-')}` | {default} | {one.metadata['help']} |")
    return "\n".join(lines) + "\n"
