"""A table of the page."""

from collections.abc import Sequence
from typing import NamedTuple

DEFENCE = "defence"  # the head of a column that only studies with defences have
SETTING = ("victim", "block size", "blocks held", DEFENCE)  # what a row is of: one column of the page
MAIN = 6  # columns that are shown; a switch shows the others


class Table(NamedTuple):
    """A table of the page: every cell is text already. file: the CSV that it was made of, without its suffix."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    file: str = ""

    @property
    def columns(self) -> int:
        """How many there are, for the words beside the switch."""
        return len(self.head)

    @property
    def folded(self) -> bool:
        """Whether some columns are shown only on demand."""
        return self.columns > MAIN

    def shown(self, *first: str, file: str = "") -> "Table":
        """As the page has it: what a row is of in one column, then the columns `first`, then all others."""
        of = [at for at, name in enumerate(self.head) if name in SETTING]
        order = [self.head.index(name) for name in first]
        order += [at for at in range(len(self.head)) if at not in of and at not in order]
        named = [self.head[at] for at in of if self.head[at] != DEFENCE or any(row[at] for row in self.rows)]
        head = [", ".join(named)] if of else []
        rows = [[*([_setting(row, of)] if of else []), *(row[at] for at in order)] for row in self.rows]
        return Table(self.caption, [*head, *(self.head[at] for at in order)], rows, file)


def _setting(row: Sequence[str], of: Sequence[int]) -> str:
    return ", ".join(filter(None, (row[at] for at in of)))
