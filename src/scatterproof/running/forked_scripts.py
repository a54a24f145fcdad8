"""Scripts of Snakemake's own executor as forks of one process, which has imported torch and ourselves once.

Importing torch takes a few seconds of each job's start, as long as many jobs of a small study take. The process is the
`forkserver` of Python's `multiprocessing`: it starts with the first script and ends with the run. Jobs that an executor
plugin sends elsewhere, or that have a conda environment, a container or modules of their own, start a Python as before.
"""

import multiprocessing
import os
import signal
import sys
import time
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Lock
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]

from snakemake_executor_plugin_submitit import preload

IMPORTED = ["scatterproof.running.script_server", "torch", "pandas", "safetensors.torch", "torch.fx", "scipy.optimize"]
IMPORTED += ["snakemake.cli", "snakemake.script", "snakemake.benchmark"]
IMPORTED += [
    "scatterproof." + name
    for name in ("attacks.runner", "config.study", "cutting", "defences.network", "judging.controls", "judging.judge")
]
LOST = 255  # what a fork's exit status is where the process that forks has died


class ForkServer:
    """Starts forks and notes their ends, one call at a time: `multiprocessing` can do neither in two threads."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.lock = Lock()
        self.unavailable = False  # where no process could be had that forks

    def run(self, path: str, threads: int, temporary: str | None, bench_record: Any) -> int | None:
        """A script's exit status; None where it was not started, since there is no process that forks."""
        begin, go = self.context.Pipe(duplex=False)
        asked = (begin, path, dict(os.environ), threads, temporary)
        process = self.context.Process(target=_run_in_fork, args=asked)
        try:
            with self.lock:
                if self.unavailable:
                    return None
                process.start()
                begin.close()
        except (OSError, EOFError) as error:  # a folder's name too long for a socket, a module that can't be imported
            self.unavailable = True
            print(f"Scripts are started, not forked: {error!r}", file=sys.stderr)
            return None
        with nullcontext() if bench_record is None else _benchmarked(process.pid, bench_record):
            with suppress(BrokenPipeError):
                go.send(True)  # not before it is watched
            wait([process.sentinel])
            with self.lock:
                process.join()
            while process.exitcode == LOST and psutil.pid_exists(process.pid):
                time.sleep(0.2)  # its files are not to be taken away while it writes
        return process.exitcode


def fork_scripts() -> None:
    """From now on Snakemake runs its Python scripts in forks; call it once, in the process that schedules jobs."""
    if sys.platform != "linux":  # elsewhere libraries do not live through a fork
        return
    multiprocessing.set_forkserver_preload(IMPORTED)
    preload.fork_scripts(ForkServer().run)


def _benchmarked(pid: int | None, bench_record: Any) -> Any:
    from snakemake.benchmark import benchmarked

    return benchmarked(pid, bench_record)


def _run_in_fork(
    begin: Connection, path: str, environment: dict[str, str], threads: int, temporary: str | None
) -> None:
    """Run a script as a started Python would, once it is told to begin."""
    from scatterproof.running.script_server import PATH

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError):  # for `ps` and `top`: all forks have one command line
        Path("/proc/self/comm").write_text(Path(path).suffixes[-2].lstrip("."))
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)
    sys.path[:] = [str(Path(path).parent), *PATH]
    begin.recv()
    preload.set_up_fork(threads, temporary)
    preload.run_script(path)
