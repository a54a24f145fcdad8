"""Snakemake that kills itself with SIGKILL at the moment named in FAULT: `commit 3 before`, `sbatch 1 after`.

`commit` counts the journal's transactions, `sbatch` the submissions; FAULT_LOG gets a line for each that is passed.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snakemake.cli import main

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.journal import Journal

passed: Counter[str] = Counter()
kind, number, when = os.environ.get("FAULT", "none 0 before").split()


def fragile(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any) -> Any:
        passed[name] += 1
        mine = name == kind and passed[name] == int(number)
        with Path(os.environ["FAULT_LOG"]).open("a") as file:
            print(name, passed[name], file=file)
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args)
        if mine and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


Journal._commit = fragile("commit", Journal._commit)  # type: ignore[method-assign]
slurm.sbatch = fragile("sbatch", slurm.sbatch)
main(sys.argv[1:])
