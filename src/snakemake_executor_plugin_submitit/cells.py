"""A cell: one Snakemake job (or group) as the journal and the task know it."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def describe(job: JobExecutorInterface, logdir: Path) -> dict[str, Any]:
    """The columns of a cell in the journal that do not depend on its submission."""
    rule = rule_of(job)
    outputs = sorted(str(Path(str(path)).absolute()) for path in job.output)
    name = name_of(job)
    return {
        "key": _digest([rule, name, outputs]),
        "signature": _digest([rule, name, outputs, _what_it_does(job)]),
        "rule": rule,
        "name": name,
        "outputs": outputs,
        "attempt": job.attempt,
        "log": str((logdir / rule / f"{_file_name(name)}.log").absolute()),
    }


def rule_of(job: JobExecutorInterface) -> str:
    """A job's rule, a group job's group."""
    return str(job.groupid) if job.is_group() else str(job.rule.name)


def name_of(job: JobExecutorInterface) -> str:
    """A job within its rule: its wildcards; a group job by all of its rules and wildcards."""
    if not job.is_group():
        return _wildcards(job.wildcards_dict) or rule_of(job)
    return "+".join(sorted(f"{one.rule.name}:{_wildcards(one.wildcards_dict)}" for one in job.jobs))


def program(command: str, envvars: Mapping[str, str], precommand: str) -> dict[str, Any]:
    """What a task runs for a job: the words of Snakemake's own command, with no shell around them.

    Only a `--precommand`, which is the user's own shell text, goes through a shell.
    """
    words = shlex.split(command)
    module = words.index("snakemake")
    if precommand:
        return {"argv": ["bash", "-c", f'{precommand} && exec "$@"', "bash", *words], "env": dict(envvars)}
    assert words[module - 1] == "-m", command
    return {"snakemake": words[module + 1 :], "env": dict(envvars)}


def _what_it_does(job: JobExecutorInterface) -> Any:
    """What a running job's result depends on, so that an older one is not taken for what is wanted now.

    Time and memory are none of it: a longer limit for the next job does not end the one that runs.
    """
    jobs = sorted(job.jobs, key=str) if job.is_group() else [job]
    return [
        [
            one.rule.name,
            _wildcards(one.wildcards_dict),
            sorted(map(str, one.input)),
            one.threads,
            _ADDRESS.sub("", repr(list(one.params))),
            str(one.shellcmd),
        ]
        for one in jobs
    ]


def _wildcards(values: Mapping[str, Any]) -> str:
    return ".".join(str(value) for value in values.values())


def _file_name(name: str) -> str:
    """A name as part of a path: readable, and never the same for two."""
    plain = re.sub(r"[^A-Za-z0-9._=+,-]", "_", name)
    return name if plain == name and len(name) <= 120 else f"{plain[:100]}-{_digest(name)[:12]}"


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
