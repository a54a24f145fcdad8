"""The command `audit`: one model of one's own, attacked here and now."""

import argparse
from pathlib import Path

from scatterproof.command.model_arguments import add_model_arguments
from scatterproof.command.text_table import aligned

EPILOG = (
    "Without --full this is an estimate: one shuffle, one attack, no controls, no verdict. The page and the tables are "
    "written into the folder --out. Exit status: 0 when the audit is done, whatever it found; 1: it can't be made; 2: "
    "wrong arguments."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command."""
    add_model_arguments(parser)
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="text (.txt, .tsv), arrays (.npz, .safetensors), a folder of images or of the library datasets, "
        "digits or cifar100",
    )
    parser.add_argument("--blocks", type=int, default=128, metavar="SIDE", help="side of a block; default %(default)s")
    parser.add_argument(
        "--layers", nargs="+", metavar="GLOB", help="paths or patterns, in quotes; default the largest dense layer"
    )
    parser.add_argument("--together", action="store_true", help="the blocks of all these layers in one heap")
    parser.add_argument(
        "--inputs", type=int, default=100, metavar="N", help="unlabelled inputs of the pirate; default %(default)s"
    )
    parser.add_argument("--full", action="store_true", help="ten shuffles, controls, told ceiling, verdict")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="cores to use: --full judges so many layers at a time; default all"
    )
    parser.add_argument("--out", type=Path, default=Path("audit"), metavar="FOLDER", help="default %(default)s")
    parser.add_argument("--length", type=int, metavar="TOKENS", help="of a text at most; default 64")
    parser.add_argument("--index", type=Path, metavar="FILE", help="texts, one a line, that a .tsv's targets are of")
    parser.add_argument(
        "--task",
        choices=["classification", "multilabel", "regression", "embedding"],
        help="of arrays, classification by default; embedding: of a sentence encoder, by the cosine to its own vectors",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle; default %(default)s")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default %(default)s")
    parser.epilog = EPILOG


def audit_model(asked: argparse.Namespace) -> int:
    """Run it; the exit status. Raises: UserError."""
    from scatterproof.auditing.audit import audit
    from scatterproof.auditing.audit_page import VERDICT_HEAD, verdict_rows

    options = {key: value for key, value in vars(asked).items() if key not in ("run", "model", "data")}
    result = audit(asked.model, asked.data, **options)
    if result.verdicts is not None:
        print()
        print(aligned([VERDICT_HEAD, *map(tuple, verdict_rows(result.verdicts))]))
    print(f"\n{result.answer}\nThe page: {result.page}")
    return 1 if result.unjudged else 0
