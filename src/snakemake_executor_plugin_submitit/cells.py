"""A cell: one Snakemake job (or group) as the journal and the task know it."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_WORD = re.compile(r"""(?:[^ \t\r\n'"\\]|'[^']*')+""")
_LEFT_OVER = re.compile(r"[^ \t\r\n]")


def describe(job: JobExecutorInterface, logdir: Path) -> dict[str, Any]:
    """The columns of a cell in the journal that do not depend on its submission."""
    rule, name = rule_of(job), name_of(job)
    outputs = sorted(str(Path(str(path)).absolute()) for one in _members(job) for path in one.output)
    return {
        "key": _digest([rule, name, outputs]),
        "signature": _digest([rule, name, outputs, [_what_it_does(one) for one in _members(job)]]),
        "rule": rule,
        "name": name,
        "outputs": outputs,
        "attempt": job.attempt,
        "log": str((logdir / _file_name(rule) / f"{_file_name(name)}.log").absolute()),
    }


def rule_of(job: JobExecutorInterface) -> str:
    """A job's rule; a group job's rules, since the names of some groups are made up anew in every run."""
    return "+".join(sorted({str(one.rule.name) for one in _members(job)}))


def name_of(job: JobExecutorInterface) -> str:
    """A job within its rule: its wildcards; a group job by all of its rules and wildcards."""
    if not job.is_group():
        return _wildcards(job.wildcards_dict) or rule_of(job)
    return "+".join(sorted(f"{one.rule.name}:{_wildcards(one.wildcards_dict)}" for one in job.jobs))


def newest_input(job: JobExecutorInterface) -> float:
    """When the latest of a job's inputs was changed, as a Unix time."""
    times = [0.0]
    for path in {str(path) for one in _members(job) for path in one.input}:
        with suppress(OSError):
            times.append(Path(path).stat().st_mtime)
    return max(times)


def _members(job: JobExecutorInterface) -> list[Any]:
    if not job.is_group():
        return [job]
    return sorted(job.jobs, key=lambda one: (one.rule.name, _wildcards(one.wildcards_dict)))


def program(command: str, envvars: Mapping[str, str], precommand: str) -> dict[str, Any]:
    """What a task runs for a job: the words of Snakemake's own command, with no shell around them.

    Only a `--precommand`, which is the user's own shell text, goes through a shell.
    """
    words = split(command)
    module = words.index("snakemake")
    if precommand:
        return {"argv": ["bash", "-c", f'{precommand} && exec "$@"', "bash", *words], "env": dict(envvars)}
    assert words[module - 1] == "-m", command
    return {"snakemake": words[module + 1 :], "env": dict(envvars)}


def split(command: str) -> list[str]:
    """`shlex.split`, done at once where all quotes are single ones, as Snakemake's are: shlex's loop over letters was
    a third of what submitting a thousand cells cost."""
    if _LEFT_OVER.search(_WORD.sub("", command)):
        return shlex.split(command)
    return [word.replace("'", "") for word in _WORD.findall(command)]


def _what_it_does(one: Any) -> Any:
    """What a job's result depends on, so that an older one is not taken for what is wanted now.

    Time, memory and threads are none of it: a longer limit for the next job does not end the one that runs.
    """
    rule = one.rule
    inputs = sorted(map(str, one.input))
    return [rule.name, _wildcards(one.wildcards_dict), inputs, _stable(list(one.params)), *_code(rule)]


def _code(rule: Any) -> list[str]:
    """A rule's command, and the content of its script."""
    script = rule.script or rule.notebook
    if not script:
        return [str(rule.shellcmd)]
    try:
        path = Path(str(rule.basedir.join(str(script)).get_path_or_uri(secret_free=True)))
        return [str(script), hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()]
    except (OSError, TypeError, AttributeError):
        return [str(script)]  # from the network, say: known by its address


def _stable(value: Any) -> Any:
    """A value as text that is the same in every process: sets have no order of their own."""
    if isinstance(value, set | frozenset):
        return sorted(str(_stable(one)) for one in value)
    if isinstance(value, dict):
        return sorted([str(_stable(key)), _stable(one)] for key, one in value.items())
    if isinstance(value, list | tuple):
        return [_stable(one) for one in value]
    return _ADDRESS.sub("", repr(value))


def _wildcards(values: Mapping[str, Any]) -> str:
    """Values by commas; those that have commas themselves are told apart by a digest."""
    texts = [str(value) for value in values.values()]
    joined = ",".join(texts)
    return f"{joined}#{_digest(texts)[:8]}" if any("," in text for text in texts) else joined


def _file_name(name: str) -> str:
    """A name as part of a path: readable, and never the same for two."""
    plain = re.sub(r"[^A-Za-z0-9._=+,-]", "_", name)
    return name if plain == name and len(name) <= 120 and name.strip(".") else f"{plain[:100]}-{_digest(name)[:12]}"


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
