"""Python scripts of rules in forks of a process that has imported their slow modules already.

Importing torch takes seconds, and a task that runs twenty cells would pay for it twenty times. Only scripts that run in
Snakemake's own Python are forked; those with a conda environment, a container or modules of their own start anew.
"""

import atexit
import gc
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

_LIBRARIES = ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")
THREADS = (*(f"{library}_NUM_THREADS" for library in _LIBRARIES), "VECLIB_MAXIMUM_THREADS")  # snakemake.shell
FOLDERS = ("TMPDIR", "TMP", "TEMPDIR", "TEMP")


def preload(modules: list[str]) -> None:
    """Import modules, so that forks have them; once for all cells of a task."""
    for name in modules:
        importlib.import_module(name)
    blas()


def run_in_fork(script: str, threads: int, temporary: str | None, bench_record: Any) -> int:
    """The exit status of a script, run as `__main__` in a fork of this process. temporary: folder of its files."""
    from snakemake.benchmark import benchmarked

    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        set_up_fork(threads, temporary)
        sys.path.insert(0, str(Path(script).parent))
        exit_with(lambda: run_script(script))
    with nullcontext() if bench_record is None else benchmarked(child, bench_record):
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def fork_scripts(run: Callable[[str, int, str | None, Any], int | None] = run_in_fork) -> None:
    """From now on Snakemake has its Python scripts run in forks.

    run: takes a script, its threads, its folder of temporary files and its benchmark record, and returns the exit
    status; None where it has not run the script, so that a Python is started.
    """
    from snakemake.script import PythonScript

    start: Callable[..., None] = PythonScript.execute_script

    def execute(self: Any, fname: str, edit: bool = False) -> None:
        own = edit or self.container_img or self.conda_env or self.env_modules or self.shadow_dir
        status = None if own else run(fname, self.threads, self.resources.get("tmpdir"), self.bench_record)
        if status is None:
            start(self, fname, edit)
        elif status:
            raise subprocess.CalledProcessError(status, [sys.executable, fname])

    PythonScript.execute_script = execute


def set_up_fork(threads: int, temporary: str | None) -> None:
    """Set the variables that Snakemake sets for a started Python, and seed random numbers anew."""
    os.environ |= dict.fromkeys(THREADS, str(threads)) | (dict.fromkeys(FOLDERS, temporary) if temporary else {})
    tempfile.tempdir = None  # found anew
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all forks draw the same numbers; Python's own sees to it itself
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()
        sys.modules["torch"].set_num_threads(threads)  # read from the environment when it was imported
    if blas():
        blas().limit(limits=threads)  # likewise


@cache
def blas() -> Any:
    """The BLAS and OpenMP libraries that are loaded by now; None without `threadpoolctl`. Looking takes 20 ms."""
    if "threadpoolctl" in sys.modules or importlib.util.find_spec("threadpoolctl"):
        return importlib.import_module("threadpoolctl").ThreadpoolController()
    return None


def exit_with(work: Callable[[], int | None]) -> NoReturn:
    """Work, then end this fork with the status that `work` returns or exits with; None: 0, an exception: 1, printed."""
    code: object = 1
    try:
        code = work()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def run_script(script: str) -> None:
    """Run a script as `__main__`, then its exit handlers, which a fork would skip."""
    module = ModuleType("__main__")
    module.__dict__["__file__"] = script
    sys.argv, sys.modules["__main__"] = [script], module
    try:
        exec(compile(Path(script).read_bytes(), script, "exec"), module.__dict__)
    finally:
        atexit._run_exitfuncs()
        module.__dict__.clear()
        gc.collect()  # files that the script left open are written
