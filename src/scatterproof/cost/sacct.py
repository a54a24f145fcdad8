"""What SLURM's accounting says of jobs: every attempt, requeued ones too, with the GPUs held.

Neither torch nor pandas is imported in this folder: `scatterproof cost` answers at once.
"""

import re
import subprocess
from collections.abc import Iterable
from typing import Any

from scatterproof.errors import UserError
from snakemake_executor_plugin_submitit import sacct_lines
from snakemake_executor_plugin_submitit.job_ids import join
from snakemake_executor_plugin_submitit.job_states import canonical
from snakemake_executor_plugin_submitit.slurm import environment, on

FIELDS = ["JobID", "State", "Partition", "NodeList", "AllocTRES", "Submit", "Start", "End", "ElapsedRaw", "TotalCPU"]
FIELDS += ["JobName"]  # last: it may hold the separator
TEXTS = ["job_id", "name", "state", "partition", "node"]
NUMBERS = ["gpus", "cpus", "mem_mb", "submit", "start", "end", "elapsed_s", "cpu_s"]
COLUMNS = [*TEXTS, *NUMBERS]
CHUNK = 500  # ids in one call: a command line has its limits

Row = dict[str, Any]  # None: unknown


class SacctError(UserError):
    """Accounting that does not answer; says what it said."""


def read_sacct(jobs: Iterable[str], since: float, cluster: str = "") -> list[Row]:
    """Every attempt of jobs (numbers without array indices) submitted since a Unix time; see parse_sacct.

    cluster: where the jobs are; empty: the default one. Raises: SacctError where there is no sacct, or it fails.
    """
    where = f"sacct -M {cluster}" if cluster else "sacct"
    ids = sorted(set(jobs))
    texts = []
    for first in range(0, len(ids), CHUNK):
        command = sacct_lines.command(FIELDS, since, *on(cluster), "-j", ",".join(ids[first : first + CHUNK]))
        try:
            asked = environment(own_call=True) | {"SLURM_TIME_FORMAT": "%s"}
            done = subprocess.run(command, capture_output=True, env=asked, timeout=120)
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise SacctError(f"{where} cannot be asked: {error}") from None
        if done.returncode:
            raise SacctError(f"{where}: {done.stderr.decode(errors='replace').strip()}")
        texts.append(done.stdout.decode(errors="replace"))
    return parse_sacct("".join(texts), cluster)


def parse_sacct(text: str, cluster: str = "") -> list[Row]:
    """One row an attempt, in sacct's order, with COLUMNS as keys. Times are Unix times, None where unknown.

    cluster: that was asked by its name; the ids then say so, as the journal's do.
    gpus is None where SLURM does not account for them (AccountingStorageTRES has no gres/gpu), or nothing was held;
    cpu_s is None where it is 0: SLURM gathers it by step, or not at all.
    """
    return [_row(record, cluster) for record in sacct_lines.records(text, FIELDS)]


def _row(values: dict[str, str], cluster: str) -> Row:
    held = sacct_lines.held(values["AllocTRES"])
    return {
        "job_id": join(values["JobID"], cluster),
        "name": values["JobName"],
        "state": canonical(values["State"]),
        "partition": values["Partition"],
        "node": values["NodeList"],
        "gpus": _number(held.get("gres/gpu", "")),
        "cpus": _number(held.get("cpu", "")),
        "mem_mb": _megabytes(held.get("mem", "")),
        "submit": _number(values["Submit"]),
        "start": _number(values["Start"]),
        "end": _number(values["End"]),
        "elapsed_s": _number(values["ElapsedRaw"]),
        "cpu_s": _seconds(values["TotalCPU"]) or None,
    }


def _number(text: str) -> float | None:
    return float(text) if text.replace(".", "", 1).isdecimal() else None


def _megabytes(text: str) -> float | None:
    """MiB of `4000M`, `16G`, `1.50T`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])", text)
    return float(match[1]) * 1024.0 ** ("KMGT".index(match[2]) - 1) if match else None


def _seconds(text: str) -> float | None:
    """Seconds of `1-02:03:04`, `02:03:04`, `03:04.567`."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", text)
    if not match:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds
