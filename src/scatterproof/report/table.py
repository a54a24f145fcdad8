"""A table of the page."""

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table of the page: every cell is text already."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
