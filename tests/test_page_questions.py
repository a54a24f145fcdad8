"""The answers that a new reader should find on the demo's page stand in its part on verdicts."""

from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from scatterproof.report.sections.verdicts import TABLE_HEAD, sentences, table_rows

FOLDER = Path(__file__).with_name("page_questions")
QUESTIONS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "questions.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shown() -> str:
    """All texts of the part, a line each, as a browser shows them."""
    verdicts = pd.read_csv(FOLDER / "verdict.csv")
    rows = table_rows(verdicts)
    assert {len(row) for row in rows} == {len(TABLE_HEAD)}
    lines = [str(text) for row in rows for text in row] + [str(text) for text in sentences(verdicts)]
    plain = "\n".join(lines).replace('<b class="alarm">', "").replace("</b>", "")
    return unescape(plain)


def test_there_are_ten() -> None:
    assert len({each["question"] for each in QUESTIONS}) == 10


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda each: each["question"][:50])
def test_the_page_answers(asked: dict[str, Any], shown: str) -> None:
    missing = [text for text in asked["shown"] if text not in shown]
    assert not missing, f"{asked['answer']}: not on the page: {missing}"
