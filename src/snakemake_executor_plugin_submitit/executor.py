"""The executor that Snakemake talks to: it submits what is ready, watches it, and finds it again after a crash."""

import os
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, cast

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import SharedFSUsage

from snakemake_executor_plugin_submitit.budget import gpu_hours, seconds
from snakemake_executor_plugin_submitit.budget_guard import ASK_S, BudgetGuard
from snakemake_executor_plugin_submitit.cancel import Interrupts, cancel_all, cancel_and_wait
from snakemake_executor_plugin_submitit.cell_rows import describe, rule_of
from snakemake_executor_plugin_submitit.cluster import reach_cluster
from snakemake_executor_plugin_submitit.forks import ForkError, Forks
from snakemake_executor_plugin_submitit.gate import Gate
from snakemake_executor_plugin_submitit.gpu_usage import GpuUsage
from snakemake_executor_plugin_submitit.job_command import (
    group_limits,
    program,
    share_arguments,
    wait_for,
    with_own_words,
)
from snakemake_executor_plugin_submitit.job_ids import submission_of
from snakemake_executor_plugin_submitit.job_requests import JobRequests
from snakemake_executor_plugin_submitit.journal import Journal, JournalError
from snakemake_executor_plugin_submitit.reattach import Reattacher, earlier_rows
from snakemake_executor_plugin_submitit.remaining import tell, write_left
from snakemake_executor_plugin_submitit.reporting import ReportingExecutor, row_of
from snakemake_executor_plugin_submitit.resubmit import Resubmissions
from snakemake_executor_plugin_submitit.sbatch_defaults import with_defaults
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.signature import Signatures, inputs_of
from snakemake_executor_plugin_submitit.slurm import UnreadableError
from snakemake_executor_plugin_submitit.status import Outcome, Watch
from snakemake_executor_plugin_submitit.submitter import FullError, Ready, RejectedError, Submitter
from snakemake_executor_plugin_submitit.takeover import note_locks

MOST_INPUTS = 200  # of a job, that are told by their content; the others are told by their time
FORKED_S, LOCAL_S = 0.05, 0.5  # between two looks at forked tasks, and at others of this machine
KEEP_S = 24 * 3600.0  # so long the files of a finished submission are kept: one of its tasks may be requeued late


class Executor(ReportingExecutor):
    """Runs jobs through submitit. Raises: WorkflowError at bad settings, and where a controller is at work."""

    def __post_init__(self) -> None:
        defaults = with_defaults(cast(ExecutorSettings, self.workflow.executor_settings), os.environ)
        self.settings = defaults.settings
        if defaults.ignored:
            self.logger.warning(f"Of your environment, ignored for the jobs: {', '.join(defaults.ignored)}")
        self.base = Path(self.settings.folder or ".submitit").absolute()
        self.logdir = (self.settings.logdir or self.base / "logs").absolute()
        self.interrupts = Interrupts(self.settings.on_interrupt == "detach")
        self.began = time.time()
        self.closed = threading.Event()
        self.over: set[int] = set()  # cells that have ended
        self.rows: dict[JobExecutorInterface, dict[str, Any]] = {}
        self.limit = seconds(gpu_hours(self.settings.gpu_hours, self.workflow.config))
        self.cluster = reach_cluster(self.settings, self.logger)
        self.requests = JobRequests(self.workflow, defaults, self.cluster, self.limit, self.logger)
        self.requests.check_all()
        self.base.mkdir(parents=True, exist_ok=True)
        try:
            self.journal = Journal(self.base / "journal.sqlite")
        except JournalError as error:
            raise WorkflowError(str(error)) from None
        note_locks(self.workflow.persistence, self.base)
        self.submitter = Submitter(
            self.settings, self.journal, self.base, self.logger.warning, self.cluster.array_limit, lambda: not self.wait
        )
        self.submitter.arrays, self.submitter.named = self.cluster.arrays, self.requests.named.of
        if self.settings.fork_server:
            try:
                self.submitter.forks = Forks(self.base, self.settings.modules)
            except ForkError as error:
                raise WorkflowError(str(error)) from None
        interval = float(self.settings.status_interval or 0)
        if self.settings.cluster != "slurm":  # jobs may be over in less than Snakemake's own pause
            interval = FORKED_S if self.settings.fork_server else LOCAL_S
            self.next_seconds_between_status_checks = interval
        returns = self.settings.requeue == "always"
        self.watch = Watch(str(self.settings.cluster), interval, float(self.settings.lost_after or 120), returns)
        self.watch.say = self.logger.warning
        self.resubmissions = Resubmissions(self.journal, self.logger, 1 + int(self.settings.max_requeues or 0))
        self.signatures = Signatures(self.workflow)
        share_arguments(self.workflow.spawned_job_args_factory)
        self.reattacher = Reattacher(
            earlier_rows(self.submitter, self.logger), self.journal, self.watch, self.logger, self.signatures
        )
        try:
            self._keep_budget()
            self._sweep()
        except JournalError as error:
            raise WorkflowError(str(error)) from None
        if self.interrupts.listen():
            leave = f"To leave them running and end this process: kill -USR1 {os.getpid()}"
            self.logger.info(f"Jobs are kept in {self.base}. {leave}")
        self.ready = True
        threading.Thread(target=self.journal.keep, args=(self.closed,), daemon=True).start()

    def _keep_budget(self) -> None:
        """Take stock of what earlier controllers have spent and left to do, and say so."""
        study = self.workflow.config.get("study")
        study = study if isinstance(study, str) else None
        patience = float(self.settings.lost_after or 120)
        overrun_s = max(self.cluster.overrun_s, self.requests.named.overrun_s)
        usage = GpuUsage(overrun_s, patience, self.logger.warning)
        guard = BudgetGuard(self.journal, usage, self.limit, study, max(ASK_S, self.watch.interval))
        guard.load()
        self.submitter.serve(study, self.limit is not None, overrun_s)
        self.gate = Gate(guard, self.submitter, self._submit, self.logger.info)
        left = self.requests.left()
        if left:
            self.logger.info(tell(left, self.journal.tasks(), study, self.limit, guard.budget.used))
            write_left(self.base, study, left)

    def _sweep(self) -> None:
        folders = self.journal.finished_folders(time.time() - KEEP_S)
        self.gate.guard.keep_clocks(folder for folder in folders if Path(folder).exists())
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    # submitting

    def get_job_args(self, job: JobExecutorInterface, **kwargs: Any) -> str:
        """Without the controller's temporary folder, which queued jobs would wait for in vain once it has ended."""
        shared = SharedFSUsage.INPUT_OUTPUT in self.workflow.storage_settings.shared_fs_usage
        # what only this machine has is never there: a job fetches it from storage itself
        waiting = wait_for(list(job.get_wait_for_files()), self.base / "waits") if shared else ""
        limits = ""
        if job.is_group():  # else its members run side by side on all that the node has
            limits = group_limits(job, self.workflow.global_resources)
            cpus = self.requests.of(job).parameters.get("cpus_per_task")
            kwargs |= {"cores": cpus} if cpus else {}
        own = RealExecutor.get_job_args(self, job, **kwargs)
        temporary = list(self.workflow.dag.get_unneeded_temp_files(job))
        return f"{with_own_words(own, job.get_target_spec(), temporary)} {limits} {waiting}"

    def run_job(self, job: JobExecutorInterface) -> None:
        """One job; see run_jobs."""
        self.run_jobs([job])

    def run_jobs(self, jobs: Sequence[JobExecutorInterface]) -> None:
        """Attach to those that an earlier controller has under way, submit the others in arrays."""
        for job in jobs:
            self.run_job_pre(job)
        sorted_out = self.reattacher.sort_out([(job, self._describe(job)) for job in jobs])
        for job, row in sorted_out.under_way:
            self._watch_job(job, row)
        if sorted_out.outdated:
            cancel_and_wait(
                self.settings.cluster == "slurm", sorted_out.outdated, self.watch, self.journal, self.logger
            )
        self._submit_all(sorted_out.fresh)

    def _describe(self, job: JobExecutorInterface) -> dict[str, Any]:
        return describe(job, self.logdir, self.signatures(job))

    def _submit_all(self, fresh: list[tuple[JobExecutorInterface, dict[str, Any]]]) -> None:
        """Submit cells in arrays; one that asks for what cannot be fails alone."""
        ready = []
        for job, cell in fresh:
            try:
                ready.append(
                    Ready(job, cell, self._program(job), self.requests.at_submission(job), self.signatures.sources(job))
                )
            except WorkflowError as error:
                self._refuse(job, f"{error}. ")
        self.gate.offer(ready)

    def _program(self, job: JobExecutorInterface) -> dict[str, Any]:
        factory = self.workflow.spawned_job_args_factory
        precommand = factory.precommand(executor_common_settings=self.common_settings)
        shared = factory.general_args(executor_common_settings=self.common_settings)
        inputs = {"inputs": inputs_of(job)[:MOST_INPUTS]}
        # A job reads `workdir:` and relative configfiles from where Snakemake was started, as the controller did
        start = self.workflow.workdir_init
        started = {} if start == str(Path.cwd()) else {"cwd": start}
        command = program(self.format_job_exec(job), self.envvars(), precommand, shared)
        return command | inputs | started

    def _submit(self, tasks: list[list[Ready]]) -> None:
        jobs = [one.job for cells in tasks for one in cells]
        try:
            rows = self.submitter.submit(tasks)
        except FullError:
            half = len(tasks) // 2
            self._submit(tasks[:half])
            self._submit(tasks[half:])
            return
        except UnreadableError as error:  # whatever is submitted now would run without our knowing
            self.gate.dropped(tasks)
            self._stop(str(error))
            return
        except RejectedError as error:
            self.gate.dropped(tasks)
            for job in jobs:
                self._refuse(job, f"rule {rule_of(job)} not submitted: {error}. ")
            return
        self.gate.submitted(tasks, rows)
        for job, row in zip(jobs, rows, strict=True):
            self._watch_job(job, row)
        count = f"{len(tasks)} tasks" + (f" with {len(jobs)} jobs" if len(jobs) > len(tasks) else "")
        self.logger.info(f"Submitted {rows[0]['submission']} as {submission_of(rows[0]['job_id'])}: {count}.")

    def _stop(self, why: str) -> None:
        """End the whole run: Snakemake raises the error in its next round."""
        self.gate.close()
        self.workflow.scheduler.executor_error_callback(WorkflowError(why))

    # watching

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report what has ended; yield what goes on."""
        if not self.ready:
            for info in active_jobs:
                yield info
            return
        rows = [row_of(info) for info in active_jobs]
        others = list(self.reattacher.known.values()) if self.gate.waiting else []  # their end makes room, too
        outcomes = self.watch.poll(rows + others) if rows or others else {}
        self.journal.change([outcomes[row["id"]].change(row["id"]) for row in rows if row["id"] in outcomes])
        lost = []
        for info in active_jobs:
            row = row_of(info)
            outcome = outcomes.get(row["id"])
            if outcome is None:
                yield info
                continue
            row |= {"state": outcome.state, "reason": outcome.reason, "node": outcome.node} | outcome.columns
            if not outcome.ended:
                yield info
            elif outcome.lost and self.resubmissions.allow(row):
                lost.append(info)
            else:
                self._report_end(info, outcome.exit == 0)

        if lost:
            self._bring_back(lost)
        self._watch_budget(outcomes)

    def _watch_budget(self, outcomes: dict[int, Outcome]) -> None:
        """Submit what has room by now; stop where nothing is under way and nothing fits."""
        if self.limit is None or self.workflow.scheduler is None:  # Snakemake makes it after us
            return
        self.over |= {number for number, outcome in outcomes.items() if outcome.ended}
        self.gate.watch({task for number, task in self.journal.open_ids().items() if number not in self.over})
        why = self.gate.stuck(set(self.workflow.scheduler.running))
        if why:
            self._stop(why)

    def _bring_back(self, lost: list[SubmittedJobInfo]) -> None:
        self.resubmissions.close([row_of(info) for info in lost])
        self._submit_all([(info.job, self._describe(info.job)) for info in lost])

    # ending

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """End the jobs in one call, or leave them to the next run of the same command.

        Snakemake calls this at any error of its own too; only an interrupt is a wish to end the jobs.
        """
        waited = self.gate.close()
        if waited:
            self.logger.info(f"{waited} jobs had waited for room in the budget and were never submitted.")
        rows = list(self.rows.values())
        if self.interrupts.leave_jobs() or not self.journal.holds():
            self.logger.warning(f"Detached: {len(rows)} jobs go on. The same command takes them up again.")
            return
        cancel_all(self.settings.cluster == "slurm", rows, self.journal, self.logger)

    def shutdown(self) -> None:
        """End the polling, close what ended unasked for, and give the journal back."""
        if self.closed.is_set():
            return
        self.gate.close()
        super().shutdown()
        self.reattacher.close_ended()
        for rule, cells, busy, work in self.journal.overhead(self.began):
            share = f"{busy:.1f} minutes of tasks, {1 - work / busy:.0%} of them start-up"
            self.logger.info(f"{rule}: {cells} jobs, {share} (see --submitit-pack)")
        if self.submitter.forks:
            self.submitter.forks.close()
        self.closed.set()
        self.journal.close()
