"""What the rest of a study will cost, read beside a running controller."""

import json
import time
from pathlib import Path

import pytest

from scatterproof.cost.forecast import ForecastError, forecast_of, left_words
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.remaining import Left, write_left


def submit(journal: Journal, name: str, cells: int, minutes: float, study: str = "digits") -> None:
    """A submission whose cells have all completed, each after so many minutes of two GPUs."""
    request = {"gpus": 2, "cpus_per_task": 4, "minutes": 60, "study": study}
    submission = {"name": name, "rule": "search", "request": json.dumps(request), "folder": "", "cluster": "slurm"}
    rows = [
        {"task": n, "cell": 0, "key": f"{name}{n}", "rule": "search", "name": str(n), "outputs": []}
        for n in range(cells)
    ]
    ids = journal.intend(submission, rows)
    began = time.time()
    done = {"state": "COMPLETED", "settled": 1, "task_started": began, "ended": began + 60 * minutes}
    journal.change([done | {"id": number} for number in ids])


def left_at(folder: Path, cells: int, when: float) -> None:
    write_left(folder, "digits", [Left("search", 60, 2, 4)] * cells)
    written = json.loads((folder / "left.json").read_text())
    (folder / "left.json").write_text(json.dumps(written | {"time": when}))


def test_what_has_finished_since_is_taken_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    left_at(tmp_path, 10, time.time() - 1)
    before = forecast_of(tmp_path)
    assert before is not None
    assert (before["gpus"].expected, before["gpus"].most, before["gpus"].unknown) == (0, 1200, ("search",))
    submit(journal, "a", cells=4, minutes=5)
    submit(journal, "b", cells=3, minutes=50, study="another")
    after = forecast_of(tmp_path)
    assert after is not None
    assert (after["gpus"].expected, after["gpus"].most) == (pytest.approx(60), 720), "six cells of ten minutes"
    assert after["cpus"].expected == pytest.approx(120)
    assert forecast_of(tmp_path, "another") is None
    words = (
        "Left of what the last controller had to run: 1.00 GPU-hours [1.00, 1.00] expected, at most 12.00 requested."
    )
    assert left_words(forecast_of(tmp_path, "digits") or {}) == words
    left_at(tmp_path, 10, time.time() + 3600)
    later = forecast_of(tmp_path)
    assert later is not None
    assert later["gpus"].expected == pytest.approx(100), "all have finished before that"
    journal.close()


def test_without_a_controller_there_is_no_forecast_and_a_bad_file_is_named(tmp_path: Path) -> None:
    assert forecast_of(tmp_path) is None
    (tmp_path / "left.json").write_text('{"time": 1}')
    with pytest.raises(ForecastError, match=r"left\.json: not a list of what is left"):
        forecast_of(tmp_path)
    left_at(tmp_path, 1, 0)
    with pytest.raises(ForecastError, match=r"journal\.sqlite"):
        forecast_of(tmp_path)
