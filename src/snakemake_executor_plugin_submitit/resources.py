"""Every resource that the plugin knows, once: the docs' table and what becomes of a resource are made from it.

The names and meanings are those of snakemake-executor-plugin-slurm 2.8, its job step's included.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Use(Enum):
    """What becomes of a resource."""

    HONOURED = "honoured"
    ONE = "only 1 is possible: a job is one task on one node"
    REFUSED = "refused"
    SAME = "refused, unless it is the number that `gpu`, `gpu_model` and `gres` ask for"
    IGNORED = "ignored, with a warning"
    DERIVED = "Snakemake's own"


@dataclass(frozen=True)
class Known:
    """option: of sbatch. each: in a group job the largest of its jobs counts; other numbers add up."""

    use: Use
    option: str
    meaning: str
    each: bool = False


_OTHER = "run it with snakemake-executor-plugin-slurm"
_MPI = Known(Use.REFUSED, "", f"MPI jobs are not supported: {_OTHER}")
CLUSTERS = ("clusters", "cluster", "slurm_cluster")  # names of one resource
_CLUSTER = Known(
    Use.HONOURED,
    "clusters",
    "Cluster, or several with commas, of which SLURM takes one; empty: the default one, whatever the setting says.",
)
_QOS = Known(Use.HONOURED, "qos", "Quality of service; empty: none, whatever the setting says.")

RESOURCES: dict[str, Known] = {
    "runtime": Known(Use.HONOURED, "time", "Time limit: minutes, or with a unit (`90m`, `2h`)."),
    "mem_mb": Known(Use.HONOURED, "mem", "Memory in MB; Snakemake makes it from `mem` (`4GB`) and `mem_mib`."),
    "mem_mb_per_cpu": Known(
        Use.HONOURED, "mem-per-cpu", "Memory for each CPU, in MB; comes before `mem_mb`.", each=True
    ),
    "cpus_per_task": Known(
        Use.HONOURED, "cpus-per-task", "CPUs; 0 or not given: the rule's threads; below 0: the cluster's default."
    ),
    "cpus_per_gpu": Known(
        Use.HONOURED,
        "cpus-per-task",
        "CPUs for each GPU, if `cpus_per_task` is not given; 0 or less: the cluster's default.",
        each=True,
    ),
    "gpu": Known(Use.HONOURED, "gpus-per-node", "Number of GPUs."),
    "gpu_model": Known(Use.HONOURED, "gres", "Model of the GPUs; one GPU if `gpu` is not given."),
    "gres": Known(
        Use.HONOURED, "gres", "Generic resources: `gpu:2`, `gpu:a100:2`, `shard:1`; GPUs among them instead of `gpu`."
    ),
    "slurm_partition": Known(Use.HONOURED, "partition", "Partition, or several with commas."),
    "slurm_account": Known(Use.HONOURED, "account", "Account; of several the first, with a warning."),
    "qos": _QOS,
    "slurm_qos": _QOS,
    "constraint": Known(Use.HONOURED, "constraint", "Node features; empty: none, whatever the setting says."),
    "slurm_extra": Known(Use.HONOURED, "", "Further long options of sbatch, none that the plugin manages."),
    "pack": Known(Use.HONOURED, "", "Cells of the rule that one task runs; this plugin's own.", each=True),
    "mpi": _MPI,
    "mpi_tasks": _MPI,
    **dict.fromkeys(CLUSTERS, _CLUSTER),
    "nodes": Known(Use.ONE, "nodes", "Nodes.", each=True),
    "node": Known(Use.ONE, "nodes", "Nodes.", each=True),
    "slurm_nodes": Known(Use.ONE, "nodes", "Nodes.", each=True),
    "tasks": Known(Use.ONE, "ntasks", "Tasks.", each=True),
    "ntasks": Known(Use.ONE, "ntasks", "Tasks.", each=True),
    "tasks_per_node": Known(Use.ONE, "ntasks-per-node", "Tasks.", each=True),
    "ntasks_per_node": Known(Use.ONE, "ntasks-per-node", "Tasks.", each=True),
    "tasks_per_gpu": Known(Use.ONE, "ntasks-per-gpu", "Tasks for each GPU; 0 or less: not set.", each=True),
    "ntasks_per_gpu": Known(Use.ONE, "ntasks-per-gpu", "Tasks for each GPU; 0 or less: not set.", each=True),
    "gpus": Known(Use.SAME, "gpus", "GPUs of the job step there, not of the job: give `gpu`."),
    "nvidia_gpu": Known(Use.SAME, "gpus", "GPUs of the job step there, not of the job: give `gpu`."),
    "gpu_manufacturer": Known(Use.IGNORED, "", "SLURM knows models alone: give gpu_model"),
    "slurm_requeue": Known(Use.IGNORED, "", "--submitit-requeue holds for all rules, and it differs"),
    "threads": Known(Use.IGNORED, "", "the rule's own threads count"),
    **dict.fromkeys(("mem", "mem_mib", "disk", "disk_mb", "disk_mib", "tmpdir"), Known(Use.DERIVED, "", "")),
}

# Names that ask SLURM for something, by whole-name patterns, and the resource that does; the first that fits counts.
_ALIKE = {
    r"n?gpus?_?(type|name|kind|arch|card|brand)\w*": "gpu_model",
    r"n?(cpu|core|thread)s?_per_gpus?": "cpus_per_gpu",
    r"\w*mem\w*_per_(cpu|core|thread)s?\w*": "mem_mb_per_cpu",
    r"((max|min|total|h|s|v|p|req)_?)*(mem|memory|ram)(_\w+|[kmgt]i?b?)?": "mem_mb",
    r"((wall|run|max|cpu|slurm)_?)*time(_?limit|_\w+|s)?|h_rt|(wall|run)\w*time\w*": "runtime",
    r"partitions?|queue|slurm_queue": "slurm_partition",
    r"accounts?": "slurm_account",
    r"(num|max|min|n)?_?tasks?(_per_\w+)?": "tasks",
    r"(\w+_)?n?gpus?(_\w+)?|gpu\w*": "gpu",
    r"(\w+_)?n?(cpu|core|proc)s?(_\w+)?|cpu\w*": "cpus_per_task",
    r"(num|max|min|n)?_?nodes?(_\w+)?": "nodes",
    r"t?gres\w*|tres\w*": "gres",
    r"qos_?\w*": "qos",
    r"constraints?|features?": "constraint",
}
# Options of sbatch that slurm_extra passes on, as names of resources.
_OPTIONS = (
    "acctg_freq bb bbf begin comment contiguous core_spec cores_per_socket cpu_freq deadline delay_boot dependency "
    "distribution exclude exclusive gpu_bind gpu_freq gres_flags hint licenses mail_type mail_user mcs_label mem_bind "
    "mincpus network nice no_kill nodelist overcommit oversubscribe power prefer priority profile propagate reboot "
    "reservation sockets_per_node spread_job switches thread_spec threads_per_core tmp use_min_nodes wait_all_nodes "
    "wckey"
)
_PER = re.compile(r"\w+_per_(gpu|node|cpu|task|core|socket|tres)s?")


def suspects(names: Iterable[str]) -> dict[str, str]:
    """Why names that look like a resource of SLURM have no effect where they are not known, with the nearest one."""
    reasons = {}
    for name in names:
        if name in RESOURCES or name.startswith("_"):
            continue
        hint = _nearest(name)
        if hint:
            reasons[name] = f"ignored: the plugin does not know it; {hint}"
    return reasons


def _nearest(name: str) -> str:
    lower = name.lower()
    plain = re.sub(r"^(slurm|sbatch)_", "", lower)
    if plain in _OPTIONS.split():
        return f'slurm_extra="--{plain.replace("_", "-")}=..." is how to pass it to sbatch'
    for pattern, known in _ALIKE.items():
        if re.fullmatch(pattern, plain):
            return f"did you mean {known}?"
    alike = plain != lower or _PER.fullmatch(plain)
    near = difflib.get_close_matches(lower, _suggested(), 1, 0.6 if alike else 0.85)
    if near:
        return f"did you mean {near[0]}?"
    return "slurm_extra passes options to sbatch" if alike else ""


def _suggested() -> list[str]:
    return [name for name, known in RESOURCES.items() if known.use is Use.HONOURED and name not in CLUSTERS[1:]]


def of_group(resources: Mapping[str, Any], members: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """A group's resources, of which Snakemake has added up all numbers, with the largest of those that are for each."""
    each = dict(resources)
    for name in resources.keys() & RESOURCES.keys():
        numbers = [one[name] for one in members if isinstance(one.get(name), int)]
        if RESOURCES[name].each and numbers:
            each[name] = max(numbers)
        if name == "cpus_per_task" and min(numbers, default=0) < 0:
            each[name] = -1
    return each


def documentation() -> str:
    """Every resource as a Markdown table."""
    rows: dict[tuple[Use, str, str], list[str]] = {}
    for name, known in RESOURCES.items():
        if known.use is not Use.DERIVED:
            rows.setdefault((known.use, known.option, known.meaning), []).append(f"`{name}`")
    lines = ["| resource | of sbatch | meaning |", "| --- | --- | --- |"]
    for (use, option, meaning), names in rows.items():
        full = meaning if use is Use.HONOURED else f"{meaning.rstrip('.')}. {use.value.capitalize()}."
        lines.append(f"| {', '.join(names)} | {f'`--{option}`' if option else ''} | {full[0].upper()}{full[1:]} |")
    return "\n".join(lines) + "\n"
