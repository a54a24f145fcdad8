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
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

_LIBRARIES = ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")
THREADS = (*(f"{library}_NUM_THREADS" for library in _LIBRARIES), "VECLIB_MAXIMUM_THREADS")  # snakemake.shell
FOLDERS = ("TMPDIR", "TMP", "TEMPDIR", "TEMP")


def preload(modules: list[str]) -> None:
    """Import modules, so that forks have them; once for all cells of a task."""
    for name in modules:
        importlib.import_module(name)


def fork_scripts() -> None:
    """From now on Snakemake runs its Python scripts in forks of this process."""
    from snakemake.script import PythonScript

    anew = PythonScript.execute_script

    def execute(self: Any, fname: str, edit: bool = False) -> None:
        if edit or self.container_img or self.conda_env or self.env_modules or self.shadow_dir:
            anew(self, fname, edit)
        else:
            _run(fname, self.bench_record, self.threads, self.resources.get("tmpdir"))

    PythonScript.execute_script = execute


def _run(script: str, bench_record: Any, threads: int, temporary: str | None) -> None:
    """Run a script as `__main__`. Raises: CalledProcessError, as a started Python would make Snakemake do."""
    from snakemake.benchmark import benchmarked

    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        set_up_fork(threads, temporary)
        _be(script)
    with nullcontext() if bench_record is None else benchmarked(child, bench_record):
        _, status = os.waitpid(child, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), [sys.executable, script])


def set_up_fork(threads: int, temporary: str | None) -> None:
    """What Snakemake's shell sets for a Python that it starts, and what such a Python would draw anew."""
    os.environ |= dict.fromkeys(THREADS, str(threads)) | (dict.fromkeys(FOLDERS, temporary) if temporary else {})
    tempfile.tempdir = None  # found anew
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all forks draw the same numbers; Python's own sees to it itself
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()
        sys.modules["torch"].set_num_threads(threads)  # read from the environment when it was imported
    if "threadpoolctl" in sys.modules or importlib.util.find_spec("threadpoolctl"):
        importlib.import_module("threadpoolctl").threadpool_limits(threads)  # of BLAS libraries, likewise


def _be(script: str) -> None:
    code: object = 1
    try:
        sys.path.insert(0, str(Path(script).parent))
        run_script(script)
        code = 0
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
    """Run a script as `__main__`, and then what the end of a Python runs, which a fork ends without."""
    module = ModuleType("__main__")
    module.__dict__["__file__"] = script
    sys.argv, sys.modules["__main__"] = [script], module
    try:
        exec(compile(Path(script).read_bytes(), script, "exec"), module.__dict__)
    finally:
        atexit._run_exitfuncs()
        module.__dict__.clear()
        gc.collect()  # files that the script left open are written
