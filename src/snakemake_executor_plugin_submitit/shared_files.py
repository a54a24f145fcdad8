"""Small JSON files that are whole or absent, on file systems that cache and come late. Standard library alone."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any, durable: bool = True) -> None:
    """Write a file whole or not at all; `durable` waits for the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        json.dump(content, file)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty where there is none, or not yet the whole of it."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def tail(path: Path, size: int = 65536) -> str:
    """The end of a text file, however large it is; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def age(path: Path) -> float:
    """Seconds since a file was touched; opened anew, since network file systems cache what `stat` says."""
    try:
        with path.open() as file:
            return time.time() - os.fstat(file.fileno()).st_mtime
    except OSError:
        return float("inf")


def digest_of(path: Path) -> str:
    """A file's content as a digest; empty where it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return ""
