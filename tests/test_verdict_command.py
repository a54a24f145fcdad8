"""`scatterproof verdict`: the table on the terminal, and an exit status that a machine may rely on."""

from pathlib import Path

import pandas as pd
import pytest

from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.verdict import verdict_table
from scatterproof.command.main import main
from scatterproof.command.show_verdict import status_of
from scatterproof.running.files import write_csv, write_text
from test_verdict import PASSED, attacks, controls


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([], 4),
        (["bounded"], 0),
        (["bounded", "bounded"], 0),
        (["bounded", "not broken yet"], 4),
        (["moot"], 4),
        (["undecided", "bounded"], 4),
        (["bounded", "broken"], 3),
        (["lost", "undecided"], 3),
        (["invalid", "broken", "bounded"], 5),
    ],
)
def test_the_exit_status_is_the_first_that_applies(verdicts: list[str], status: int) -> None:
    assert status_of(verdicts) == status


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_text("config/tiny.yaml", "study: tiny\n")
    table = attacks(fingerprint=[0.8, 0.81, 0.79, 0.8, 0.82], layer=0.5, whitebox=0.85)
    write_csv("results/tiny/tables/verdict.csv", verdict_table(table, controls(*PASSED)))
    write_csv("results/tiny/tables/attacks.csv", table)
    write_csv("results/tiny/tables/controls.csv", controls(*PASSED))
    return tmp_path / "results/tiny/tables"


def test_it_prints_every_threat(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict", "--configfile", "config/tiny.yaml"]) == 3
    said = capsys.readouterr().out
    assert "results/tiny: 1 threat judged" in said
    head, row = said.splitlines()[-2:]
    for part in ("layer-1-100-labels", "broken", "80.4 of 85.0 % (fingerprint)", "+30.4 [", "ceiling not run"):
        assert part in row
    assert len(head) > 60


def test_it_prints_csv_with_all_columns(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict", "--configfile", "config/tiny.yaml", "--csv"]) == 3
    assert capsys.readouterr().out.splitlines()[0].split(",") == COLUMNS["verdict"]


def test_verdicts_of_an_older_version_are_judged_anew(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = pd.DataFrame([{"threat": "layer-1-100-labels", "verdict": "protected", "defence": "none"}])
    write_csv(study / "verdict.csv", older)
    assert main(["verdict", "--configfile", "config/tiny.yaml"]) == 3
    assert "protected" not in capsys.readouterr().out
    (study / "controls.csv").unlink()
    assert main(["verdict", "--configfile", "config/tiny.yaml"]) == 1
    error = capsys.readouterr().err
    assert "verdict.csv: judged by an older version, and controls.csv" in error and len(error.splitlines()) == 1


def test_a_study_without_verdicts_is_refused_in_one_line(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "verdict.csv").unlink()
    assert main(["verdict", "--configfile", "config/tiny.yaml"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
