"""Tasks of this machine as forks of one process that has imported Snakemake, and what scripts need, once.

    python -m snakemake_executor_plugin_submitit.fork_server [MODULE...]

A request is a line of JSON on standard input: `folder` and `index` of a task, how often it may `start`, and `env`. Its
answer, a line on standard output, is the task's process, the leader of a group of its own. It ends with its standard
input; the tasks go on. Standard library and psutil alone until it is told what to import.
"""

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]

from snakemake_executor_plugin_submitit.preload import exit_with, preload
from snakemake_executor_plugin_submitit.task import FENCED, REQUEUED_LOCALLY, Task

OF_A_JOB = ("nbformat", "smart_open", "yte", "pandas", "cloudpickle", "snakemake.benchmark", "snakemake.storage")


def main() -> None:
    """Import, say so, and fork a task for each request."""
    requests = os.dup(0)
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what modules print as they are imported is no answer
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        error = _import_all(sys.argv[1:])
        _answer(answers, {"error": error} if error else {"ready": True})
        if error:
            sys.exit(1)
        gc.collect()
        gc.freeze()  # forks would copy what the collector touches
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no task stays as a zombie
        for line in _lines(requests):
            request = json.loads(line)
            child = os.fork()
            if not child:
                os.close(requests)
                os.close(answers.fileno())
                exit_with(partial(_become, request))
            created = time.time()
            with suppress(psutil.Error):
                created = psutil.Process(child).create_time()
            _answer(answers, {"pid": child, "created": created})


def _import_all(modules: list[str]) -> str | None:
    """Import the user's modules and what a Snakemake of one job imports; what went wrong, if anything."""
    try:
        preload(modules)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    from snakemake import cli

    parser, make_parser = cli.get_argument_parser(), cli.get_argument_parser  # it loads all plugins
    cli.get_argument_parser = lambda profiles=None: make_parser(profiles) if profiles else parser
    for name in OF_A_JOB:
        with suppress(ImportError):  # of other versions of Snakemake
            import_module(name)
    return None


def _lines(descriptor: int) -> Iterator[bytes]:
    """Lines of a pipe, each as soon as it is whole; no buffer is left to forks."""
    buffer = b""
    while read := os.read(descriptor, 1 << 16):
        *lines, buffer = (buffer + read).split(b"\n")
        yield from lines


def _answer(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _become(request: dict[str, Any]) -> int:
    """Be the process of a task: start it, and again where it puts itself back into the queue. Its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.environ.clear()
    os.environ.update(request["env"], SUBMITIT_LOCAL_JOB_ID=str(os.getpid()))
    log = Path(request["folder"]) / f"{os.getpid()}_0_log.out"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    return _starts(Path(request["folder"]), request["index"], request["starts"])


def _starts(folder: Path, index: int, most: int) -> int:
    """Exit status of the last start. A signal to our group between two starts ends the task, too."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    code = 0
    for _ in range(most):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            exit_with(partial(_run, folder, index))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != REQUEUED_LOCALLY or stopped:
            break
    return code if code >= 0 else 128 - code


def _run(folder: Path, index: int) -> int:
    try:
        return Task.load(folder, index)()
    except FileNotFoundError:
        print(f"{folder}/{index}: this task was given up", file=sys.stderr)
        return FENCED


if __name__ == "__main__":
    main()
