"""Snakemake's jobs of a small workflow, made in this process: nothing is run."""

import linecache
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

from snakemake_executor_plugin_submitit.signature import Signatures


def signatures(folder: Path, target: str = "all", configfiles: tuple[str, ...] = (), **config: Any) -> dict[str, str]:
    """The signature of each job by its rule, or its rule and wildcards."""
    linecache.clearcache()  # Snakemake reads a rule's text through it, once a process
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        settings = ConfigSettings(config=config, configfiles=[folder / name for name in configfiles])
        resources = ResourceSettings(cores=8, nodes=10)
        dag = api.workflow(
            resource_settings=resources, config_settings=settings, snakefile=folder / "Snakefile", workdir=folder
        ).dag(DAGSettings(targets={target}))
        workflow = dag.workflow_api._workflow
        workflow.dag_settings = dag.dag_settings
        workflow._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        sign = Signatures(workflow)
        return {job.rule.name: sign(job) for job in workflow.dag.jobs if job.rule.name != target}
