"""Lets the same command go on after its controller was killed, where Snakemake would refuse.

Snakemake finds the outputs of jobs under way marked as incomplete, and the lock of the dead process, and says to start
again with --rerun-incomplete, and with --unlock before. Both are asked before it makes the executor. Where the journal
knows who writes all of these files, they count as under `--rerun-incomplete`; a lock that a controller noted as its own
is removed once that controller is dead. All else is refused as ever, in words that name the flags.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.journal import JournalError, connect, holder_lives
from snakemake_executor_plugin_submitit.shared_files import read_json, write_json

UNFINISHED = "settled = 0 OR state IN ('CANCELLED', 'REVOKED', 'REJECTED', 'LOST')"
LOCKS = "locks.json"


def folder_of(workflow: Any) -> Path | None:
    """Where a workflow's journal is; None where it is run by another executor."""
    from snakemake_executor_plugin_submitit.settings import FOLDER, ExecutorSettings

    settings = getattr(workflow, "executor_settings", None)  # not set yet where nothing is to be run
    return Path(settings.folder or FOLDER).absolute() if isinstance(settings, ExecutorSettings) else None


def note_locks(persistence: Any, folder: Path) -> None:
    """Write down which of Snakemake's lock files are this controller's; its lease says whether it lives."""
    files = {str(Path(path).absolute()): _identity(path) for path in getattr(persistence, "_lockfile", {}).values()}
    write_json(folder / LOCKS, files)


def drop_dead_locks(folder: Path) -> None:
    """Remove the lock files of the last controller, if it is dead, and they are still its own."""
    if not (folder / LOCKS).exists() or _alive(folder):
        return
    for path, identity in read_json(folder / LOCKS).items():
        with suppress(OSError):
            if _identity(path) == identity:
                Path(path).unlink()


def unfinished(folder: Path) -> set[str]:
    """Outputs whose last job did not end, or ended with no controller to take note."""
    paths: set[str] = set()
    with suppress(JournalError), closing(connect(folder / "journal.sqlite", read_only=True)) as db:
        for row in db.execute(f"SELECT outputs, {UNFINISHED} AS open FROM cells ORDER BY id"):
            outputs = json.loads(row["outputs"])
            (paths.update if row["open"] else paths.difference_update)(outputs)
    return paths


def install() -> None:
    """Have the Snakemake of this process, if any, ask here before it refuses. Once is enough."""
    if "snakemake.dag" not in sys.modules:
        return
    from snakemake.dag import DAG
    from snakemake.persistence import PersistenceBase

    if hasattr(DAG.check_incomplete, "own"):
        return
    own_check, own_lock = DAG.check_incomplete, PersistenceBase.lock

    async def check_incomplete(self: Any) -> None:
        folder = folder_of(self.workflow)
        if folder and not (self.ignore_incomplete or self.workflow.dag_settings.force_incomplete):
            files = await self.incomplete_files()
            if files and {str(Path(str(path)).absolute()) for path in files} <= unfinished(folder):
                self.forcefiles.update(files)
                return
        await own_check(self)

    @contextmanager
    def lock(self: Any) -> Iterator[None]:
        folder = folder_of(self.dag.workflow)
        if folder and self.locked:
            drop_dead_locks(folder)
        with own_lock(self):
            yield

    check_incomplete.own = own_check  # type: ignore[attr-defined]
    DAG.check_incomplete, PersistenceBase.lock = check_incomplete, lock


def _alive(folder: Path) -> bool:
    try:
        with closing(connect(folder / "journal.sqlite", read_only=True)) as db:
            return holder_lives(db)
    except JournalError:
        return True  # unknown: the lock stays


def _identity(path: str) -> list[int]:
    found = Path(path).stat()
    return [found.st_ino, found.st_mtime_ns]
