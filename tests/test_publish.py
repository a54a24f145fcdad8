"""A finished study as a folder to keep."""

from pathlib import Path

import pandas as pd
import pytest

import report_tables as made_up
from scatterproof.command.main import main

STUDY = "study: made-up\nvictim: {width: 0.0625, seeds: [0]}\n"


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    results = tmp_path / "results/made-up"
    for name in ("tables", "figures", "report"):
        (results / name).mkdir(parents=True)
    tables = {"victim": made_up.victim_table(), "prune": made_up.prune_table(), **made_up.cost_tables(0.6)}
    for name, table in tables.items():
        table.to_csv(results / "tables" / f"{name}.csv", index=False)
    (results / "figures/prune.svg").write_text("<svg/>")
    (results / "report/index.html").write_text('<a href="../tables/prune.csv">prune.csv</a>')
    return results


def publish(*more: str) -> int:
    return main(["publish", "--configfile", "study.yaml", "kept", *more])


def test_tables_figures_page_and_how_they_were_made_are_kept(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("kept/tables").mkdir(parents=True)
    Path("kept/README.md").write_text("my own words")
    Path("kept/tables/gone.csv").write_text("of an earlier study")
    assert publish() == 0
    assert Path("kept/README.md").read_text() == "my own words"
    assert not Path("kept/tables/gone.csv").exists()
    kept, had = pd.read_csv("kept/tables/prune.csv"), pd.read_csv(finished / "tables/prune.csv")
    pd.testing.assert_frame_equal(kept, had)
    assert Path("kept/report.html").read_text() == '<a href="tables/prune.csv">prune.csv</a>'
    made = Path("kept/made.md").read_text()
    for text in (
        "command: `snakemake --cores all --configfile study.yaml`",
        f"devices: {made_up.DEVICE}",
        "| victim |",
        "width: 0.0625",
    ):
        assert text in made
    assert "kept/made.md" in capsys.readouterr().out


def test_an_unfinished_study_is_not_published(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "report/index.html").unlink()
    assert publish() == 1
    assert "report/index.html: no such file: run the study to its end first" in capsys.readouterr().err
    assert not Path("kept").exists()
