"""Every attempt once: what the cluster allocated, with what the jobs themselves wrote down.

A record written inside a SLURM job names it, so that the join is exact: it lends its device and minutes to that job's
attempt and makes none of its own. What no allocation owns ran here, and is an attempt itself.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from scatterproof.cost.sacct import Row
from scatterproof.cost.states import is_live
from snakemake_executor_plugin_submitit.job_ids import number_of

SLACK_S = 5.0  # clocks of nodes differ


def join(held: Sequence[Row], records: Iterable[Row]) -> list[tuple[Row | None, list[Row]]]:
    """Pairs of an allocation (of `allocations`) and its records; None where there was no allocation.

    Off SLURM a task's process is all that was held: its records are the attempts, and the journal's row stands only
    for a cell that left none.
    """
    owner = _Owners(held)
    lent: dict[int, list[Row]] = defaultdict(list)
    apart: dict[tuple[int, int, bool], list[Row]] = defaultdict(list)
    alone: list[Row] = []
    for record, last in owner.with_last_restart(records):
        position = owner.of(record)
        if position is None:
            alone.append(record)
        elif held[position]["cluster"] != "slurm":
            lent[position].append(record)
            alone.append(record)
        elif record["restart"] is not None and owner.is_another_start(position, record, last):
            apart[position, record["restart"], owner.is_followed(record, last)].append(record)
        else:
            lent[position].append(record)
    pairs: list[tuple[Row | None, list[Row]]] = [
        (row, lent[position]) for position, row in enumerate(held) if row["cluster"] == "slurm" or position not in lent
    ]
    pairs += [(_start(held[position], group, requeued), group) for (position, _, requeued), group in apart.items()]
    return pairs + [(None, [record]) for record in alone]


class _Owners:
    """Finds the allocation that a record was written in."""

    def __init__(self, held: Sequence[Row]) -> None:
        self.held = held
        self.by_id: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.by_job: dict[tuple[str, str], list[int]] = defaultdict(list)
        for position, row in enumerate(held):
            if row["cluster"] == "slurm":
                # a record does not know whether its submission named clusters; names are unique on all of them
                self.by_id[number_of(row["job_id"] or ""), row["name"]].append(position)
            for job in row["jobs"]:
                self.by_job[row["rule"], job].append(position)

    def with_last_restart(self, records: Iterable[Row]) -> list[tuple[Row, int]]:
        """Records in order of time, each with the highest count of restarts that any record of its SLURM job has."""
        ordered = sorted(records, key=lambda record: (record["began"], record["rule"], record["job"]))
        last: dict[tuple[str, str], int] = {}
        for one in ordered:
            if one["job_id"]:
                key = one["job_id"], one["job_name"]
                last[key] = max(last.get(key, 0), one["restart"] or 0)
        return [(one, last.get((one["job_id"], one["job_name"]), 0)) for one in ordered]

    def of(self, record: Row) -> int | None:
        """The attempt's position: by SLURM's id and unique name, then time; without a name by rule, job and time."""
        if not record["job_name"]:
            jobs = self.by_job.get((record["rule"], record["job"]), [])
            return self._by_time([position for position in jobs if self._may_be(position, record["job_id"])], record)
        attempts = self.by_id.get((record["job_id"], record["job_name"]))
        if not attempts:
            return None
        by_time = self._by_time(attempts, record)
        if by_time is not None or len(attempts) == 1:
            return attempts[0] if by_time is None else by_time
        return attempts[min(record["restart"] or 0, len(attempts) - 1)]

    def is_another_start(self, position: int, record: Row, last: int) -> bool:
        """Whether a record is of a start that accounting says nothing of."""
        attempts = self.by_id[record["job_id"], record["job_name"]]
        if self.held[position]["source"] == "measured" and len(attempts) == 1:
            return self.is_followed(record, last)  # the journal's own row is of the last start
        return last >= len(attempts) and not self._holds(position, record)

    def is_followed(self, record: Row, last: int) -> bool:
        """Whether SLURM has started the record's job again since."""
        starts = [self.held[position]["start"] for position in self.by_id[record["job_id"], record["job_name"]]]
        later = any(start is not None and record["process_started"] < start - SLACK_S for start in starts)
        return bool(record["restart"] < last) or later

    def _may_be(self, position: int, job_id: str | None) -> bool:
        """Off SLURM the id is that of a process, `pid:created` in the journal as long as it has not ended."""
        row = self.held[position]
        if job_id:
            return row["cluster"] != "slurm" and str(row["job_id"]).partition(":")[0] == job_id
        return row["end"] is not None or is_live(row["state"])

    def _by_time(self, positions: list[int], record: Row) -> int | None:
        return next((position for position in reversed(positions) if self._holds(position, record)), None)

    def _holds(self, position: int, record: Row) -> bool:
        row, began = self.held[position], record["process_started"]
        start = row["start"] if row["start"] is not None else row["submit"]
        if start is None:
            return False
        end = float("inf") if row["end"] is None else row["end"]
        return bool(start - SLACK_S <= began <= end + SLACK_S)


def _start(row: Row, records: list[Row], requeued: bool) -> Row:
    """The attempt of a start that only its records tell of; one that SLURM started again had been requeued."""
    states = [record["state"] for record in records]
    ends = [record["process_started"] + record["elapsed_s"] for record in records if record["elapsed_s"] is not None]
    known = len(ends) == len(records)
    start = min(record["process_started"] for record in records)
    elapsed = max(ends) - start if known else None
    worst = next(state for state in ("RUNNING", "LOST", "FAILED", "COMPLETED") if state in states)
    return row | {
        "state": "REQUEUED" if requeued else worst,
        "node": records[0]["node"],
        "start": start,
        "end": max([start, *ends]) if known or requeued else None,  # at the earliest: elapsed_s tells if it is known
        "elapsed_s": elapsed,
        "queue_s": None,
        "gpus": row["asked_gpus"],
        "cpu_s": None,
        "source": "measured",
    }
