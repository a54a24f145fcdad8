"""`docs/outputs.md` names the columns of every table, in order."""

import re

import pytest

from documents import ROOT
from scatterproof.analysis.columns import COLUMNS

PAGE = (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8")
TITLE = re.compile(r"^### (?P<tables>`\w+\.csv`(?: and `\w+\.csv`)*)$", re.MULTILINE)


def documented() -> dict[str, list[str]]:
    """The columns of each table: what stands in backticks in the first cells below its title."""
    found = {}
    for title in TITLE.finditer(PAGE):
        section = PAGE[title.end() :].partition("\n#")[0]
        firsts = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
        for table in re.findall(r"`(\w+)\.csv`", title["tables"]):
            found[table] = re.findall(r"`(\w+)`", " ".join(firsts))
    return found


def test_every_table_is_described() -> None:
    assert list(documented()) == list(COLUMNS)


@pytest.mark.parametrize("table", COLUMNS)
def test_a_table_is_described_by_exactly_its_columns(table: str) -> None:
    assert documented()[table] == COLUMNS[table]


@pytest.mark.parametrize("table", COLUMNS)
def test_no_column_stands_twice(table: str) -> None:
    assert len(set(COLUMNS[table])) == len(COLUMNS[table])
