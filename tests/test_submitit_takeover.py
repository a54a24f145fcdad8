"""The same command after the controller was killed: it goes on without a flag where the journal knows what is ours."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.takeover import drop_dead_locks, note_locks, unfinished
from test_submitit_local import SNAKEMAKE, wait_for

CELLS = """
rule all:
    input: expand("out/{i}.txt", i=[1, 2])
rule cell:
    output: "out/{i}.txt"
    shell: "echo ran >> runs; echo half > {output}; until [ -e go ]; do sleep 0.2; done; echo whole >> {output}"
"""
COMMAND = [SNAKEMAKE, "--executor", "submitit", "--submitit-cluster", "local", "--jobs", "4", "--scheduler", "greedy"]
COMMAND += ["--seconds-between-status-checks", "1"]


class Persistence:
    """What is asked of Snakemake's."""

    def __init__(self, *locks: Path) -> None:
        self._lockfile = {path.name: str(path) for path in locks}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "0.output.lock"
    path.write_text("out/1.txt\n")
    return path


def start(folder: Path) -> "subprocess.Popen[str]":
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(COMMAND, cwd=folder, stdout=log, stderr=log, text=True, process_group=0)


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines()) if (folder / "runs").exists() else 0


def test_the_same_command_goes_on_with_what_runs(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(CELLS)
    first = start(tmp_path)
    wait_for(lambda: runs(tmp_path) == 2, 120)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = start(tmp_path)
    wait_for(lambda: (tmp_path / "log.txt").read_text().count("going on with job") == 2, 120)
    (tmp_path / "go").touch()
    assert second.wait(120) == 0, (tmp_path / "log.txt").read_text()
    assert runs(tmp_path) == 2
    assert (tmp_path / "out/1.txt").read_text() == "half\nwhole\n"
    assert not list((tmp_path / ".snakemake").glob("locks/*"))


def test_files_that_others_left_are_refused_by_the_flags_names(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(CELLS)
    plain = [SNAKEMAKE, "--cores", "2", "--scheduler", "greedy"]
    with (tmp_path / "plain.txt").open("w") as log:
        first = subprocess.Popen(plain, cwd=tmp_path, stdout=log, stderr=log, process_group=0)
    wait_for(lambda: runs(tmp_path) == 2, 120)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert start(tmp_path).wait(120) == 1
    log_text = (tmp_path / "log.txt").read_text()
    assert "--rerun-incomplete" in log_text
    assert "LockException" in log_text or "IncompleteFilesException" in log_text


def test_a_lock_is_removed_only_if_it_is_a_dead_controllers(tmp_path: Path, lock: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    note_locks(Persistence(lock), tmp_path)
    drop_dead_locks(tmp_path)
    assert lock.exists(), "its controller lives"
    journal.close()
    drop_dead_locks(tmp_path)
    assert not lock.exists()


def test_a_lock_that_another_has_made_meanwhile_stays(tmp_path: Path, lock: Path) -> None:
    Journal(tmp_path / "journal.sqlite").close()
    note_locks(Persistence(lock), tmp_path)
    lock.unlink()
    time.sleep(0.01)
    lock.write_text("out/1.txt\n")
    drop_dead_locks(tmp_path)
    assert lock.exists()


def test_without_a_journal_nothing_is_ours(tmp_path: Path, lock: Path) -> None:
    assert unfinished(tmp_path) == set()
    drop_dead_locks(tmp_path)
    (tmp_path / "locks.json").write_text(json.dumps({str(lock): [1, 2]}))
    drop_dead_locks(tmp_path)
    assert lock.exists()


def test_what_ended_and_was_taken_note_of_is_no_one_elses_to_repeat(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    cells = [
        {"task": 0, "cell": n, "key": f"k{n}", "signature": "s", "rule": "r", "name": "n", "outputs": [f"/out/{n}"],
         "attempt": 1, "log": "l"}
        for n in range(4)
    ]  # fmt: skip
    submission = {"name": "r-1", "rule": "r", "attempt": 1, "cluster": "local", "request": "{}", "folder": "f"}
    ids = journal.intend(submission, cells)
    ended = {"state": "COMPLETED", "settled": 1}
    journal.change([{"id": ids[1]} | ended, {"id": ids[2], "state": "CANCELLED", "settled": 1}])
    journal.change([{"id": ids[3], "state": "FAILED", "settled": 1}])
    assert unfinished(tmp_path) == {"/out/0", "/out/2"}
    journal.close()
