"""The ledger: every attempt of every job with its cost, and the sums of it by stage.

What is not known stays empty (NaN); sums are over what is known, and empty where nothing is. CPU-minutes and
GPU-minutes are never added together. Imports no torch.
"""

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil  # type: ignore[import-untyped,unused-ignore]

from scatterproof.cost.measure import VERSION
from scatterproof.errors import UserError

STAGES = ["data", "victim", "blocks", "prune", "shuffle", "theory", "search", "plateau", "attacks", "report"]
COST_COLUMNS = [
    *("stage", "rule", "job", "attempt", "attempt_name", "state", "partition", "node", "gpus", "submit", "queue_s"),
    *("elapsed_s", "allocated_gpu_minutes", "cpu_minutes", "mem_mb", "wasted", "source"),
    *("device", "device_minutes", "gpu_minutes"),
]
SUMMARY_COLUMNS = [
    *("stage", "jobs", "attempts", "allocated_gpu_minutes", "wasted_gpu_minutes", "overhead_minutes", "queue_minutes"),
    *("over_retraining", "cpu_minutes", "device", "device_minutes", "gpu_minutes"),
]

_ALWAYS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("stage", "rule", "job", "node", "started", "device"), str),
    **dict.fromkeys(("attempt", "pid", "gpus"), int),
    "process_started": (int, float),
}
_ENDED: dict[str, type | tuple[type, ...]] = dict.fromkeys(
    ("elapsed_s", "useful_s", "startup_s", "cpu_s", "mem_mb", "device_minutes"), (int, float)
)
_SAME_PROCESS_S = 60.0  # the clock may be set between two readings of a process's start


class LedgerError(UserError):
    """A cost record that cannot be read; names the file and what is wrong."""


def read_records(folder: Path) -> pd.DataFrame:
    """Every record under a folder, one row an attempt, sorted by stage, rule, job and attempt; nothing is written.

    A RUNNING record becomes LOST if its process is gone from this node, or if a later attempt of the job exists. On
    another node the process cannot be looked up, so the last attempt stays RUNNING there.
    Raises: LedgerError naming the file that is corrupt.
    """
    paths = sorted(path for path in folder.glob("*/*.json") if not path.name.startswith("."))
    records = pd.DataFrame([_read_record(path) for path in paths], columns=["state", *_ALWAYS, *_ENDED])
    records = records.sort_values(["stage", "rule", "job", "attempt"], ignore_index=True)
    last = records.groupby(["rule", "job"])["attempt"].transform("max")
    running = records["state"] == "RUNNING"
    gone = [bool(r) and not _alive(*p) for r, p in zip(running, _processes(records), strict=True)]
    lost = running & ((records["attempt"] < last) | pd.Series(gone, index=records.index, dtype=bool))
    records["state"] = records["state"].where(~lost, "LOST")
    return records


def cost_table(records: pd.DataFrame) -> pd.DataFrame:
    """`tables/cost.csv`: one row an attempt, in minutes, seconds and MiB as the columns say.

    FAILED and LOST attempts are wasted. Local jobs do not queue for a scheduler, so their queue time is unknown.
    """
    elapsed = _numbers(records["elapsed_s"])
    gpus = _numbers(records["gpus"])
    device_minutes = _numbers(records["device_minutes"])
    table = records[["stage", "rule", "job", "attempt", "state", "node", "gpus", "device"]].assign(
        attempt_name=[
            f"{rule}/{job}.{attempt}"
            for rule, job, attempt in zip(records["rule"], records["job"], records["attempt"], strict=True)
        ],
        partition="local",
        submit=records["started"],
        queue_s=np.nan,
        elapsed_s=elapsed,
        allocated_gpu_minutes=(gpus * elapsed / 60).where(gpus > 0, 0.0),
        cpu_minutes=_numbers(records["cpu_s"]) / 60,
        mem_mb=_numbers(records["mem_mb"]),
        wasted=records["state"].isin(["FAILED", "LOST"]),
        source="measured",
        device_minutes=device_minutes,
        gpu_minutes=device_minutes.where(records["device"].astype(str).str.startswith("cuda")),
    )
    return table.sort_values(["stage", "rule", "job", "attempt"], ignore_index=True)[COST_COLUMNS]


def retraining_minutes(victims: pd.DataFrame) -> float:
    """Device-minutes of training one victim: the mean over the seeds of `tables/victim.csv`; NaN if none was trained.

    Controls are left out; a victim stands once, however many rows it has.
    """
    own = victims[victims["victim"] == "victim"]
    return float(_numbers(own.groupby("victim_seed")["device_minutes"].first()).mean())


def cost_summary(costs: pd.DataFrame, retraining: float) -> pd.DataFrame:
    """`tables/cost_summary.csv`: one row a stage in the order of the study, then `total`.

    `device_minutes` are the useful ones, of attempts that were not wasted; `overhead_minutes` is what such attempts
    took besides: start-up, imports. `over_retraining` is device_minutes over `retraining`, the device-minutes of
    training one victim (NaN: unknown).
    """
    present = list(dict.fromkeys(costs["stage"].astype(str)))
    order = [stage for stage in STAGES if stage in present] + sorted(set(present) - set(STAGES))
    rows = [_sums(stage, costs[costs["stage"] == stage], retraining) for stage in order]
    return pd.DataFrame([*rows, _sums("total", costs, retraining)], columns=SUMMARY_COLUMNS)


def _sums(stage: str, costs: pd.DataFrame, retraining: float) -> dict[str, Any]:
    wasted = costs["wasted"].astype(bool)
    used = costs[~wasted]
    device_minutes = _known_sum(used["device_minutes"])
    overhead = _numbers(used["elapsed_s"]) / 60 - _numbers(used["device_minutes"])
    return {
        "stage": stage,
        "jobs": len(costs[["rule", "job"]].drop_duplicates()),
        "attempts": len(costs),
        "allocated_gpu_minutes": _known_sum(costs["allocated_gpu_minutes"]),
        "wasted_gpu_minutes": _known_sum(costs["allocated_gpu_minutes"][wasted]) if wasted.any() else 0.0,
        "overhead_minutes": _known_sum(overhead.clip(lower=0)),
        "queue_minutes": _known_sum(costs["queue_s"]) / 60,
        "over_retraining": device_minutes / retraining if retraining > 0 else np.nan,
        "cpu_minutes": _known_sum(costs["cpu_minutes"]),
        "device": "; ".join(sorted(set(costs["device"].astype(str)))),
        "device_minutes": device_minutes,
        "gpu_minutes": _known_sum(used["gpu_minutes"]),
    }


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LedgerError(f"{path}: not a cost record: {error}") from None
    if not isinstance(record, dict):
        raise LedgerError(f"{path}: not a cost record: expected an object, got {type(record).__name__}")
    if record.get("version") != VERSION:
        raise LedgerError(f"{path}: version {record.get('version')!r}, this program reads version {VERSION}")
    if record.get("state") not in ("RUNNING", "COMPLETED", "FAILED"):
        raise LedgerError(f"{path}: state {record.get('state')!r}, expected RUNNING, COMPLETED or FAILED")
    expected = _ALWAYS if record["state"] == "RUNNING" else _ALWAYS | _ENDED
    for key, kind in expected.items():
        if isinstance(record.get(key), bool) or not isinstance(record.get(key), kind):
            raise LedgerError(f"{path}: key '{key}' is missing or of the wrong type: {record.get(key)!r}")
    return record


def _processes(records: pd.DataFrame) -> list[tuple[str, int, float]]:
    columns = records["node"].astype(str), records["pid"].astype(int), records["process_started"].astype(float)
    return list(zip(*columns, strict=True))


def _alive(node: str, pid: int, started: float) -> bool:
    """Whether a process runs; true on another node, where that cannot be known."""
    if node != platform.node():
        return True
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < _SAME_PROCESS_S)
    except psutil.Error:
        return False


def _numbers(column: "pd.Series[Any]") -> "pd.Series[float]":
    return pd.to_numeric(column).astype(float)


def _known_sum(column: "pd.Series[Any]") -> float:
    """The sum of what is known, exact and so the same in any order; NaN if nothing is."""
    known = _numbers(column).dropna()
    return float(np.sum(np.sort(known.to_numpy()))) if len(known) else float("nan")
