"""What a job asks of the cluster: a rule's resources as submitit's parameters, checked before anything is submitted.

The names are those of snakemake-executor-plugin-slurm (https://github.com/snakemake/snakemake-executor-plugin-slurm,
docs/further.md), so that a workflow moves over by changing one flag.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.settings import ExecutorSettings

MANAGED = {
    *("job-name", "output", "error", "array", "signal", "requeue", "no-requeue", "open-mode", "parsable", "wrap"),
    *(
        "hold",
        "chdir",
        "export",
        "export-file",
        "test-only",
        "wait",
        "batch",
        "input",
        "get-user-env",
        "ntasks",
        "nodes",
    ),
    *("time", "mem", "mem-per-cpu", "mem-per-gpu", "partition", "account", "qos", "constraint", "gres", "gpus"),
    *("clusters", "ntasks-per-gpu", "ntasks-per-core", "ntasks-per-socket", "tasks-per-node", "tres-per-task"),
    *("gpus-per-socket", "nodefile", "cluster-constraint"),
    *("gpus-per-node", "gpus-per-task", "cpus-per-task", "cpus-per-gpu", "ntasks-per-node", "quiet", "uid", "gid"),
}
_OTHER = "run it with snakemake-executor-plugin-slurm"
REFUSED = {
    "mpi": f"MPI jobs are not supported: {_OTHER}",
    **dict.fromkeys(("clusters", "cluster", "slurm_cluster"), f"only the default cluster is supported: {_OTHER}"),
}
_PLAIN = re.compile(r"[^\x00-\x1f\x7f]*")


@dataclass(frozen=True)
class Request:
    """Resources of one task. parameters: of submitit's AutoExecutor; minutes: None for the partition's own limit.

    gpus: those of the resource `gpu`, which this machine's slots are for.
    """

    parameters: dict[str, Any]
    minutes: int | None
    gpus: int
    pack: int

    @property
    def held(self) -> int:
        """GPUs that SLURM hands out for it, among generic resources too."""
        return self.gpus or gpus_in(str(self.parameters.get("slurm_gres") or ""))


def request_of(rule: str, threads: int, resources: Mapping[str, Any], settings: ExecutorSettings) -> Request:
    """What a job of a rule asks for. Raises: WorkflowError that names the rule and the resource."""
    asked = _Resources(rule, resources)
    for name, why in REFUSED.items():
        if asked.get(name):
            raise asked.error(name, why)
    minutes = asked.count("runtime", 1)
    gpus = asked.count("gpu", 0) or 0
    gres = asked.text("gres") or (settings.gres if not gpus else None)
    if gpus and asked.text("gres"):
        raise asked.error("gres", "give either gpu or gres, not both")
    model = asked.text("gpu_model")
    parameters: dict[str, Any] = {
        "nodes": asked.count("nodes", 1) or 1,
        "tasks_per_node": 1,
        "cpus_per_task": asked.count("cpus_per_task", 1) or max(1, threads),
        "stderr_to_stdout": True,
        "timeout_min": minutes,
        "gpus_per_node": gpus if gpus and not model else None,
        "slurm_gres": f"gpu:{model}:{gpus}" if gpus and model else gres,
        "slurm_mem": _megabytes(asked.count("mem_mb", 1), settings.least_mem_mb or 0),
        "slurm_mem_per_cpu": _megabytes(asked.count("mem_mb_per_cpu", 1), 0),
        "slurm_partition": asked.text("slurm_partition") or settings.partition,
        "slurm_account": asked.text("slurm_account") or settings.account,
        "slurm_qos": asked.text("qos") or asked.text("slurm_qos") or settings.qos,
        "slurm_constraint": asked.text("constraint") or settings.constraint,
    }
    for name in ("nodes", "tasks", "tasks_per_node", "ntasks"):
        if (asked.count(name, 1) or 1) > 1:
            raise asked.error(name, "a job is one task on one node here")
    if parameters["slurm_mem"] and parameters["slurm_mem_per_cpu"]:
        parameters["slurm_mem"] = None  # the more exact one, as the slurm plugin has it
    for name, value in parameters.items():
        if isinstance(value, str) and not _PLAIN.fullmatch(value):
            raise asked.error(name.removeprefix("slurm_"), "control characters are not allowed")
    extra = parse_extra(settings.extra or "", "--submitit-extra")
    extra |= parse_extra(asked.text("slurm_extra") or "", f"rule {rule}, resource slurm_extra")
    extra["requeue" if settings.requeue == "always" else "no-requeue"] = True
    parameters["slurm_additional_parameters"] = extra
    pack = asked.count("pack", 1) or settings.pack or 1
    return Request({key: value for key, value in parameters.items() if value is not None}, minutes, gpus, pack)


def gpus_in(gres: str) -> int:
    """GPUs in a list of generic resources: `gpu`, `gpu:2`, `gpu:a100:2`, `gres/gpu:2`, with or without `(S:0-1)`."""
    found = 0
    for part in re.sub(r"\(.*?\)", "", gres).split(","):
        kind, *rest = part.strip().removeprefix("gres/").removeprefix("gres:").replace("=", ":").split(":")
        if kind == "gpu":
            found += int(rest[-1]) if rest and rest[-1].isdigit() else 1
    return found


def parse_extra(text: str, where: str) -> dict[str, Any]:
    """Options of sbatch in a free text, by name; a flag is True. Raises: WorkflowError for what the plugin manages."""
    if not _PLAIN.fullmatch(text):
        raise WorkflowError(f"{where}: {text!r}: control characters are not allowed")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise WorkflowError(f"{where}: {text!r}: {error}") from None
    found: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise WorkflowError(f"{where}: {word!r}: expected long options, as --key=value or --key value")
        name, equals, value = word[2:].partition("=")
        if any(managed.startswith(name) for managed in MANAGED):  # sbatch takes abbreviations
            raise WorkflowError(f"{where}: --{name} is managed by the plugin: use the resource or setting for it")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise WorkflowError(f"{where}: --{name} is no option of sbatch")
        if not equals and words and not words[0].startswith("-"):
            value, equals = words.pop(0), "="
        found[name] = value if equals else True
    return found


@dataclass(frozen=True)
class _Resources:
    rule: str
    values: Mapping[str, Any]

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def text(self, name: str) -> str | None:
        value = self.get(name)
        return None if value is None or value == "" else str(value)

    def count(self, name: str, lowest: int) -> int | None:
        value = self.get(name)
        if value is None or value == "":
            return None
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise self.error(name, "expected a whole number") from None
        if isinstance(value, bool) or number != float(value) or (number < lowest):
            raise self.error(name, f"expected a whole number of at least {lowest}")
        return number

    def error(self, name: str, why: str) -> WorkflowError:
        return WorkflowError(f"rule {self.rule}, resource {name}={self.get(name)!r}: {why}")


def _megabytes(number: int | None, least: int) -> str | None:
    return None if number is None else f"{max(number, least)}M"
