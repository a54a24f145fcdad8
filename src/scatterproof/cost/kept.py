"""What sacct has said, kept beside a study's records: SLURM purges its accounts, and a ledger must not shrink."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from scatterproof.cost.sacct import COLUMNS, NUMBERS, Row
from scatterproof.cost.states import is_live
from scatterproof.errors import UserError
from scatterproof.running.files import write_text

NAME = "sacct.csv"


class KeptError(UserError):
    """A file of kept accounts that cannot be read: names file and row; it is left as it is."""


def read_kept(path: Path) -> list[Row]:
    """The rows as parse_sacct gave them; none where there is no file. Raises: KeptError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise KeptError(f"{path}: cannot be read, and is left as it is: {error}") from None
    lines = csv.reader(io.StringIO(text))
    head = next(lines, None)
    if head != COLUMNS:
        raise KeptError(f"{path}: row 1: expected the columns {','.join(COLUMNS)}; it is left as it is")
    return [_row(path, number, values) for number, values in enumerate(lines, start=2)]


def _row(path: Path, number: int, values: list[str]) -> Row:
    if len(values) != len(COLUMNS):
        raise KeptError(f"{path}: row {number}: {len(values)} values, expected {len(COLUMNS)}; it is left as it is")
    row: Row = dict(zip(COLUMNS, values, strict=True))
    for column in NUMBERS:
        try:
            row[column] = float(row[column]) if row[column] else None
        except ValueError:
            raise KeptError(
                f"{path}: row {number}: {column} is {row[column]!r}, expected a number; it is left as it is"
            ) from None
    return row


def merge(kept: Iterable[Row], fresh: Iterable[Row]) -> list[Row]:
    """Every attempt once, in order; what sacct says now stands for what it said before.

    An attempt is known by its job, name and start: SLURM resets the time of submission when it requeues. One that was
    waiting or running is forgotten once sacct knows more of its job.
    """
    fresh = list(fresh)
    answered = {(row["job_id"], row["name"]) for row in fresh}
    by_key = {
        _key(row): row
        for row in kept
        if not (is_live(row["state"], row["end"]) and (row["job_id"], row["name"]) in answered)
    }
    by_key |= {_key(row): row for row in fresh}
    return sorted(by_key.values(), key=lambda row: (row["name"], row["job_id"], began(row)))


def began(row: Row) -> float:
    """When an attempt started; when it was submitted where it has not."""
    return float(row["start"] or row["submit"] or 0.0)


def _key(row: Row) -> tuple[str, str, float | None, float | None]:
    return row["job_id"], row["name"], row["start"], None if row["start"] else row["submit"]


def write_kept(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows whole or not at all. Raises: WriteError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([["" if row[column] is None else row[column] for column in COLUMNS] for row in rows])
    write_text(path, text.getvalue())
