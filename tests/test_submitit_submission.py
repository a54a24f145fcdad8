"""What a submission asks sbatch for."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.requests import request_of
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.submitter import Ready, Submitter


@pytest.fixture(autouse=True)
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for SLURM that takes every job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("squeue", "srun", "scancel", "sbatch"):
        (folder / name).write_text("#!/bin/bash\necho 12\n" if name == "sbatch" else "#!/bin/bash\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path / "journal.sqlite")
    yield one
    one.close()


def submit(journal: Journal, settings: ExecutorSettings | None = None, cells: int = 1, **resources: Any) -> None:
    """A rule's cells, each a task."""
    settings = settings or ExecutorSettings()
    request = request_of("cell", 1, {"mem_mb": 300, "runtime": 5} | resources, settings)
    job = SimpleNamespace(register=lambda: None)
    cell = {"key": "k", "signature": "s", "rule": "cell", "name": "n", "outputs": [], "attempt": 1, "log": "l"}
    ready = [Ready(job, cell, {"argv": ["true"], "env": {}}, request) for _ in range(cells)]
    Submitter(settings, journal, journal.path.parent, print).submit([[each] for each in ready])


def options(journal: Journal) -> dict[str, str]:
    """The options in the script of the only submission."""
    (script,) = journal.path.parent.glob("jobs/*/sbatch.sh")
    lines = [line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}


def test_a_script_asks_for_nothing_that_no_one_asked_for(journal: Journal) -> None:
    """What a site checks (account, partition, key, quality of service, licences) is left to it."""
    submit(journal, cells=2)
    own = {"job-name", "open-mode", "array", "signal", "requeue", "output"}
    assert options(journal).keys() == own | {"nodes", "ntasks-per-node", "cpus-per-task", "mem", "time"}


@pytest.mark.parametrize("where", ["resource", "setting"])
def test_a_key_that_is_asked_for_is_handed_on(journal: Journal, where: str) -> None:
    if where == "resource":
        submit(journal, slurm_extra="--wckey=mine")
    else:
        submit(journal, ExecutorSettings(extra="--wckey mine"))
    assert options(journal)["wckey"] == "mine"
