"""The command `scatterproof`: what a study has cost so far, its verdicts, and a finished study as a folder to keep.

These enter neither Snakemake nor torch, so that they answer at once and work beside a running controller. `layers` and
`check` look at a network, or at all that a study names, before it is run. All but `publish` read and never write.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scatterproof import __version__
from scatterproof.analysis.columns import COLUMNS
from scatterproof.command.audit_model import add_arguments
from scatterproof.command.model_arguments import add_init_arguments, add_model_arguments
from scatterproof.config.cost import CostConfig
from scatterproof.cost.account import JOURNAL, account
from scatterproof.cost.forecast import forecast_of, left_words
from scatterproof.cost.ledger import mean_training
from scatterproof.cost.sums import cost_summary, group_sums, waste_table
from scatterproof.errors import REFUSED, UserError
from scatterproof.report.cost_words import amount, sentences

DEFAULT = Path("config/demo.yaml")
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


class CommandError(UserError):
    """What was asked for is not there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    asked = _parser().parse_args(arguments)
    try:
        return int(asked.run(asked))
    except UserError as error:
        print(f"scatterproof: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough, as `head` does
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scatterproof", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    cost = commands.add_parser("cost", help="every attempt's cost, what was wasted and why", description=__doc__)
    which = cost.add_mutually_exclusive_group()
    which.add_argument("--study", metavar="NAME", help="its folder is results/NAME, its file config/NAME.yaml, if any")
    which.add_argument("--configfile", type=Path, metavar="FILE", help=f"the study's file; default {DEFAULT}")
    cost.add_argument("--folder", type=Path, metavar="FOLDER", help="the study's folder; default results/<study>")
    cost.add_argument(
        "--journal", type=Path, default=JOURNAL, metavar="PATH", help="the executor's; default %(default)s"
    )
    cost.add_argument("--by", choices=["stage", "rule", "attack", "victim"], default="stage", help="what to sum by")
    cost.add_argument("--csv", action="store_true", help="the sums as CSV, all columns")
    cost.set_defaults(run=_cost)
    keep = commands.add_parser("publish", help="tables, figures and page of a finished study, and how they were made")
    keep.add_argument(
        "--configfile", type=Path, metavar="FILE", default=DEFAULT, help="the study's file; default %(default)s"
    )
    keep.add_argument("--folder", type=Path, metavar="FOLDER", help="the study's folder; default results/<study>")
    keep.add_argument("target", type=Path, metavar="TARGET", help="the folder to write, such as docs/results/NAME")
    keep.set_defaults(run=_publish)
    verdict = commands.add_parser("verdict", help="the verdict on each threat, and an exit status for machines")
    verdict.add_argument(
        "--configfile", type=Path, metavar="FILE", default=DEFAULT, help="the study's file; default %(default)s"
    )
    verdict.add_argument("--folder", type=Path, metavar="FOLDER", help="the study's folder; default results/<study>")
    verdict.add_argument("--csv", action="store_true", help="as CSV, all columns")
    verdict.epilog = (
        "Exit status, by the first that applies: 5 if a threat is invalid; 3 if one is broken or lost; 4 if one is "
        "anything but bounded or proven, or none was judged; else 0. 1: the verdicts can't be had; 2: wrong arguments."
    )
    verdict.set_defaults(run=_verdict)
    layers = commands.add_parser("layers", help="a network's dense layers, and what an attack can read of each")
    add_model_arguments(layers)
    layers.add_argument("--classes", type=int, default=10, help="of vgg16 and torchvision's; default %(default)s")
    layers.add_argument("--csv", action="store_true", help="as CSV")
    layers.set_defaults(run=_layers)
    audit = commands.add_parser("audit", help="attack a model of your own here and now: an estimate, or the verdict")
    add_arguments(audit)
    audit.set_defaults(run=_audit)
    init = commands.add_parser("init", help="a commented study of a model and data of your own, to be changed and run")
    init.set_defaults(run=_init)
    add_init_arguments(init)
    check = commands.add_parser(
        "check", help="whether a study's models, layers, checkpoints and data fit; runs nothing"
    )
    check.add_argument("study", type=Path, metavar="STUDY.yaml", help="the study's file")
    check.epilog = "Exit status: 0 if all fits; 2 if something does not, which one line says."
    check.set_defaults(run=_check)
    return parser


def _cost(asked: argparse.Namespace) -> int:
    folder, assumed, notes = _study(asked)
    if not folder.is_dir():
        raise CommandError(f"{folder}: no such folder: nothing of this study has run here")
    spent = account(folder, asked.journal, assumed)
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
    left = forecast_of(asked.journal.parent, folder.name) if asked.journal.exists() else None
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


def _publish(asked: argparse.Namespace) -> int:
    from scatterproof.report.publish import publish

    study = _read(asked.configfile)
    folder = asked.folder or Path("results") / study.study
    command = f"snakemake --cores all --configfile {asked.configfile}"
    for path in publish(folder, asked.target, study, command, Path.cwd()):
        print(asked.target / path)
    return 0


def _verdict(asked: argparse.Namespace) -> int:
    from scatterproof.command.show_verdict import show_verdict

    return show_verdict(asked.folder or Path("results") / _read(asked.configfile).study, asked.csv)


def _layers(asked: argparse.Namespace) -> int:
    from scatterproof.command.show_layers import show_layers

    return show_layers(
        asked.model, asked.width, asked.input_size, asked.classes, asked.checkpoint, asked.csv, asked.model_args
    )


def _audit(asked: argparse.Namespace) -> int:
    from scatterproof.command.audit_model import audit_model

    return audit_model(asked)


def _init(asked: argparse.Namespace) -> int:
    from scatterproof.command.init_study import init_study

    return init_study(asked)


def _check(asked: argparse.Namespace) -> int:
    try:
        study = _read(asked.study)  # before torch is imported, which takes seconds
    except UserError as error:
        print(error, file=sys.stderr)
        return REFUSED
    from scatterproof.command.check_file import check_file

    return check_file(asked.study, study)


def _read(file: Path) -> Any:
    """The study in a file. Raises: CommandError, StudyError."""
    from scatterproof.config.study import read_study

    try:
        return read_study(file)
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror or error}") from None


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
    study = _read(file)
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


if __name__ == "__main__":
    sys.exit(main())
