"""The jobs' own records (running/cost_record.py), read back: one row an attempt that got as far as its rule's body."""

import json
import os
import platform
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]

from scatterproof.cost.sacct import Row
from scatterproof.errors import UserError
from scatterproof.running.cost_record import VERSION

_Kinds = dict[str, type | tuple[type, ...]]
_ALWAYS: _Kinds = {
    **dict.fromkeys(("stage", "rule", "job", "node", "started", "device"), str),
    **dict.fromkeys(("attempt", "pid", "gpus"), int),
    "process_started": (int, float),
}
_ENDED: _Kinds = dict.fromkeys(
    ("elapsed_s", "useful_s", "startup_s", "cpu_s", "mem_mb", "device_minutes"), (int, float)
)
# None: unknown, or does not apply. attacks: minutes by name, None until they are known.
_OPTIONAL: _Kinds = {
    **dict.fromkeys(("job_id", "job_name", "partition"), (str, type(None))),
    "restart": (int, type(None)),
    **dict.fromkeys(("wildcards", "attacks"), dict),
    **dict.fromkeys(("gpu_utilisation", "gpu_energy_j", "gpu_measured_s"), (int, float, type(None))),
}
_SAME_PROCESS_S = 60.0  # the clock may be set between two readings of a process's start


class RecordError(UserError):
    """A cost record that cannot be read; names the file and what is wrong."""


def read_records(folder: Path) -> list[Row]:
    """Every record under a folder, sorted by stage, rule, job and attempt; nothing is written.

    A RUNNING record becomes LOST if its process is gone from this node, or if a later attempt of the job exists. On
    another node the process cannot be looked up, so the last attempt stays RUNNING there. Keys that a record lacks
    are None. Raises: RecordError naming the file that is corrupt.
    """
    records = [_read_record(path) for path in _paths(folder)]
    last: dict[tuple[str, str], int] = {}
    for record in records:
        job = record["rule"], record["job"]
        last[job] = max(record["attempt"], last.get(job, 0))
    for record in records:
        if record["state"] == "RUNNING" and (
            record["attempt"] < last[record["rule"], record["job"]] or not _alive(record)
        ):
            record["state"] = "LOST"
    return sorted(records, key=lambda record: [record[key] for key in ("stage", "rule", "job", "attempt")])


def _paths(folder: Path) -> Iterator[str]:
    """`<rule>/<job>.<attempt>.json`; os.scandir, for there may be ten thousand."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as rules:
        for rule in rules:
            if rule.is_dir():
                with os.scandir(rule) as files:
                    yield from (one.path for one in files if one.name.endswith(".json") and one.name[0] != ".")


def _read_record(path: str) -> Row:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - ten thousand Path objects take their time
            record = json.loads(file.read(), parse_constant=_no_number)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a cost record: {error}") from None
    if not isinstance(record, dict):
        raise RecordError(f"{path}: not a cost record: expected an object, got {type(record).__name__}")
    if record.get("version") != VERSION:
        raise RecordError(f"{path}: version {record.get('version')!r}, this program reads version {VERSION}")
    if record.get("state") not in ("RUNNING", "COMPLETED", "FAILED"):
        raise RecordError(f"{path}: state {record.get('state')!r}, expected RUNNING, COMPLETED or FAILED")
    expected = _ALWAYS if record["state"] == "RUNNING" else _ALWAYS | _ENDED
    for key, kind in expected.items():
        if isinstance(record.get(key), bool) or not isinstance(record.get(key), kind):
            raise RecordError(f"{path}: key '{key}' is missing or of the wrong type: {record.get(key)!r}")
    for key, kind in _OPTIONAL.items():
        if key in record and not isinstance(record[key], kind):
            raise RecordError(f"{path}: key '{key}' is of the wrong type: {record[key]!r}")
    minutes = (record.get("attacks") or {}).values()
    if not all(one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in minutes):
        raise RecordError(f"{path}: key 'attacks' has minutes that are no numbers: {record['attacks']!r}")
    try:
        record["began"] = datetime.fromisoformat(record["started"]).timestamp()
    except ValueError:
        raise RecordError(f"{path}: key 'started' is no time: {record['started']!r}") from None
    return dict.fromkeys((*_ENDED, *_OPTIONAL)) | record


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _alive(record: Row) -> bool:
    """Whether the process of a record runs; true on another node, where that cannot be known."""
    if record["node"] != platform.node():
        return True
    try:
        started: Any = psutil.Process(record["pid"]).create_time()
        return bool(abs(started - record["process_started"]) < _SAME_PROCESS_S)
    except psutil.Error:
        return False
