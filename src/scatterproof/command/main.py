"""The command `scatterproof`: what a study has cost so far, its verdicts, and a finished study as a folder to keep.

These enter neither Snakemake nor torch, so that they answer at once and work beside a running controller. `layers` and
`check` look at a network, or at all that a study names, before it is run. All but `publish` read and never write.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scatterproof import __version__
from scatterproof.command.audit_model import add_arguments
from scatterproof.command.model_arguments import add_init_arguments, add_model_arguments
from scatterproof.command.study_file import DEFAULT, read
from scatterproof.errors import REFUSED, MissingExtraError, UserError


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
    cost.add_argument("--journal", type=Path, metavar="PATH", help="the executor's; default .submitit/journal.sqlite")
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
    try:
        from scatterproof.command.show_cost import show_cost
    except ModuleNotFoundError as error:
        raise MissingExtraError("scatterproof cost", "slurm", error) from None
    return show_cost(asked)


def _publish(asked: argparse.Namespace) -> int:
    from scatterproof.report.publish import publish

    study = read(asked.configfile)
    folder = asked.folder or Path("results") / study.study
    command = f"snakemake --cores all --configfile {asked.configfile}"
    for path in publish(folder, asked.target, study, command, Path.cwd()):
        print(asked.target / path)
    return 0


def _verdict(asked: argparse.Namespace) -> int:
    from scatterproof.command.show_verdict import show_verdict

    return show_verdict(asked.folder or Path("results") / read(asked.configfile).study, asked.csv)


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
        study = read(asked.study)  # before torch is imported, which takes seconds
    except UserError as error:
        print(error, file=sys.stderr)
        return REFUSED
    from scatterproof.command.check_file import check_file

    return check_file(asked.study, study)


if __name__ == "__main__":
    sys.exit(main())
