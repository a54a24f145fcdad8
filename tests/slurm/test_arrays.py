"""Arrays: larger than SLURM allows, of different rules at once, with one cell that fails, and a thousand tasks."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sweeps import Sweep, sacct, wait_for

from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.requests import request_of
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.status import Watch
from snakemake_executor_plugin_submitit.submitter import Ready, Submitter

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

TWO_RULES = """
rule all:
    input: [f"{rule}/{i}.txt" for rule in ("small", "large") for i in range(25)]
    localrule: True
rule small:
    output: "small/{i}.txt"
    resources: runtime=5, mem_mb=300, gpu=1
    shell: "test {wildcards.i} != 13 -o -e mended; echo {wildcards.i} $SLURM_ARRAY_TASK_COUNT > {output}"
rule large:
    output: "large/{i}.txt"
    threads: 3
    resources: runtime=10, mem_mb=400, gpu=0, slurm_partition="cpu"
    shell: "echo {wildcards.i} $SLURM_ARRAY_TASK_COUNT > {output}"
"""


@pytest.fixture(scope="module")
def fifty(tmp_path_factory: pytest.TempPathFactory, cluster: Callable[..., None]) -> Iterator[Sweep]:
    """50 cells of two rules where an array may have 8, of which one fails for good; and the run after it was mended."""
    cluster(MAX_ARRAY="8")
    sweep = Sweep(tmp_path_factory.mktemp("fifty"), TWO_RULES)
    sweep.first = sweep.run(timeout=300)  # type: ignore[attr-defined]
    sweep.first_log = sweep.log  # type: ignore[attr-defined]
    sweep.outputs = sorted(str(path.relative_to(sweep.folder)) for path in sweep.folder.glob("*/*.txt"))  # type: ignore[attr-defined]
    (sweep.folder / "mended").touch()
    sweep.second = sweep.run(timeout=120)  # type: ignore[attr-defined]
    cluster()
    yield sweep


def test_one_failure_takes_no_other_with_it_and_is_named(fifty: Sweep) -> None:
    assert fifty.first == 1  # type: ignore[attr-defined]
    assert len(fifty.outputs) == 49  # type: ignore[attr-defined]
    assert "small/13.txt" not in fifty.outputs  # type: ignore[attr-defined]
    log = fifty.first_log  # type: ignore[attr-defined]
    assert "small 13: FAILED (exit status 1), job " in log
    assert " on node gpu" in log
    assert ".submitit/logs/small/13.log" in log


def test_the_next_run_does_the_failed_one_only(fifty: Sweep) -> None:
    assert fifty.second == 0  # type: ignore[attr-defined]
    states = [(name.rpartition("-")[0], state) for _, name, state, _ in fifty.attempts()]
    assert sorted(set(states)) == [("large", "COMPLETED"), ("small", "COMPLETED"), ("small", "FAILED")]
    assert states.count(("small", "COMPLETED")) == 25
    assert states.count(("large", "COMPLETED")) == 25
    assert states.count(("small", "FAILED")) == 1


def test_no_array_is_larger_than_slurm_allows(fifty: Sweep) -> None:
    counts = [int(path.read_text().split()[1]) for path in fifty.folder.glob("*/*.txt")]
    assert max(counts) == 8
    assert [int(path.read_text().split()[0]) for path in fifty.folder.glob("*/*.txt")] == [
        int(path.stem) for path in fifty.folder.glob("*/*.txt")
    ]


def test_each_rule_has_its_own_resources(fifty: Sweep) -> None:
    for _, name, _, tres in fifty.attempts():
        assert ("gres/gpu=1" in tres) == name.startswith("small")
        assert ("cpu=3" in tres) == name.startswith("large")
        assert ("mem=400M" in tres) == name.startswith("large")


class Told:
    """Stands for Snakemake's job where only the submission is looked at."""

    def register(self) -> None:
        """Snakemake would mark the outputs as incomplete."""


def test_a_thousand_tasks_have_each_their_own_state(tmp_path: Path) -> None:
    settings = ExecutorSettings()
    journal = Journal(tmp_path / "journal.sqlite")
    submitter = Submitter(settings, journal, tmp_path, print, array_limit=300)
    request = request_of("cell", 1, {"mem_mb": 100, "runtime": 5, "slurm_partition": "cpu"}, settings)
    ready = []
    for number in range(1000):
        cell = {"key": str(number), "signature": "", "rule": "cell", "name": str(number), "outputs": [], "attempt": 1}
        log = str(tmp_path / f"logs/{number}.log")
        argv = ["false"] if number % 7 == 3 else ["echo", str(number)]
        ready.append(Ready(Told(), cell | {"log": log}, {"argv": argv, "env": {}}, request))
    started = time.monotonic()
    rows = [row for chunk in submitter.chunks(ready) for row in submitter.submit(chunk)]
    assert time.monotonic() - started < 60
    watch, found = Watch("slurm", 2, 60), {}
    while len(found) < 1000 and time.monotonic() - started < 500:
        time.sleep(1)
        outcomes = watch.poll([row for row in rows if row["id"] not in found])
        found |= {number: outcome for number, outcome in outcomes.items() if outcome.ended}
    assert len(found) == 1000
    for row in rows:
        fails = int(row["name"]) % 7 == 3
        assert found[row["id"]].state == ("FAILED" if fails else "COMPLETED")
        expected = "" if fails else f"{row['name']}\n"
        assert (tmp_path / f"logs/{row['name']}.log").read_text().split("\n", 1)[1] == expected
    ids = ",".join({row["job_id"].split("_")[0] for row in rows})
    states: dict[str, str] = {}

    def recorded() -> bool:
        states.update(line.split("|") for line in sacct("-j", ids, "-o", "JobID,State"))
        return states.keys() >= {row["job_id"] for row in rows}

    wait_for(recorded, 120, "record of every task")  # slurmdbd gets them long after squeue knows
    for row in rows:
        assert states[row["job_id"]] == found[row["id"]].state
    journal.close()
