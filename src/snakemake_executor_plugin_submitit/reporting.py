"""What Snakemake is told about its jobs, and what it has taken note of."""

import asyncio
from typing import Any, cast

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.failures import explain
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.signature import members


class ReportingExecutor(RemoteExecutor):  # type: ignore[misc,unused-ignore]
    """Reports jobs. rows: of the journal, of each job that Snakemake has not taken note of yet."""

    ready = False  # the base class starts to poll before __post_init__ has run
    journal: Journal
    rows: dict[JobExecutorInterface, dict[str, Any]]

    async def sleep(self) -> None:
        """Wait between two looks at the jobs, not for long while the executor is being set up."""
        await (super().sleep() if self.ready else asyncio.sleep(0.05))

    def _watch_job(self, job: JobExecutorInterface, row: dict[str, Any]) -> None:
        self.rows[job] = row
        info = SubmittedJobInfo(job, external_jobid=row["job_id"], aux={"cell": row})
        self.report_job_submission(info, register_job=False)

    def _refuse(self, job: JobExecutorInterface, why: str) -> None:
        self.report_job_error(SubmittedJobInfo(job), msg=why)

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        """Why a job failed. Of a group Snakemake would drop the message, and print `None` for each of its jobs."""
        if not job_info.job.is_group() or msg is None:
            super().print_job_error(job_info, msg, **kwargs)
            return
        self.logger.error(msg)
        for one in members(job_info.job):
            one.log_error(msg=f"in a group that failed: {msg.splitlines()[0]}", indent=True)

    def _report_end(self, info: SubmittedJobInfo, succeeded: bool) -> None:
        if succeeded:
            self.report_job_success(info)
            return
        message, logs = explain(row_of(info))
        self.report_job_error(info, msg=message, aux_logs=logs)

    def handle_job_success(self, job: JobExecutorInterface) -> None:
        """Snakemake has taken note: the cell needs no one's attention any more."""
        self._settle(job)

    def handle_job_error(self, job: JobExecutorInterface) -> None:
        """Snakemake has taken note: the cell needs no one's attention any more."""
        self._settle(job)

    def _settle(self, job: JobExecutorInterface) -> None:
        row = self.rows.pop(job, None)
        if row is not None:
            self.journal.change([{"id": row["id"], "settled": 1}])


def row_of(info: SubmittedJobInfo) -> dict[str, Any]:
    """The journal's row of a job that was reported as submitted."""
    assert info.aux is not None
    return cast(dict[str, Any], info.aux["cell"])
