"""Scripts of Snakemake's own executor as forks of one process, which has imported torch and ourselves once.

Importing torch takes a few seconds of each job's start, as long as many jobs of a small study take. The process is the
`forkserver` of Python's `multiprocessing`: it starts with the run and ends with it. Jobs that an executor plugin sends
elsewhere, or that have a conda environment, a container or modules of their own, start a Python as before.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from contextlib import nullcontext, suppress
from multiprocessing import forkserver
from pathlib import Path
from threading import Lock
from typing import Any

IMPORTED = ["torch", "pandas", "safetensors.torch", "torch.fx", "scipy.optimize"]
IMPORTED += ["snakemake.cli", "snakemake.script", "snakemake.benchmark"]
IMPORTED += [
    "scatterproof." + name
    for name in ("attacks.runner", "config.study", "cutting", "defences.network", "judging.controls", "judging.judge")
]


def fork_scripts() -> None:
    """From now on Snakemake runs its Python scripts in forks; call it once, in the process that schedules jobs."""
    from snakemake.script import PythonScript

    multiprocessing.set_forkserver_preload(IMPORTED)
    forkserver.ensure_running()
    context, starting, anew = multiprocessing.get_context("forkserver"), Lock(), PythonScript.execute_script

    def execute(script: Any, path: str, edit: bool = False) -> None:
        if edit or script.container_img or script.conda_env or script.env_modules or script.shadow_dir:
            anew(script, path, edit)
            return
        asked = (path, dict(os.environ), script.threads, script.resources.get("tmpdir"))
        process = context.Process(target=_be, args=asked)
        with starting:  # Snakemake calls this from many threads
            process.start()
        _await(process, script.bench_record)
        if process.exitcode:
            raise subprocess.CalledProcessError(process.exitcode, [sys.executable, path])

    PythonScript.execute_script = execute


def _await(process: Any, bench_record: Any) -> None:
    from snakemake.benchmark import benchmarked

    with nullcontext() if bench_record is None else benchmarked(process.pid, bench_record):
        process.join()


def _be(path: str, environment: dict[str, str], threads: int, temporary: str | None) -> None:
    """Be a Python that runs this script."""
    from snakemake_executor_plugin_submitit.preload import set_up_fork

    with suppress(OSError):  # for `ps` and `top`, where there is such a file: all forks have one command line
        Path("/proc/self/comm").write_text(Path(path).suffixes[-2].lstrip("."))
    os.environ.clear()
    os.environ.update(environment)
    set_up_fork(threads, temporary)
    sys.argv = [path]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(path, run_name="__main__")
