"""What is told about a job that failed."""

from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.job_ids import number_of
from snakemake_executor_plugin_submitit.shared_files import tail

LOG_LINES = 20


def explain(row: dict[str, Any]) -> tuple[str, list[str]]:
    """Rule, wildcards, SLURM's state and reason, job, node and the end of the log; and the log's path, if any."""
    where = f" on node {row['node']}" if row["node"] else ""
    text = f"{row['rule']} {row['name']}: {row['state']} ({row['reason']}), job {row['job_id']}{where}.\n"
    log = Path(row["log"])
    own = sorted(Path(row["folder"]).glob(f"{number_of(row['job_id'])}_*_log.out"))
    lines: list[str] = []
    for path in [log, *own]:
        lines = lines or tail(path).splitlines()[-LOG_LINES:]
    text += f"Its log is {log}\n" + "".join(f"    {line}\n" for line in lines)
    return text, [str(log)] if log.exists() else []
