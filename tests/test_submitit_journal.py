"""The journal's lease, and what is left of it where something is wrong."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit.journal import Journal, JournalError, LeaseLostError, connect

CELL = {"task": 0, "cell": 0, "key": "k", "signature": "s", "rule": "r", "name": "n", "outputs": ["o"], "attempt": 1}


def submission(journal: Journal, name: str = "r-1") -> list[int]:
    columns = {"name": name, "rule": "r", "attempt": 1, "cluster": "slurm", "request": "{}", "folder": f"/{name}"}
    return journal.intend(columns, [CELL | {"log": "l"}])


def test_it_remembers_what_was_intended_submitted_and_settled(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    (number,) = submission(journal)
    assert [(cell["state"], cell["submitted"]) for cell in journal.open_cells()] == [("INTENDED", None)]
    journal.submitted("r-1", "12", {0: "12_0"})
    journal.close()
    journal = Journal(path)
    (cell,) = journal.open_cells()
    assert (cell["job_id"], cell["state"], cell["outputs"]) == ("12_0", "PENDING", ["o"])
    journal.change([{"id": number, "state": "COMPLETED", "ended": 5.0, "detail": "well"}])
    assert [cell["state"] for cell in journal.open_cells()] == ["COMPLETED"]
    journal.change([{"id": number, "settled": 1}])
    assert journal.open_cells() == []
    assert journal.finished_folders(6.0) == ["/r-1"]
    assert journal.finished_folders(4.0) == []
    events = [row["state"] for row in connect(path, read_only=True).execute("SELECT state FROM events")]
    assert events == ["INTENDED", "PENDING", "COMPLETED"]


def test_no_write_ahead_log_for_network_file_systems(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    submission(journal)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.sqlite"]
    assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_live_holder_is_named_and_refuses_a_second(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    with pytest.raises(JournalError, match=f"process id {os.getpid()} on {socket.gethostname()} is at work here"):
        Journal(path)
    journal.close()
    Journal(path).close()


def test_a_dead_holder_on_this_host_is_succeeded_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    code = "import os, sys, pathlib; from snakemake_executor_plugin_submitit.journal import Journal;"
    code += "j = Journal(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(path)])
    Journal(path).close()


@pytest.mark.parametrize(("silent", "refused"), [(5, True), (600, False)])
def test_a_holder_on_another_host_is_judged_by_its_heartbeat(tmp_path: Path, silent: float, refused: bool) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path)._db.execute("UPDATE lease SET host = 'elsewhere', heartbeat = ?", (time.time() - silent,))
    if refused:
        with pytest.raises(JournalError, match="on elsewhere is at work here"):
            Journal(path)
    else:
        Journal(path).close()


def test_a_controller_that_was_succeeded_writes_no_more(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    old = Journal(path)
    old._db.execute("UPDATE lease SET host = 'elsewhere', heartbeat = 0")
    new = Journal(path)
    with pytest.raises(LeaseLostError, match="another controller has taken over"):
        submission(old)
    assert new.open_cells() == []
    old.close()
    new.heartbeat()


def test_a_failing_transaction_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    with pytest.raises(sqlite3.Error):
        journal.intend({"name": "x", "nonsense": 1}, [])
    assert journal._db.execute("SELECT COUNT(*) FROM submissions").fetchone()[0] == 0
    submission(journal)


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read as one" * 100, b""])
def test_what_is_no_journal_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    if content:
        with pytest.raises(JournalError, match=r"journal.sqlite: cannot be used as a journal, and is left as it is"):
            Journal(path)
        assert path.read_bytes() == content
    else:
        Journal(path).close()


def test_another_programs_database_and_another_version_are_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    with pytest.raises(JournalError, match="a database of something else"):
        Journal(tmp_path / "other.sqlite")
    Journal(tmp_path / "journal.sqlite").close()
    later = sqlite3.connect(tmp_path / "journal.sqlite")
    later.execute("PRAGMA user_version = 9")
    later.commit()
    with pytest.raises(JournalError, match="a journal of version 9, this program knows 1"):
        Journal(tmp_path / "journal.sqlite")
