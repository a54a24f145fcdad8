"""What the tasks of a submission run: one file for all of them, since a file each is most of what an array costs.

The first line holds the lengths of the others in bytes: a task reads its own line. Standard library alone.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAME = "tasks.jsonl"


def write_tasks(folder: Path, tasks: Sequence[dict[str, Any]]) -> None:
    """Write the tasks of a submission, whole or not at all; unchanged where a submission is tried again."""
    path = folder / NAME
    if path.exists():
        return
    lines = [json.dumps(task).encode() + b"\n" for task in tasks]
    temporary = path.with_name(f".{NAME}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(json.dumps([len(line) for line in lines]).encode() + b"\n")
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_task(folder: Path, index: int) -> dict[str, Any]:
    """One task of a submission. Raises: OSError without the file, IndexError without such a task."""
    with (folder / NAME).open("rb") as file:
        lengths = json.loads(file.readline())
        length = lengths[index]
        file.seek(sum(lengths[:index]), os.SEEK_CUR)
        content: dict[str, Any] = json.loads(file.read(length))
    return content
