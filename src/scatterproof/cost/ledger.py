"""The ledger: every attempt of every job with its cost, one row each.

What is not known stays empty (None). CPU-minutes and GPU-minutes are never added together, and what was allocated and
what was used are different columns.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scatterproof.analysis.columns import COLUMNS, ENERGY
from scatterproof.cost.join import join
from scatterproof.cost.sacct import Row
from scatterproof.cost.stages import NONE, RULES, STAGES, attack_of, stage_of, victim_of
from scatterproof.cost.states import waste_kind

if TYPE_CHECKING:
    import pandas as pd


OF_ATTEMPT = [column for column in COLUMNS["cost"] if column not in ENERGY]  # what it cost comes after


def build_ledger(records: Iterable[Row], held: Sequence[Row] = ()) -> list[Row]:
    """One row an attempt, OF_ATTEMPT as keys, whatever the order of what it is made of.

    records: of read_records; held: what a cluster allocated, of `allocations`.
    """
    rows = [_of_record(lent[0]) if row is None else _of_allocation(row, lent) for row, lent in join(held, records)]
    order = {stage: number for number, stage in enumerate(STAGES)}
    rows.sort(key=lambda row: (order.get(row["stage"], len(order)), row["stage"], row["rule"], row["job"], row["_at"]))
    attempts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        del row["_at"]
        attempts[row["rule"], row["job"]] += 1
        row["attempt"] = attempts[row["rule"], row["job"]]
        row["attempt_name"] = f"{row['rule']}/{row['job']}.{row['attempt']}"
    return [{column: row[column] for column in OF_ATTEMPT} for row in rows]


def _of_record(record: Row) -> Row:
    """An attempt that no allocation is known of: it ran here, or in a SLURM job that was not the executor's."""
    elapsed, gpus = record["elapsed_s"], float(record["gpus"])
    row = {
        **{key: record[key] for key in ("rule", "job", "state", "node", "elapsed_s")},
        "partition": record["partition"] or "local",
        "gpus": gpus,
        "submit": record["started"],
        "queue_s": None,
        "allocated_gpu_minutes": 0.0 if not gpus else None if elapsed is None else gpus * elapsed / 60,
        "source": "measured",
        "jobs": record["job"],
        "allocated_mem_mb": None,
        "waste": waste_kind(record["state"]),
        "job_id": record["job_id"],
        "job_name": record["job_name"],
        "_at": (record["began"], record["attempt"]),
    }
    return row | _used([record], row)


def _of_allocation(held: Row, records: Sequence[Row]) -> Row:
    elapsed, jobs = held["elapsed_s"], held["jobs"]
    ran = held["source"] == "measured" and records  # whatever state the controller had seen last
    gpus = held["asked_gpus"] if ran and not held["gpus"] else held["gpus"]
    row = {
        **{key: held[key] for key in ("rule", "state", "partition", "node", "queue_s", "elapsed_s", "source")},
        "gpus": gpus,
        "job": jobs[0] if len(jobs) == 1 else f"{jobs[0]}+{len(jobs) - 1}",
        "submit": _iso(held["submit"]),
        "allocated_gpu_minutes": 0.0 if not gpus else None if elapsed is None else gpus * elapsed / 60,
        "jobs": ";".join(jobs),
        "allocated_mem_mb": held["allocated_mem_mb"],
        "waste": waste_kind(held["state"], held["end"]),
        "job_id": held["job_id"],
        "job_name": held["name"],
        "_at": (held["start"] or held["submit"] or float("inf"), 0),
    }
    return row | _used(records, row, held["cpu_s"])


def _used(records: Sequence[Row], row: Row, cpu_s: float | None = None) -> Row:
    """What the jobs of an attempt say that they used; `useful_minutes` are of those that ended well.

    Of a wasted attempt nothing but such jobs was useful: one task may run many, and fail in the last.
    """
    devices = sorted({record["device"] for record in records})
    device_minutes = _sum(record["device_minutes"] for record in records)
    good = [record["device_minutes"] for record in records if record["state"] == "COMPLETED"]
    known = _all([record["cpu_s"] for record in records]) if records else None
    cpu_s = known if known is not None else cpu_s
    energy = _sum(record["gpu_energy_j"] for record in records)
    measured = _sum(record["gpu_measured_s"] for record in records)
    return {
        "stage": next((record["stage"] for record in records), stage_of(row["rule"])),
        "cpu_minutes": None if cpu_s is None else cpu_s / 60,
        "mem_mb": max((record["mem_mb"] for record in records if record["mem_mb"] is not None), default=None),
        "wasted": bool(row["waste"]),
        "device": "; ".join(devices) or None,
        "device_minutes": device_minutes,
        "gpu_minutes": device_minutes if devices and all(name.startswith("cuda") for name in devices) else None,
        "useful_minutes": _sum(good) if good else 0.0 if row["waste"] else None,
        "victim": _victim(records, row),
        "attack": _attack(records, row),
        "gpu_utilisation": _mean_utilisation(records),
        "gpu_energy_kwh": None if energy is None else energy / 3.6e6,
        "gpu_measured_minutes": None if measured is None else measured / 60,
    }


def _victim(records: Sequence[Row], row: Row) -> str:
    """The victim; of a task with jobs on several, each with its share of the minutes."""
    minutes: dict[str, float | None] = {}
    for record in records:
        if record["wildcards"] is not None:
            name = record["wildcards"].get("victim", NONE)
            minutes[name] = _add(minutes.get(name, 0.0), record["device_minutes"])
    if not minutes or len(records) < row["jobs"].count(";") + 1:
        minutes = dict.fromkeys(minutes | {victim_of(row["rule"], job): None for job in row["jobs"].split(";")})
    return shares_text(minutes)


def _attack(records: Sequence[Row], row: Row) -> str:
    minutes: dict[str, float | None] = {}
    for record in records:
        for name, spent in (record["attacks"] or {}).items():
            minutes[name] = _add(minutes.get(name, 0.0), spent)
    if not minutes:
        told = any(record["attacks"] is not None for record in records)
        return NONE if told and not (row["rule"] in RULES and RULES[row["rule"]].attacks) else attack_of(row["rule"])
    return shares_text(minutes)


def shares_text(minutes: dict[str, float | None]) -> str:
    """`a`, `a=0.25;b=0.75`, or `a;b` where the minutes of some are not known."""
    names = sorted(minutes)
    known = [minutes[name] for name in names]
    total = _all(known)
    if len(names) == 1 or not total:
        return ";".join(names)
    return ";".join(f"{name}={(minutes[name] or 0.0) / total:.6g}" for name in names)


def shares(text: str) -> dict[str, float]:
    """The inverse of shares_text; parts that are not known stay one, `a+b`."""
    parts = [part.rpartition("=") for part in text.split(";")]
    if len(parts) == 1 or not all(equals for _, equals, _ in parts):
        return {text.replace(";", "+"): 1.0}
    return {name: float(share) for name, _, share in parts}


def _mean_utilisation(records: Sequence[Row]) -> float | None:
    """Over time; None where nothing was sampled."""
    sampled = [
        (record["gpu_utilisation"], record["useful_s"])
        for record in records
        if record["gpu_utilisation"] is not None and record["useful_s"]
    ]
    seconds = sum(weight for _, weight in sampled)
    return sum(value * weight for value, weight in sampled) / seconds if seconds else None


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _add(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum of what is known, the same in any order; None if nothing is."""
    known = sorted(value for value in values if value is not None)
    return sum(known) if known else None


def _all(values: Sequence[float | None]) -> float | None:
    """The sum, None if any part is unknown."""
    known = [value for value in values if value is not None]
    return sum(sorted(known)) if len(known) == len(values) else None


def retraining_minutes(victims: "pd.DataFrame") -> float:
    """Device-minutes of training one victim: the mean over the seeds of `tables/victim.csv`; NaN if none was trained.

    Controls are left out; a victim stands once, however many rows it has.
    """
    rows: list[dict[Any, Any]] = victims.to_dict("records")
    return mean_training(rows)


def mean_training(victims: Iterable[dict[Any, Any]]) -> float:
    """The same of the table's rows, as numbers or as text."""
    first: dict[str, float] = {}
    for row in victims:
        if row["victim"] == "victim" and row["device_minutes"] not in ("", None):
            minutes = float(row["device_minutes"])
            if minutes == minutes:
                first.setdefault(str(row["victim_seed"]), minutes)
    return sum(first.values()) / len(first) if first else float("nan")
