"""The command of a job: Snakemake's own, as the words that a task runs, and the files that it waits for."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from snakemake_interface_executor_plugins.utils import format_cli_arg

MOST_WAITS = 20  # on a command line; more of them are written into a file

_WORD = re.compile(r"""(?:[^ \t\r\n'"\\]|'[^']*')+""")
_LEFT_OVER = re.compile(r"[^ \t\r\n]")


def program(command: str, envvars: Mapping[str, str], precommand: str) -> dict[str, Any]:
    """What a task runs for a job: the words of Snakemake's own command, with no shell around them.

    Only a `--precommand`, which is the user's own shell text, goes through a shell.
    """
    words = split(command.replace(f"{precommand} &&", "", 1) if precommand else command)
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


def wait_for(paths: Sequence[Any], folder: Path) -> str:
    """The argument that has a job wait for files; many of them are written into a file in `folder`."""
    if len(paths) <= MOST_WAITS:
        return str(format_cli_arg("--wait-for-files", paths))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid4().hex}.txt"
    path.write_text("\n".join(map(str, paths)) + "\n")
    return str(format_cli_arg("--wait-for-files-file", str(path)))
