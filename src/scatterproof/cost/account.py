"""The account of a study: its ledger with energy and money, and what could not be had; rule and command ask it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scatterproof.config.cost import CostConfig
from scatterproof.cost.allocations import allocations, read_tasks
from scatterproof.cost.energy import price_warnings, reckon
from scatterproof.cost.kept import NAME, merge, read_kept, write_kept
from scatterproof.cost.ledger import build_ledger
from scatterproof.cost.records import read_records
from scatterproof.cost.sacct import Row, SacctError, read_sacct
from snakemake_executor_plugin_submitit.job_ids import by_cluster, submission_of

JOURNAL = Path(".submitit/journal.sqlite")
PATIENCE_S = 2.0


@dataclass(frozen=True)
class Account:
    """costs: one row an attempt, by the columns of `cost.csv`; notes: one line for each thing that could not be had."""

    costs: list[Row]
    notes: list[str]


def account(results: Path, journal: Path, assumed: CostConfig, keep: bool = False, settle_s: float = 0.0) -> Account:
    """Every attempt of the study whose folder is `results`, over any number of controllers.

    With `keep`, what sacct says is kept beside the records; else nothing is written. sacct lags behind SLURM: it is
    asked again for up to `settle_s` while it calls jobs live that have ended.
    Raises: UserError naming the file and row that cannot be read.
    """
    notes: list[str] = []
    tasks: list[Row] = []
    if journal.exists():
        tasks = read_tasks(journal, results)
    else:
        notes.append(f"{journal}: no journal, so no attempts but those that the jobs themselves recorded")
    records = read_records(results / "records")
    accounted = _accounted(tasks, results / "records" / NAME, keep, settle_s, notes)
    costs = reckon(build_ledger(records, allocations(tasks, accounted)), assumed)
    return Account(costs, notes + price_warnings(costs, assumed))


def _accounted(tasks: Sequence[Row], path: Path, keep: bool, settle_s: float, notes: list[str]) -> list[Row]:
    """What sacct says now and has said before of the tasks that SLURM was given."""
    kept = read_kept(path)
    on_slurm = [task for task in tasks if task["cluster"] == "slurm" and task["job_id"]]
    names = {task["name"] for task in on_slurm}
    strangers = sum(row["name"] not in names for row in kept)
    if strangers:
        notes.append(f"{path}: {strangers} attempts are of jobs that the journal does not know, and are left out")
    attempts = kept
    if on_slurm:
        said, silent = _ask(on_slurm, names, settle_s)
        from_before = f"{len(kept)} attempts are known from before" if kept else "the jobs' own clocks stand in"
        notes += [f"{error}; {from_before}" for error in silent]
        attempts = merge(kept, said) if said else kept
    if keep and attempts != kept:
        write_kept(path, attempts)
    return attempts


def _ask(tasks: Sequence[Row], names: set[str], settle_s: float) -> tuple[list[Row], list[SacctError]]:
    """What sacct says of tasks, each cluster by itself, and the errors of those that do not answer."""
    there = by_cluster(submission_of(str(task["job_id"])) for task in tasks)
    since = min((task["submitted"] for task in tasks if task["submitted"] is not None), default=0.0)
    deadline = time.monotonic() + settle_s
    while True:
        said: list[Row] = []
        silent: list[SacctError] = []
        for cluster, numbers in there.items():
            try:
                said += [row for row in read_sacct(numbers, since, cluster) if row["name"] in names]
            except SacctError as error:
                silent.append(error)
        if silent or time.monotonic() + PATIENCE_S > deadline:
            return said, silent
        if not any(row["source"] == "measured" for row in allocations(tasks, said)):
            return said, silent
        time.sleep(PATIENCE_S)
