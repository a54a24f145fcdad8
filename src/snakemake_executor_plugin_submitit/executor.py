"""The executor that Snakemake talks to: it submits what is ready, watches it, and finds it again after a crash."""

import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, cast

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.utils import format_cli_arg

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.budget import gpu_hours, seconds
from snakemake_executor_plugin_submitit.budget_guard import ASK_S, BudgetGuard
from snakemake_executor_plugin_submitit.cancel import cancel, cancel_and_wait
from snakemake_executor_plugin_submitit.cell_rows import describe, program, rule_of
from snakemake_executor_plugin_submitit.cluster import reach_cluster
from snakemake_executor_plugin_submitit.failures import explain
from snakemake_executor_plugin_submitit.fencing import fence, revoke
from snakemake_executor_plugin_submitit.gate import Gate
from snakemake_executor_plugin_submitit.gpu_usage import GpuUsage
from snakemake_executor_plugin_submitit.job_requests import JobRequests
from snakemake_executor_plugin_submitit.journal import Journal, JournalError
from snakemake_executor_plugin_submitit.reattach import Reattacher
from snakemake_executor_plugin_submitit.remaining import tell, write_left
from snakemake_executor_plugin_submitit.sbatch_defaults import with_defaults
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.signature import Signatures, inputs_of, members
from snakemake_executor_plugin_submitit.slurm import UnreadableError
from snakemake_executor_plugin_submitit.status import Outcome, Watch
from snakemake_executor_plugin_submitit.submitter import FullError, Ready, RejectedError, Submitter

HEARTBEAT_S = 10.0
MOST_INPUTS = 200  # of a job, that are told by their content; the others are told by their time
KEEP_S = 24 * 3600.0  # so long the files of a finished submission are kept: one of its tasks may be requeued late


class Executor(RemoteExecutor):  # type: ignore[misc,unused-ignore]
    """Runs jobs through submitit. Raises: WorkflowError at bad settings, and where a controller is at work."""

    ready = False  # the base class starts to poll before __post_init__ has run

    def __post_init__(self) -> None:
        defaults = with_defaults(cast(ExecutorSettings, self.workflow.executor_settings), os.environ)
        self.settings = defaults.settings
        if defaults.ignored:
            self.logger.warning(f"Of your environment, ignored for the jobs: {', '.join(defaults.ignored)}")
        self.base = Path(self.settings.folder or ".submitit").absolute()
        self.logdir = (self.settings.logdir or self.base / "logs").absolute()
        self.detaching = False
        self.began = time.time()
        self.closed = threading.Event()
        self.returned: Counter[str] = Counter()
        self.over: set[int] = set()  # cells that have ended
        self.row_of: dict[JobExecutorInterface, dict[str, Any]] = {}
        self.limit = seconds(gpu_hours(self.settings.gpu_hours, self.workflow.config))
        self.cluster = reach_cluster(self.settings, self.logger)
        self.requests = JobRequests(self.workflow, defaults, self.cluster, self.limit, self.logger)
        self.requests.check_all()
        self.base.mkdir(parents=True, exist_ok=True)
        try:
            self.journal = Journal(self.base / "journal.sqlite")
        except JournalError as error:
            raise WorkflowError(str(error)) from None
        self.submitter = Submitter(
            self.settings, self.journal, self.base, self.logger.warning, self.cluster.array_limit, lambda: not self.wait
        )
        interval = 0.5 if self.settings.cluster != "slurm" else float(self.settings.status_interval or 0)
        returns = self.settings.requeue == "always"
        self.watch = Watch(str(self.settings.cluster), interval, float(self.settings.lost_after or 120), returns)
        self.signatures = Signatures(self.workflow)
        self.reattacher = Reattacher(self._recover(), self.journal, self.watch, self.logger, self.signatures)
        try:
            self._keep_budget()
            self._sweep()
        except JournalError as error:
            raise WorkflowError(str(error)) from None
        self._listen()
        self.ready = True
        threading.Thread(target=self._beat, daemon=True).start()

    def _keep_budget(self) -> None:
        """Take stock of what earlier controllers have spent and left to do, and say so."""
        study = self.workflow.config.get("study")
        study = study if isinstance(study, str) else None
        patience = float(self.settings.lost_after or 120)
        usage = GpuUsage(self.cluster.overrun_s, patience, self.logger.warning)
        guard = BudgetGuard(self.journal, usage, self.limit, study, max(ASK_S, self.watch.interval))
        guard.load()
        self.submitter.serve(study, self.limit is not None, self.cluster.overrun_s)
        self.gate = Gate(guard, self.submitter, self._submit, self.logger.info)
        left = self.requests.left()
        if left:
            self.logger.info(tell(left, self.journal.tasks(), study, self.limit, guard.budget.used))
            write_left(self.base, study, left)

    def _recover(self) -> list[dict[str, Any]]:
        for attempt in range(60):
            try:
                found = self.submitter.recover()
                if found:
                    self.logger.info(f"The journal knows {len(found)} jobs of earlier runs that are not settled.")
                return found
            except slurm.SlurmError as error:
                self.logger.warning(f"{error}; waiting for it, to find the jobs of an earlier run")
                time.sleep(min(10, 1 + attempt))
        raise WorkflowError("SLURM does not answer, and jobs of an earlier run may be under way: try again later")

    def _sweep(self) -> None:
        folders = self.journal.finished_folders(time.time() - KEEP_S)
        self.gate.guard.keep_clocks(folder for folder in folders if Path(folder).exists())
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        signal.signal(signal.SIGUSR1, self._on_detach)
        self.logger.info(
            f"Jobs are kept in {self.base}. To leave them running and end this process: kill -USR1 {os.getpid()}"
        )

    def _beat(self) -> None:
        """Say that we live, whatever the other threads wait for."""
        while not self.closed.wait(HEARTBEAT_S):
            if not self.journal.holds():
                return  # the next write says why

    def _on_detach(self, *_: Any) -> None:
        self.detaching = True
        raise KeyboardInterrupt

    # submitting

    def get_job_args(self, job: JobExecutorInterface, **kwargs: Any) -> str:
        """Without the controller's temporary folder, which queued jobs would wait for in vain once it has ended."""
        wait = list(job.get_wait_for_files())
        if len(wait) > 20:
            from uuid import uuid4

            folder = self.base / "waits"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{uuid4().hex}.txt"
            path.write_text("\n".join(map(str, wait)) + "\n")
            waiting = format_cli_arg("--wait-for-files-file", str(path))
        else:
            waiting = format_cli_arg("--wait-for-files", wait)
        return f"{RealExecutor.get_job_args(self, job, **kwargs)} {waiting}"

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
        command = self.format_job_exec(job)
        if precommand:
            command = command.replace(f"{precommand} &&", "", 1)
        return program(command, self.envvars(), precommand) | {"inputs": inputs_of(job)[:MOST_INPUTS]}

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
        self.logger.info(f"Submitted {rows[0]['submission']} as {rows[0]['job_id'].split('_')[0]}: {count}.")

    def _stop(self, why: str) -> None:
        """End the whole run: Snakemake raises the error in its next round."""
        self.gate.close()
        self.workflow.scheduler.executor_error_callback(WorkflowError(why))

    def _watch_job(self, job: JobExecutorInterface, row: dict[str, Any]) -> None:
        self.row_of[job] = row
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

    # watching

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report what has ended; yield what goes on."""
        if not self.ready:
            for info in active_jobs:
                yield info
            return
        rows = [_row(info) for info in active_jobs]
        others = list(self.reattacher.known.values()) if self.gate.waiting else []  # their end makes room, too
        outcomes = self.watch.poll(rows + others) if rows or others else {}
        self.journal.change([outcomes[row["id"]].change(row["id"]) for row in rows if row["id"] in outcomes])
        lost = []
        for info in active_jobs:
            row = _row(info)
            outcome = outcomes.get(row["id"])
            if outcome is None:
                yield info
                continue
            row |= {"state": outcome.state, "reason": outcome.reason, "node": outcome.node} | outcome.columns
            if not outcome.ended:
                yield info
            elif outcome.lost and self._may_return(row):
                lost.append(info)
            elif outcome.exit == 0:
                self.report_job_success(info)
            else:
                message, logs = explain(row)
                self.report_job_error(info, msg=message, aux_logs=logs)

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

    def _may_return(self, row: dict[str, Any]) -> bool:
        self.returned[row["key"]] += 1
        return self.returned[row["key"]] <= 1 + int(self.settings.max_requeues or 0)

    def _bring_back(self, lost: list[SubmittedJobInfo]) -> None:
        """Submit jobs again that ended for no fault of their own, at no charge to their retries."""
        rows = [_row(info) for info in lost]
        for row in rows:
            fence(Path(row["folder"]), row["task"], row["state"])
            self.logger.warning(f"{row['rule']} {row['name']}: {row['state']} ({row['reason']}); submitted again")
        self.journal.change([{"id": row["id"], "settled": 1} for row in rows])
        self._submit_all([(info.job, self._describe(info.job)) for info in lost])

    def handle_job_success(self, job: JobExecutorInterface) -> None:
        """Snakemake has taken note: the cell needs no one's attention any more."""
        self._settle(job)

    def handle_job_error(self, job: JobExecutorInterface) -> None:
        """Snakemake has taken note: the cell needs no one's attention any more."""
        self._settle(job)

    def _settle(self, job: JobExecutorInterface) -> None:
        row = self.row_of.pop(job, None)
        if row is not None:
            self.journal.change([{"id": row["id"], "settled": 1}])

    # ending

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """End the jobs in one call, or leave them to the next run of the same command.

        Snakemake calls this at any error of its own too; only an interrupt is a wish to end the jobs.
        """
        waited = self.gate.close()
        if waited:
            self.logger.info(f"{waited} jobs had waited for room in the budget and were never submitted.")
        rows = list(self.row_of.values())
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt | SystemExit)
        detach = self.detaching or self.settings.on_interrupt == "detach" or not interrupted
        if detach or not self.journal.holds():
            self.logger.warning(f"Detached: {len(rows)} jobs go on. The same command takes them up again.")
            return
        known = {row["id"] for row in rows}
        cut_short = [row for row in self.journal.open_cells() if row["submitted"] is None and row["id"] not in known]
        names = sorted({row["submission"] for row in cut_short})
        if not cancel(self.settings.cluster == "slurm", rows, self.logger, names, everything=True):
            return
        changes = []
        for row in rows + cut_short:  # one that had not started now never will; of another the next run sees the end
            settled = int(revoke(Path(row["folder"]), row["task"], "interrupted"))
            changes.append({"id": row["id"], "state": "CANCELLED", "settled": settled, "detail": "interrupted"})
        self.journal.change(changes)

    def shutdown(self) -> None:
        """End the polling, close what ended unasked for, and give the journal back."""
        if self.closed.is_set():
            return
        self.gate.close()
        super().shutdown()
        unasked = list(self.reattacher.known.values())
        self.watch.asked = 0.0
        outcomes = self.watch.poll(unasked) if unasked else {}
        ended = {number: outcome for number, outcome in outcomes.items() if outcome.ended}
        self.journal.change([one.change(number) | {"settled": 1} for number, one in ended.items()])
        for rule, cells, busy, work in self.journal.overhead(self.began):
            share = f"{busy:.1f} minutes of tasks, {1 - work / busy:.0%} of them start-up"
            self.logger.info(f"{rule}: {cells} jobs, {share} (see --submitit-pack)")
        self.closed.set()
        self.journal.close()


def _row(info: SubmittedJobInfo) -> dict[str, Any]:
    assert info.aux is not None
    return cast(dict[str, Any], info.aux["cell"])
