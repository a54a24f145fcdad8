"""A cell: one Snakemake job (or group) as the journal knows it."""

import re
from pathlib import Path
from typing import Any

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.signature import digest, members, wildcards


def describe(job: JobExecutorInterface, logdir: Path, signature: str) -> dict[str, Any]:
    """The columns of a cell in the journal that do not depend on its submission."""
    rule, name = rule_of(job), name_of(job)
    outputs = sorted(str(Path(str(path)).absolute()) for one in members(job) for path in one.output)
    return {
        "key": digest([rule, name, outputs]),
        "signature": signature,
        "rule": rule,
        "name": name,
        "outputs": outputs,
        "attempt": job.attempt,
        "log": str((logdir / _file_name(rule) / f"{_file_name(name)}.log").absolute()),
    }


def rule_of(job: JobExecutorInterface) -> str:
    """A job's rule; a group job's rules, since the names of some groups are made up anew in every run."""
    return "+".join(sorted({str(one.rule.name) for one in members(job)}))


def name_of(job: JobExecutorInterface) -> str:
    """A job within its rule: its wildcards; a group job by all of its rules and wildcards."""
    if not job.is_group():
        return wildcards(job.wildcards_dict) or rule_of(job)
    return "+".join(sorted(f"{one.rule.name}:{wildcards(one.wildcards_dict)}" for one in job.jobs))


def _file_name(name: str) -> str:
    """A name as part of a path: readable, and never the same for two."""
    plain = re.sub(r"[^A-Za-z0-9._=+,-]", "_", name)
    return name if plain == name and len(name) <= 120 and name.strip(".") else f"{plain[:100]}-{digest(name)[:12]}"
