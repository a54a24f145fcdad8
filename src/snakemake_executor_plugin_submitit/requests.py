"""What a job asks of the cluster: a rule's resources as submitit's parameters, checked before anything is submitted.

The names are those of snakemake-executor-plugin-slurm (https://github.com/snakemake/snakemake-executor-plugin-slurm,
docs/further.md), so that a workflow moves over by changing one flag.
"""

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.resources import CLUSTERS, RESOURCES, Use, of_group, suspects
from snakemake_executor_plugin_submitit.settings import ExecutorSettings

MANAGED = {
    *("job-name", "output", "error", "array", "signal", "requeue", "no-requeue", "open-mode", "parsable", "wrap"),
    *("hold", "chdir", "export", "export-file", "test-only", "wait", "batch", "input", "get-user-env", "ntasks"),
    "nodes",
    *("time", "mem", "mem-per-cpu", "mem-per-gpu", "partition", "account", "qos", "constraint", "gres", "gpus"),
    *("clusters", "ntasks-per-gpu", "ntasks-per-core", "ntasks-per-socket", "tasks-per-node", "tres-per-task"),
    *("gpus-per-socket", "nodefile", "cluster-constraint"),
    *("gpus-per-node", "gpus-per-task", "cpus-per-task", "cpus-per-gpu", "ntasks-per-node", "quiet", "uid", "gid"),
}
TBD = "<TBD>"  # Snakemake's text for a resource that is not known yet
_PLAIN = re.compile(r"[^\x00-\x1f\x7f]*")
_CLUSTER = re.compile(r"\w[\w.-]*")
_MODEL = re.compile(r"[\w.+-]+")
_GRES = re.compile(r"(gres[/:])?[A-Za-z]\w*([:=][\w.+-]+){0,2}(\([^()]*\))?")


@dataclass(frozen=True)
class Request:
    """Resources of one task. parameters: of submitit's AutoExecutor; minutes: None for the partition's own limit.

    gpus: by number, by model or among generic resources. ignored: why, by the resource that has no effect.
    """

    parameters: dict[str, Any]
    minutes: int | None
    gpus: int
    pack: int
    ignored: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def clusters(self) -> list[str]:
        """The clusters of which SLURM is to take one; none for the default one."""
        return clusters_in(self.parameters)

    @property
    def cpus(self) -> int:
        """CPUs, where they are known: one at least."""
        return int(self.parameters.get("cpus_per_task", 1))


def clusters_in(parameters: Mapping[str, Any]) -> list[str]:
    """The clusters that a submission named, of its parameters or of its request in the journal."""
    text = (parameters.get("slurm_additional_parameters") or {}).get("clusters")
    return text.split(",") if text else []


def resources_of(job: Any, limits: Collection[str]) -> dict[str, Any]:
    """A job's resources, or a group job's, without those that depend on files which are still to be made.

    limits: what Snakemake itself keeps to (`--resources`); where the plugin does not know it, it is none for SLURM.
    """
    values = {name: value for name, value in job.resources.items() if value is not None and str(value) != TBD}
    if job.is_group():
        values = of_group(values, [dict(one.resources.items()) for one in job.jobs])
    return {name: value for name, value in values.items() if name in RESOURCES or name not in limits}


def still_unknown(job: Any) -> dict[str, str]:
    """Resources that are not known when the job is submitted, and why that matters."""
    names = [name for name, value in job.resources.items() if str(value) == TBD]
    ours = [name for name in names if name in RESOURCES and RESOURCES[name].use is not Use.DERIVED]
    return dict.fromkeys(ours, "ignored: its value is not known at submission")


def request_of(
    rule: str, threads: int, resources: Mapping[str, Any], settings: ExecutorSettings, members: int = 1
) -> Request:
    """What a job of a rule, or a group of so many, asks for. Raises: WorkflowError that names the rule and resource."""
    asked = _Resources(rule, resources)
    gpus, gres = _gpus(asked, settings)
    _refuse(asked, gpus)
    minutes = asked.count("runtime", 1)
    cpus = _cpus(asked, threads, gpus)
    per_cpu = asked.count("mem_mb_per_cpu", 1)
    memory = asked.count("mem_mb", 1)
    parameters: dict[str, Any] = {
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": max(cpus, threads) if cpus and members > 1 else cpus,
        "stderr_to_stdout": True,
        "timeout_min": minutes,
        "gpus_per_node": None if asked.text("gpu_model") else asked.count("gpu", 0) or None,
        "slurm_gres": gres,
        "slurm_mem": None if per_cpu else _megabytes(memory, settings.least_mem_mb or 0),
        "slurm_mem_per_cpu": _megabytes(per_cpu, 0),
        "slurm_partition": asked.text("slurm_partition") or settings.partition,
        "slurm_account": _first(asked.text("slurm_account")) or settings.account,
        "slurm_qos": asked.choice("qos", "slurm_qos", default=settings.qos),
        "slurm_constraint": asked.choice("constraint", default=settings.constraint),
    }
    for name in ("partition", "account", "qos", "constraint", "gres"):
        value = getattr(settings, name)
        if value and not _PLAIN.fullmatch(value):
            raise WorkflowError(f"--submitit-{name}: {value!r}: control characters are not allowed")
    extra = parse_extra(settings.extra or "", "--submitit-extra")
    extra |= parse_extra(asked.text("slurm_extra") or "", f"rule {rule}, resource slurm_extra")
    extra["requeue" if settings.requeue == "always" else "no-requeue"] = True
    clusters = _clusters(asked, settings)
    parameters["slurm_additional_parameters"] = extra | ({"clusters": ",".join(clusters)} if clusters else {})
    pack = asked.count("pack", 1) or settings.pack or 1
    parameters = {key: value for key, value in parameters.items() if value is not None}
    return Request(parameters, minutes, gpus, pack, _ignored(asked, gpus, settings, members))


def _clusters(asked: "_Resources", settings: ExecutorSettings) -> list[str]:
    """Names of clusters, as SLURM has them: in lower case."""
    given = [name for name in CLUSTERS if asked.get(name) is not None]
    if len({asked.text(name) for name in given}) > 1:  # as in a group whose rules use different names
        raise asked.error(given[1], f"{given[0]} is {asked.get(given[0])!r}: give one of them")
    text = asked.choice(*CLUSTERS, default=settings.clusters)
    if not text or settings.cluster != "slurm":
        return []
    names = [name.strip().lower() for name in text.split(",")]
    if "all" in names or not all(map(_CLUSTER.fullmatch, names)):
        expected = "expected the name of a cluster, or several with commas; `all` is no such name"
        raise asked.error(given[0], expected) if given else WorkflowError(f"--submitit-clusters: {text!r}: {expected}")
    return list(dict.fromkeys(names))


def _gpus(asked: "_Resources", settings: ExecutorSettings) -> tuple[int, str | None]:
    """GPUs, and the generic resources: with a model among them, or those of the settings where a rule says nothing."""
    if isinstance(asked.get("gpu"), str) and ":" in asked.get("gpu"):
        raise asked.error("gpu", "expected a whole number; the model is a resource of its own, gpu_model")
    number, model, gres = asked.count("gpu", 0), asked.text("gpu_model"), asked.text("gres")
    if model and not _MODEL.fullmatch(model):
        raise asked.error("gpu_model", "expected the name of a model, as a100")
    if gres and not all(_GRES.fullmatch(part.strip()) for part in gres.split(",")):
        raise asked.error("gres", "expected NAME, NAME:NUMBER or NAME:TYPE:NUMBER, with commas between")
    if model and number is None:
        number = 1
    if number and "gpu" in _kinds(gres or ""):
        raise asked.error("gres", "give either gpu or gres, not both, for GPUs")
    if number and model:
        return number, ",".join(filter(None, [f"gpu:{model}:{number}", gres]))
    if number:
        return number, gres
    if gres is None and asked.get("gpu") is None:
        gres = settings.gres
    return gpus_in(gres or ""), gres


def _refuse(asked: "_Resources", gpus: int) -> None:
    for name, known in RESOURCES.items():
        if known.use is Use.REFUSED and asked.get(name):
            raise asked.error(name, known.meaning)
        if known.use is Use.ONE:
            per_gpu = name.endswith("per_gpu")
            number = asked.count(name, None if per_gpu else int(known.option == "nodes")) or 0
            if number * (gpus if per_gpu and number == 1 else 1) > 1:
                raise asked.error(name, "a job is one task on one node here")
        if known.use is Use.SAME and (asked.count(name, 0) or gpus) != gpus:
            raise asked.error(name, f"the job asks for {gpus} GPUs: give the number as gpu")


def _cpus(asked: "_Resources", threads: int, gpus: int) -> int | None:
    """CPUs of a task; None: the cluster's default."""
    number = asked.count("cpus_per_task")
    each = asked.count("cpus_per_gpu") if gpus else None
    if number:
        return number if number > 0 else None
    if each is not None:
        return each * gpus if each > 0 else None
    return max(1, threads)


def _ignored(asked: "_Resources", gpus: int, settings: ExecutorSettings, members: int) -> dict[str, str]:
    """Why, by each resource that has no effect, or another one than it seems."""
    reasons = {}
    local = settings.cluster != "slurm"
    requeue = asked.get("slurm_requeue")
    if asked.get("gpu_manufacturer"):
        reasons["gpu_manufacturer"] = f"ignored: {RESOURCES['gpu_manufacturer'].meaning}"
    if requeue is not None and bool(requeue) != (settings.requeue == "always"):
        reasons["slurm_requeue"] = f"ignored: {RESOURCES['slurm_requeue'].meaning}"
    if asked.get("threads") is not None:
        reasons["threads"] = f"ignored: {RESOURCES['threads'].meaning}"
    for name in ("cpus_per_gpu", "tasks_per_gpu", "ntasks_per_gpu"):
        if asked.get(name) and not gpus and asked.get("gpu") is None:
            reasons[name] = "ignored: the job asks for no GPU"
    if asked.get("cpus_per_gpu") and asked.get("cpus_per_task"):
        reasons["cpus_per_gpu"] = "ignored: cpus_per_task comes first"
    if _first(asked.text("slurm_account")) != asked.text("slurm_account"):
        reasons["slurm_account"] = "all but the first account are ignored: SLURM takes one"
    if local and asked.get("gpu_model"):
        reasons["gpu_model"] = "ignored: this machine hands out any of its GPUs"
    if members > 1 and gpus and not asked.get("gpu"):
        name = "gres" if asked.text("gres") else "gpu_model"
        reasons[name] = f"the {members} jobs of the group share it; only what is asked for by gpu adds up"
    others = suspects(name for name in asked.values if not local or "gpu" in name.lower())
    return reasons | others


def _first(accounts: str | None) -> str | None:
    return next(iter(re.findall(r"[^,\s]+", accounts or "")), None)


def _kinds(gres: str) -> list[str]:
    parts = [part.strip().removeprefix("gres/").removeprefix("gres:") for part in gres.split(",")]
    return [re.split("[:=(]", part)[0] for part in parts]


def gpus_in(gres: str) -> int:
    """GPUs in a list of generic resources: `gpu`, `gpu:2`, `gpu:a100:2`, `gres/gpu:2`, with or without `(S:0-1)`."""
    gpus = 0
    for part in re.sub(r"\(.*?\)", "", gres).split(","):
        kind, *rest = part.strip().removeprefix("gres/").removeprefix("gres:").replace("=", ":").split(":")
        if kind == "gpu":
            gpus += int(rest[-1]) if rest and rest[-1].isdigit() else 1
    return gpus


def parse_extra(text: str, where: str) -> dict[str, Any]:
    """Options of sbatch in a free text, by name; a flag is True. Raises: WorkflowError for what the plugin manages."""
    if not _PLAIN.fullmatch(text):
        raise WorkflowError(f"{where}: {text!r}: control characters are not allowed")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise WorkflowError(f"{where}: {text!r}: {error}") from None
    options: dict[str, Any] = {}
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
        options[name] = value if equals else True
    return options


@dataclass(frozen=True)
class _Resources:
    rule: str
    values: Mapping[str, Any]

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def text(self, name: str) -> str | None:
        return self.choice(name, default=None)

    def choice(self, *names: str, default: str | None) -> str | None:
        """The first of the resources that is given, which may say that there is to be none; else a setting."""
        name = next((one for one in names if self.get(one) is not None), None)
        if name is None:
            return default
        value = str(self.get(name))
        if not _PLAIN.fullmatch(value):
            raise self.error(name, "control characters are not allowed")
        return value or None

    def count(self, name: str, lowest: int | None = None) -> int | None:
        value = self.get(name)
        if value is None or value == "":
            return None
        expected = "expected a whole number" + ("" if lowest is None else f" of at least {lowest}")
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise self.error(name, "expected a whole number") from None
        if isinstance(value, bool) or number != float(value) or (lowest is not None and number < lowest):
            raise self.error(name, expected)
        return number

    def error(self, name: str, why: str) -> WorkflowError:
        return WorkflowError(f"rule {self.rule}, resource {name}={self.get(name)!r}: {why}")


def _megabytes(number: int | None, least: int) -> str | None:
    return None if number is None else f"{max(number, least)}M"
