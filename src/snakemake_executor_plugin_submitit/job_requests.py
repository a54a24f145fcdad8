"""What the jobs of one run ask for: each request once, checked against the cluster, its faults and doubts said."""

from collections.abc import Iterator
from contextlib import suppress
from logging import Logger
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.budget_guard import check
from snakemake_executor_plugin_submitit.cell_rows import rule_of
from snakemake_executor_plugin_submitit.cluster import Cluster, NamedClusters
from snakemake_executor_plugin_submitit.remaining import Left
from snakemake_executor_plugin_submitit.requests import Request, request_of, resources_of, still_unknown
from snakemake_executor_plugin_submitit.sbatch_defaults import Defaults
from snakemake_executor_plugin_submitit.signature import members

MOST_FAULTS = 20  # of impossible requests, named at the start


class JobRequests:
    """The requests of a workflow's jobs. limit: of the budget, in GPU-seconds; None without one."""

    def __init__(self, workflow: Any, defaults: Defaults, cluster: Cluster, limit: int | None, logger: Logger) -> None:
        self.workflow, self.defaults, self.cluster, self.limit, self.logger = workflow, defaults, cluster, limit, logger
        self.named = NamedClusters(defaults.settings, logger)
        self.known: dict[tuple[Any, ...], Request] = {}  # by what is asked for: a sweep's jobs ask for the same
        self.warned: set[tuple[str, str]] = set()

    def of(self, job: JobExecutorInterface) -> Request:
        """What a job asks for. Raises: WorkflowError that names rule and resource."""
        resources = resources_of(job, self.workflow.global_resources)
        if self.defaults.minutes:
            resources.setdefault("runtime", self.defaults.minutes)
        rule = rule_of(job)
        asked = (rule, job.threads, *((name, repr(value)) for name, value in resources.items()))
        if asked not in self.known:
            request = request_of(rule, job.threads, resources, self.defaults.settings, len(members(job)))
            self._warn_once(rule, request.ignored, resources)
            (self.named if request.clusters else self.cluster).check(rule, request)
            check(rule, request, self.limit)
            self.known[asked] = request
        return self.known[asked]

    def at_submission(self, job: JobExecutorInterface) -> Request:
        """The same, where what is not known yet never will be; that is named. Raises: see of."""
        self._warn_once(rule_of(job), still_unknown(job), {})
        return self.of(job)

    def check_all(self) -> None:
        """Name all that cannot be, before anything is submitted. Raises: WorkflowError, but for `--keep-going`."""
        faults: dict[str, None] = {}
        for job in self._jobs():
            try:
                self.of(job)
            except WorkflowError as error:
                faults[str(error)] = None
        shown = list(faults)[:MOST_FAULTS]
        if len(faults) > MOST_FAULTS:
            shown.append(f"and {len(faults) - MOST_FAULTS} more such resources")
        if faults and not self.workflow.execution_settings.keep_going:
            raise WorkflowError("\n".join(shown))
        for line in shown:
            self.logger.error(f"{line}; not submitted")

    def left(self) -> list[Left]:
        """What is to be run, one entry a job, as far as it can be known by now."""
        entries = []
        for job in self._jobs():
            with suppress(WorkflowError):  # said when it is submitted
                request = self.of(job)
                entries.append(Left(rule_of(job), request.minutes, request.gpus, request.cpus))
        return entries

    def _jobs(self) -> Iterator[JobExecutorInterface]:
        for job in self.workflow.dag.needrun_jobs():
            if not job.is_local and job.resources:  # a callable of the workflow that fails is Snakemake's to name
                yield job

    def _warn_once(self, rule: str, ignored: dict[str, str], resources: dict[str, Any]) -> None:
        for name, why in ignored.items():
            if (rule, name) not in self.warned:
                self.warned.add((rule, name))
                self.logger.warning(f"rule {rule}, resource {name}={resources.get(name, '<TBD>')!r}: {why}")
