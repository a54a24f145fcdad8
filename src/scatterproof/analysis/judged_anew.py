"""The verdicts of a finished study, judged anew where an older version wrote them. Imports no torch."""

from pathlib import Path

import pandas as pd

from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.frontier.recommendation import recommended_verdicts
from scatterproof.analysis.older_tables import read_study_table
from scatterproof.analysis.verdict import cheapest_training, verdict_table
from scatterproof.errors import UserError

LATER = ("ends_with_low", "ends_with_high", "told_accuracy_low", "told_accuracy_high", "recommendation")


class VerdictError(UserError):
    """Verdicts that can't be had from a study's tables, in one line."""


def study_verdicts(tables: Path) -> pd.DataFrame:
    """`verdict.csv` of a study's folder of tables.

    One that lacks only columns which came later has them empty. One that says `protected` or `blocks add nothing` is of
    an older version: it is judged anew from the rows of its attacks and controls. Raises: VerdictError where there is
    no verdict, or these do not suffice.
    """
    path = tables / "verdict.csv"
    if not path.exists():
        raise VerdictError(f"{path}: no such file: the study has no attacks, or has not been run to its end")
    verdicts = read_study_table(path)
    if set(COLUMNS["verdict"]) - set(LATER) <= set(verdicts.columns):
        return verdicts.reindex(columns=COLUMNS["verdict"])
    missing = [name for name in ("attacks.csv", "controls.csv") if not (tables / name).exists()]
    if missing:
        raise VerdictError(
            f"{path}: judged by an older version, and {' and '.join(missing)} to judge it anew by is missing: "
            "expected tables of this version, so run the study again"
        )
    attacks, controls = (read_study_table(tables / name) for name in ("attacks.csv", "controls.csv"))
    hijacks = tables / "hijacks.csv"
    if hijacks.exists():
        attacks = pd.concat([attacks, read_study_table(hijacks)], ignore_index=True)
    breakeven = tables / "breakeven.csv"
    cheapest = cheapest_training(read_study_table(breakeven)) if breakeven.exists() else None
    defences = tables / "defences.csv"
    if defences.exists():
        return recommended_verdicts(attacks, controls, read_study_table(defences), cheapest)
    return verdict_table(attacks, controls, cheapest)
