"""The command of a job: Snakemake's own, as the words that a task runs, and the files that it waits for."""

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins import utils
from snakemake_interface_executor_plugins.utils import TargetSpec, encode_target_jobs_cli_args, format_cli_arg

ODD = "json:"  # before a target whose wildcards Snakemake's own way of handing them on would change
MOST_WAITS = 20  # on a command line; more of them are written into a file

_WORD = re.compile(r"""(?:[^ \t\r\n'"\\]|'[^']*')+""")
_LEFT_OVER = re.compile(r"[^ \t\r\n]")
_CHANGED = re.compile(r"""[,'"\\\n\r]""")


def program(command: str, envvars: Mapping[str, str], precommand: str, shared: str) -> dict[str, Any]:
    """What a task runs for a job: the words of Snakemake's own command, with no shell around them.

    Only a `--precommand`, which is the user's own shell text, goes through a shell. shared: the part that the commands
    of all jobs have; it is split once.
    """
    own, found, rest = (command.replace(f"{precommand} &&", "", 1) if precommand else command).partition(shared)
    words = [*split(own), *(_split_once(found) if found else []), *split(rest)]
    odd = next((json.loads(word.removeprefix(ODD)) for word in words if word.startswith(ODD)), None)
    if precommand and odd is not None:
        rule, wildcards = odd
        raise WorkflowError(
            f"rule {rule} with wildcards {wildcards}: a comma, quote, backslash or line break in them can't be handed "
            "on behind a --precommand, expected none, or no precommand"
        )
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


@cache
def _split_once(shared: str) -> list[str]:
    return split(shared)


def with_own_words(command: str, targets: Sequence[TargetSpec], temporary: Sequence[Any]) -> str:
    """Snakemake's arguments of a job, which quote as Python does, with those that a shell's rules read otherwise handed
    on as they are: targets with a comma, quote, backslash or line break in a wildcard, and such names of files."""
    if any(_CHANGED.search(str(value)) for spec in targets for value in spec.wildcards_dict.values()):
        words = [ODD + json.dumps([spec.rulename, dict(spec.wildcards_dict)]) for spec in targets]
        own = format_cli_arg("--target-jobs", encode_target_jobs_cli_args(list(targets)))
        command = command.replace(own, _quoted("--target-jobs", words), 1)
    if any(_CHANGED.search(str(path)) for path in temporary):
        own = format_cli_arg("--unneeded-temp-files", list(temporary))
        command = command.replace(own, _quoted("--unneeded-temp-files", temporary), 1)
    return command


def read_targets(arguments: Sequence[str] | None, own: Any) -> Any:
    """Targets as `with_own_words` and Snakemake hand them on. own: Snakemake's reader of its own."""
    if arguments is None:
        return None
    return [
        TargetSpec(*json.loads(each.removeprefix(ODD))) if each.startswith(ODD) else own([each])[0]
        for each in arguments
    ]


def _quoted(flag: str, values: Sequence[Any]) -> str:
    return " ".join([flag, *(shlex.quote(str(value)) for value in values)])


def group_limits(job: Any, limited: Collection[str]) -> str:
    """The arguments that keep a group's members together within what the group has. limited: names that the workflow's
    `--resources` limit."""
    names = {"mem_mb", "gpu", *limited} - {"_cores", "_nodes", "runtime"}
    held = {name: value for name, value in job.resources.items() if name in names and isinstance(value, int)}
    return _quoted("--resources", [f"{name}={value}" for name, value in sorted(held.items())]) if held else ""


def share_arguments(factory: Any) -> None:
    """Have Snakemake put together once what the commands of all jobs share: it is a tenth of what submitting takes. And
    have it quote as a shell reads, where it quotes as Python does: backslashes in paths would come twice.

    factory: the workflow's `spawned_job_args_factory`.
    """
    utils.repr = lambda value: shlex.quote(value) if isinstance(value, str) else repr(value)
    own, known = factory.general_args, {}

    def general_args(executor_common_settings: Any) -> str:
        key = id(executor_common_settings)  # each executor has one, for as long as it lives
        if key not in known:
            known[key] = (executor_common_settings, own(executor_common_settings=executor_common_settings))
        return str(known[key][1])

    factory.general_args = general_args


def wait_for(paths: Sequence[Any], folder: Path) -> str:
    """The argument that has a job wait for files; many of them are written into a file in `folder`."""
    if len(paths) <= MOST_WAITS:
        return _quoted("--wait-for-files", paths) if paths else ""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid4().hex}.txt"
    path.write_text("\n".join(map(str, paths)) + "\n")
    return _quoted("--wait-for-files-file", [path])
