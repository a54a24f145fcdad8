"""Python scripts of rules in forks of a process that has imported their slow modules already.

Importing torch takes seconds, and a task that runs twenty cells would pay for it twenty times. Only scripts that run in
Snakemake's own Python are forked; those with a conda environment, a container or modules of their own start anew.
"""

import importlib
import os
import runpy
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any


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
            _run(fname, self.bench_record)

    PythonScript.execute_script = execute


def _run(script: str, bench_record: Any) -> None:
    """Run a script as `__main__`. Raises: CalledProcessError, as a started Python would make Snakemake do."""
    from snakemake.benchmark import benchmarked

    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _be(script)
    with nullcontext() if bench_record is None else benchmarked(child, bench_record):
        _, status = os.waitpid(child, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), [sys.executable, script])


def _be(script: str) -> None:
    code: object = 1
    try:
        sys.argv = [script]
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")
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
