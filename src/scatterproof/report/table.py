"""A table of the page."""

from collections.abc import Sequence
from typing import NamedTuple

DEFENCE = "defence"  # the head of a column that only studies with defences have


class Table(NamedTuple):
    """A table of the page: every cell is text already."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def shown(self) -> "Table":
        """Without the column `defence` where it says nothing."""
        if DEFENCE not in self.head:
            return self
        at = self.head.index(DEFENCE)
        if any(row[at] for row in self.rows):
            return self
        return Table(self.caption, *(_without(self.head, at), [_without(row, at) for row in self.rows]))


def _without(cells: Sequence[str], at: int) -> list[str]:
    return [*cells[:at], *cells[at + 1 :]]
