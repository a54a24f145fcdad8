"""What a cell's program found when it began: its sources and inputs, so that a later change of them shows.

`INDEX.CELL.begun` is made once, exclusively: by the task before it runs the cell, or by a controller that does not want
the cell any more, with `revoked` in it. `INDEX.CELL.read.json` holds digests of what the cell was about to read.
`sources.json`, beside them, holds those of Snakefiles, config files and scripts as they were at the submission.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from snakemake_executor_plugin_submitit.shared_files import digest_of, read_json, write_json

SOURCES = "sources.json"
MOST_BYTES = 2**20  # of an input that is told by its content; a larger one by its time, as Snakemake has it


def begin(folder: Path, index: int, cell: int, inputs: Iterable[str]) -> bool:
    """Note what a cell is about to read; false where the cell must not begin."""
    path = begun_file(folder, index, cell)
    try:
        path.open("x").close()
    except FileExistsError:
        return not is_revoked(folder, index, cell)
    paths = [*read_json(folder / SOURCES), *(one for one in inputs if _is_small(Path(one)))]
    write_json(folder / f"{index}.{cell}.read.json", {one: digest_of(Path(one)) for one in paths}, durable=False)
    return True


def revoke_cell(folder: Path, index: int, cell: int, why: str) -> bool:
    """Keep a cell from ever beginning; false if it has begun."""
    path = begun_file(folder, index, cell)
    try:
        with path.open("x") as file:
            json.dump({"revoked": why}, file)
    except FileExistsError:
        return is_revoked(folder, index, cell)
    return True


def begun_file(folder: Path, index: int, cell: int) -> Path:
    """The file that says that a cell has begun, or never will."""
    return folder / f"{index}.{cell}.begun"


def has_begun(folder: Path, index: int, cell: int) -> bool:
    """Whether a cell's program was started."""
    path = begun_file(folder, index, cell)
    return path.exists() and not read_json(path)


def is_revoked(folder: Path, index: int, cell: int) -> bool:
    """Whether a cell is kept from beginning."""
    return bool(read_json(begun_file(folder, index, cell)))


def changed_since(
    folder: Path, index: int, cell: int, inputs: Iterable[str], started: float | None = None
) -> str | None:
    """The first file of those that a cell has read which is another now; None also where it has not begun.

    inputs: those that count, without `ancient` ones. An input counts as changed where its content is another, or, if
    that was not noted, where its time is later than the cell's beginning. started: that time, where its file is gone.
    """
    with suppress(OSError):
        started = begun_file(folder, index, cell).stat().st_mtime
    if started is None:
        return None
    submitted, read = read_json(folder / SOURCES), read_json(folder / f"{index}.{cell}.read.json")
    for path, before in submitted.items():
        if read.get(path, before) not in (before, digest_of(Path(path))):
            return path
    for path in inputs:
        if _modified(Path(path)) > started and read.get(path, "") != (digest_of(Path(path)) or None):
            return path
    return None


def _is_small(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file() and path.stat().st_size <= MOST_BYTES
    return False


def _modified(path: Path) -> float:
    """When a file was changed, or a symbolic link to it; of a directory what Snakemake keeps of it."""
    stamp = path / ".snakemake_timestamp"
    times = [0.0]
    for time_of in (path.lstat, path.stat) if not stamp.exists() else (stamp.stat,):
        with suppress(OSError):
            times.append(time_of().st_mtime)
    return max(times)
