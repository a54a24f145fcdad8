"""`scatterproof verdict`: the verdict on each threat of a finished study, and an exit status for machines."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from scatterproof.analysis.frontier.recommendation import recommendations
from scatterproof.analysis.judged_anew import study_verdicts
from scatterproof.analysis.verdict import BOUNDED, BROKEN, INVALID, LOST
from scatterproof.command.text_table import aligned
from scatterproof.config.threat import rest_of

HEAD = ("victim", "block", "threat", "verdict", "ends with", "gain in points", "margin", "headroom", "told", "seeds")


def show_verdict(folder: Path, as_csv: bool) -> int:
    """Print the verdicts of a study's folder, as a table or as CSV; the exit status. Raises: VerdictError."""
    verdicts = study_verdicts(folder / "tables")
    if as_csv:
        verdicts.to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        many = "" if len(verdicts) == 1 else "s"
        print(f"{folder}: {len(verdicts)} threat{many} judged\n")
        print(aligned([HEAD, *(_cells(row) for row in verdicts.itertuples(index=False))]))
        for row, recommended in recommendations(verdicts):
            place = f"{row.victim}, block {row.block_size}, {rest_of(str(row.threat), 'defence')}"
            print(f"\nrecommended against {place}:\n  {recommended}")
    return status_of(list(verdicts["verdict"]))


def status_of(verdicts: list[str]) -> int:
    """By the first that applies: 5 if one is invalid; 3 if one is broken or lost; 4 if one is anything but bounded, or
    there is none; else 0."""
    if INVALID in verdicts:
        return 5
    if {BROKEN, LOST} & set(verdicts):
        return 3
    return 4 if not verdicts or set(verdicts) - {BOUNDED} else 0


def _cells(row: Any) -> tuple[str, ...]:
    needed = "" if pd.isna(row.seeds_to_decide) else f" of {row.seeds_to_decide:g} to decide"
    return (
        str(row.victim),
        str(row.block_size),
        str(row.threat),
        str(row.verdict),
        f"{100 * row.ends_with:.1f} of {100 * row.victim_accuracy:.1f} % ({row.ends_with_attack})",
        "-" if pd.isna(row.gain) else f"{100 * row.gain:+.1f} [{100 * row.ci_low:+.1f}, {100 * row.ci_high:+.1f}]",
        f"{100 * row.margin:.1f}",
        f"{100 * row.headroom:.1f}",
        str(row.told) if pd.isna(row.told_accuracy) else f"{100 * row.told_accuracy:.1f} %",
        f"{row.seeds}{needed}",
    )
