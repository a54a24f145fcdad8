"""Made-up histories of jobs on a cluster: a real journal, sacct's lines, and the jobs' own records."""

import json
from pathlib import Path
from typing import Any

from report_tables import record
from snakemake_executor_plugin_submitit.job_ids import tasks_of
from snakemake_executor_plugin_submitit.journal import Journal

GPU = "billing=1,cpu=2,gres/gpu=1,mem=1500M,node=1"
RESULTS = Path("/project/results/tiny")


def line(
    job: str, name: str, state: str = "COMPLETED", elapsed: int = 60, tres: str = GPU, start: int = 1010, **more: str
) -> str:
    """One line of sacct."""
    end = more.get("end", str(start + elapsed))
    return f"{job}|{state}|gpu|gpu1|{tres}|1000|{start}|{end}|{elapsed}|00:30.500|{name}\n"


def submit(
    journal: Path,
    name: str,
    job_id: str,
    tasks: list[list[str]],
    rule: str = "train_victim",
    results: Path = RESULTS,
    **request: Any,
) -> list[int]:
    """Journal a submission: the names of the cells of each task; the cells' ids."""
    book = Journal(journal)
    asked = {"gpus": 1, "minutes": 10, "nodes": 1, "slurm_partition": "gpu"} | request
    cluster = asked.pop("cluster", "slurm")
    submission = {"name": name, "rule": rule, "attempt": 1, "cluster": cluster, "request": json.dumps(asked)}
    cells: list[dict[str, Any]] = [
        {"task": task, "cell": cell, "key": f"{rule}/{job}", "signature": "", "rule": rule, "name": job}
        | {"outputs": [str(results / f"{rule}-{job}")], "attempt": 1, "log": ""}
        for task, jobs in enumerate(tasks)
        for cell, job in enumerate(jobs)
    ]
    ids = book.intend(submission | {"folder": f"/jobs/{name}"}, cells)
    book.submitted(name, job_id, dict(enumerate(tasks_of(job_id, len(tasks), arrays=True))))
    book.close()
    return ids


def change(journal: Path, *changes: dict[str, Any]) -> None:
    book = Journal(journal)
    book.change(list(changes))
    book.close()


def inside(job_id: str, name: str, job: str, began: float, useful: float = 30.0, **more: Any) -> dict[str, Any]:
    """A record that a job wrote inside a SLURM job, on a GPU."""
    slurm = {"job_id": job_id, "job_name": name, "restart": 0, "partition": "gpu", "node": "gpu1"}
    times = {"process_started": began, "began": began + 1, "gpus": 1, "device": "cuda: NVIDIA H200"}
    stage, rule = more.pop("stage", "victim"), more.pop("rule", "train_victim")
    return record(stage, rule, job, useful, **(slurm | times | {"wildcards": {"victim": job.split(".")[0]}} | more))
