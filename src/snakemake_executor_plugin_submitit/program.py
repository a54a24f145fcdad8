"""A cell's program as a child process: any command, or a Snakemake that is forked from one import."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.preload import fork_scripts, preload
from snakemake_executor_plugin_submitit.save_signal import as_a_child
from snakemake_executor_plugin_submitit.shared_files import write_json


def spawn(cell: dict[str, Any], environment: dict[str, str], log: int, work: Path) -> int:
    """Start a cell's program with its output in `log`, a file descriptor; its process id.

    A Snakemake notes in `work` how long the rules' own bodies took, in seconds.
    """
    if "snakemake" in cell:
        import snakemake.cli  # paid once for all cells of the task

        preload(cell.get("preload", []))
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code: object = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        as_a_child(catching="snakemake" in cell)
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if "cwd" in cell:
            os.chdir(cell["cwd"])
        if "snakemake" not in cell:
            os.execvp(cell["argv"][0], cell["argv"])
        _time_bodies(work)
        _leave_unconfirmed()
        _read_odd_targets()
        if cell.get("preload"):
            fork_scripts()
        snakemake.cli.main(cell["snakemake"])
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _leave_unconfirmed() -> None:
    """Leave outputs marked as incomplete until a controller has taken note of the job.

    Snakemake's own job takes the mark away, but keeps no record of the code, params and inputs that it ran with: one
    that ended while no controller lived would pass for current, whatever had been changed meanwhile.
    """
    from snakemake.persistence import PersistenceBase

    async def finished(self: Any, job: Any) -> None:
        self._clear_cache()

    PersistenceBase.finished = finished


def _read_odd_targets() -> None:
    """Have Snakemake read targets whose wildcards it could not hand on itself."""
    from snakemake import cli

    from snakemake_executor_plugin_submitit.job_command import read_targets  # it imports what a task's start does not

    own = cli.parse_target_jobs_cli_args
    cli.parse_target_jobs_cli_args = lambda arguments: read_targets(arguments, own)


def _time_bodies(work: Path) -> None:
    """Have Snakemake say how long the rules' bodies take: what is beside is overhead."""
    from snakemake.executors import local

    body, seconds = local.run_wrapper, 0.0

    def timed(*args: Any) -> Any:
        nonlocal seconds
        started = time.monotonic()
        try:
            return body(*args)
        finally:
            seconds += time.monotonic() - started
            with suppress(OSError):
                write_json(work, {"seconds": seconds})

    local.run_wrapper = timed
