"""A Snakemake executor plugin that runs jobs on SLURM (or this machine) through submitit, and loses none of them.

What Snakemake looks for here is imported when it is asked for: every task imports this package, and must start fast.
"""

from typing import Any

__all__ = ["Executor", "ExecutorSettings", "common_settings"]


def __getattr__(name: str) -> Any:
    if name == "Executor":
        from snakemake_executor_plugin_submitit.executor import Executor

        return Executor
    if name in ("ExecutorSettings", "common_settings"):
        from snakemake_executor_plugin_submitit import settings

        return getattr(settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
