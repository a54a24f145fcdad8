"""What the rest of a study will cost on the cluster, without entering Snakemake: it may run beside a controller.

The controller writes down what it has to run as it starts (`left.json` beside its journal); what has finished since is
taken off. The arithmetic is the executor's own. Imports no torch.
"""

import json
import sqlite3
from collections import Counter
from math import inf
from pathlib import Path

from scatterproof.errors import UserError
from snakemake_executor_plugin_submitit.journal import JournalError, connect, tasks_in
from snakemake_executor_plugin_submitit.remaining import Forecast, Left, forecast, history

FINISHED = """
SELECT cells.rule, COUNT(DISTINCT cells.key) AS cells FROM cells
JOIN submissions ON cells.submission = submissions.name
WHERE cells.state = 'COMPLETED' AND cells.ended >= ?
    AND (? IS NULL OR json_extract(submissions.request, '$.study') = ?) GROUP BY cells.rule
"""


class ForecastError(UserError):
    """A journal, or what was written down beside it, that cannot be read; names the file."""


def forecast_of(folder: Path, study: str | None = None) -> dict[str, Forecast] | None:
    """GPU-minutes (`gpus`) and CPU-minutes (`cpus`) of what is left by the journal in a folder; see Forecast.

    None where no controller has written down what there was to run, or the last one's was another study than `study`.
    Nothing is written. Raises: ForecastError.
    """
    path = folder / "left.json"
    if not path.exists():
        return None
    since, own, left = _read(path)
    if study is not None and own not in (None, study):
        return None
    study = own
    try:
        database = connect(folder / "journal.sqlite", read_only=True)
        try:
            tasks = tasks_in(database, folder / "journal.sqlite")
            finished = Counter({row[0]: row[1] for row in database.execute(FINISHED, (since, study, study))})
        finally:
            database.close()
    except (JournalError, sqlite3.Error) as error:
        raise ForecastError(str(error)) from None
    rest = []
    for one in left:
        if finished[one.rule]:
            finished[one.rule] -= 1
        else:
            rest.append(one)
    return {device: forecast(rest, history(tasks, device, study), device) for device in ("gpus", "cpus")}


def _read(path: Path) -> tuple[float, str | None, list[Left]]:
    """When it was written, of which study, and the cells that were left then."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        left = [
            Left(one["rule"], one["minutes"], one["gpus"], one["cpus"])
            for one in content["left"]
            for _ in range(one["cells"])
        ]
        return float(content["time"]), content["study"], left
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ForecastError(f"{path}: not a list of what is left: {type(error).__name__}: {error}") from None


def left_words(forecasts: dict[str, Forecast]) -> str:
    """One line: GPU-hours where any are asked for, else CPU-hours."""
    device = "gpus" if forecasts["gpus"].most > 0 else "cpus"
    one, unit = forecasts[device], f"{device[:3].upper()}-hours"
    if one.most == 0:
        return "Nothing is left of what the last controller had to run on the cluster."
    low, high, most = (f"{value / 60:.2f}" if value < inf else "?" for value in (one.low, one.high, one.most))
    text = f"Left of what the last controller had to run: {one.expected / 60:.2f} {unit} [{low}, {high}] expected, "
    text += f"at most {most} requested"
    if one.unknown:
        text += f"; of {', '.join(one.unknown)} none has finished yet, so the interval ends at what is requested"
    return text + "."
