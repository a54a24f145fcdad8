"""Files that are whole or absent: every write goes to a temporary file beside its target, then replaces it."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from safetensors import SafetensorError

from scatterproof.errors import UserError

if TYPE_CHECKING:
    import pandas


class FolderError(UserError):
    """A folder that results can't go to, said in one line."""


class WriteError(UserError, OSError):
    """A file that can't be written, as on a full disk, said in one line; an OSError too."""


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path`, durably, when the block ends, and is removed if the block fails.

    Missing folders are made. The file gets the mode of a newly created one, whatever its writer gave it
    (safetensors makes private files). Raises: WriteError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise WriteError(f"{path}: cannot be written: {reason}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


DATASET_MARKS = ("dataset_dict.json", "state.json")  # of a folder of the library datasets: with splits, and without


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file whole or not at all. Raises: WriteError."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text, line ends as they are. Raises: WriteError."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, obj: Any) -> None:
    """Write indented JSON. Raises: WriteError; TypeError, or ValueError at NaN or infinity, which JSON doesn't have."""
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path | str, frame: "pandas.DataFrame") -> None:
    """Write a table as UTF-8 CSV without its index, every float with as many digits as identify it.

    A reader that rounds correctly, as pandas' from 3.1 on, reads the same floats. Raises: WriteError.
    """
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def read_table(path: Path | str) -> "pandas.DataFrame":
    """A table as it was written, floats to the last bit (pandas reads them so by default from 3.1 on)."""
    import pandas

    return pandas.read_csv(path)


LEAST_FREE = 200 * 2**20  # bytes that a study asks for before it starts


def check_writable(folder: Path | str, free_bytes: int) -> None:
    """Make sure that files can be made in a folder, or in the nearest one above it that exists, and have room.

    Leaves nothing behind. Raises: FolderError, one line with the folder and what is wrong.
    """
    folder = Path(folder)
    nearest = folder.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise FolderError(f"{folder}: {nearest} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=nearest) as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        raise FolderError(f"{folder}: cannot write in {nearest}: {error.strerror or error}") from None
    free = shutil.disk_usage(nearest).free
    if free < free_bytes:
        raise FolderError(
            f"{folder}: {free / 1e9:.3f} GB free on the disk of {nearest}, expected at least {free_bytes / 1e9:.3f} GB"
        )


def file_stamp(path: str | None) -> str:
    """Size and time of change of a file, empty where there is none: a cheap sign that it is another.

    Of a folder that the library datasets wrote, those of each of its files.
    """
    if path is None or not Path(path).exists():
        return ""
    if any((Path(path) / mark).is_file() for mark in DATASET_MARKS):
        return " ".join(file_stamp(str(one)) for one in sorted(Path(path).rglob("*")) if one.is_file())
    status = Path(path).stat()
    return f"{status.st_size} {status.st_mtime_ns}"
