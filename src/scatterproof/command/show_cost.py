"""`scatterproof cost`: what a study has cost so far, every attempt counted, as a table or CSV."""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scatterproof.analysis.columns import COLUMNS
from scatterproof.command.study_file import DEFAULT, CommandError, read
from scatterproof.config.cost import CostConfig
from scatterproof.cost.account import JOURNAL, account
from scatterproof.cost.forecast import forecast_of, left_words
from scatterproof.cost.ledger import mean_training
from scatterproof.cost.sums import cost_summary, group_sums, waste_table
from scatterproof.report.cost_words import amount, sentences

HEADS = {
    "attempts": "attempts",
    "device_minutes": "useful min",
    "overhead_minutes": "start-up min",
    "wasted_minutes": "wasted min",
    "queue_minutes": "queue min",
    "allocated_gpu_minutes": "allocated GPU-min",
    "wasted_gpu_minutes": "wasted GPU-min",
    "gpu_minutes": "used GPU-min",
    "cpu_minutes": "CPU-min",
    "over_retraining": "x training",
    "energy_kwh": "kWh",
    "co2_g": "g CO2",
    "price": "price",
}


def show_cost(asked: argparse.Namespace) -> int:
    """Print what a study has cost so far; the exit status. Raises: UserError."""
    folder, assumed, notes = _study(asked)
    journal = asked.journal or JOURNAL
    if not folder.is_dir():
        raise CommandError(f"{folder}: no such folder: nothing of this study has run here")
    spent = account(folder, journal, assumed)
    retraining = _retraining(folder / "tables" / "victim.csv")
    summary = cost_summary(spent.costs, retraining)
    rows = (
        summary
        if asked.by == "stage"
        else [
            *({asked.by: name} | sums for name, sums in group_sums(spent.costs, asked.by, retraining)),
            {asked.by: "total"} | {key: value for key, value in summary[-1].items() if key != "stage"},
        ]
    )
    for note in notes + spent.notes:
        print(note, file=sys.stderr if asked.csv else sys.stdout)
    if asked.csv:
        writer = csv.DictWriter(sys.stdout, [asked.by, *COLUMNS["cost_summary"][1:]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return 0
    shown = _marked(rows, folder / "tables" / "controls.csv") if asked.by == "attack" else rows
    print(f"{folder}: {len(spent.costs)} attempts\n\n{_table(shown, asked.by)}\n")
    print("\n".join(sentences(spent.costs, summary[-1], waste_table(spent.costs), assumed)))
    left = forecast_of(journal.parent, folder.name) if journal.exists() else None
    if left is not None:
        print(left_words(left))
    return 0


def _marked(rows: list[dict[str, Any]], controls: Path) -> list[dict[str, Any]]:
    """The rows with each attack marked by its controls; as they are while the study has none yet."""
    if not controls.exists():
        return rows
    from scatterproof.analysis.control_results import marked_all
    from scatterproof.running.files import read_table

    known = read_table(str(controls))
    return [
        row | {"attack": row["attack"] if row["attack"] == "total" else marked_all(row["attack"], known)}
        for row in rows
    ]


def _study(asked: argparse.Namespace) -> tuple[Path, CostConfig, list[str]]:
    """The study's folder, its assumptions, and what could not be had of them."""
    file = asked.configfile
    if file is None and asked.study is not None:
        file = Path("config") / f"{asked.study}.yaml"
    if file is None and asked.folder is None:
        file = DEFAULT
    if asked.configfile is None and (file is None or not file.exists()):
        folder = asked.folder or (Path("results") / asked.study if asked.study else None)
        if folder is None:
            raise CommandError(f"{DEFAULT}: no such file; name a study by --study, --configfile or --folder")
        return folder, CostConfig(), [f"{file or '--configfile'}: not given, so no watts and prices are assumed"]
    assert file is not None
    study = read(file)
    if asked.study is not None and study.study != asked.study:
        raise CommandError(f"{file}: its study is '{study.study}', not '{asked.study}'; name its file by --configfile")
    return asked.folder or Path("results") / study.study, study.cost, []


def _retraining(victims: Path) -> float:
    """Minutes of training one victim; NaN before the victims are trained. Raises: CommandError."""
    if not victims.exists():
        return float("nan")
    try:
        with victims.open(encoding="utf-8", newline="") as file:
            return mean_training(list(csv.DictReader(file)))
    except (OSError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise CommandError(f"{victims}: not a table of victims: {error!r}") from None


def _table(rows: Sequence[dict[str, Any]], by: str) -> str:
    """Aligned columns; those that are empty or 0 in every row are left out."""
    shown = [column for column in HEADS if any(row[column] for row in rows)]
    cells = [[by, *(HEADS[column] for column in shown)]]
    cells += [[row[by], *(_cell(row[column]) for column in shown)] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(cells[0]))]
    return "\n".join("  ".join(_aligned(line, widths)) for line in cells)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    name, *numbers = line
    return [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))]


def _cell(value: float | int | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else amount(value)
