"""What each form of the told ceiling is worth on test images, as rows of `tables/attacks.csv`."""

from collections.abc import Sequence
from typing import Any

from scatterproof.attacks.base import Snapshot
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.ceilings import AS_IS, LABEL_FREE, ROLE, Form
from scatterproof.config.threat import ThreatModel
from scatterproof.judging.ceilings.forms import ToldPirate
from scatterproof.judging.judge import Judge


def ceiling_rows(judge: Judge, pirate: ToldPirate, forms: Sequence[Form]) -> list[dict[str, Any]]:
    """One row for each form; `params` says which forms were tried, and what images held out chose of this one."""
    rows = []
    for form in forms:
        result = pirate.result(form)
        used = used_by(form, pirate.puzzle.threat)
        (row,) = judge.scored(form, ROLE, used, [Snapshot(result.minutes, result.copy)])
        print(f"{form}: {result.chosen}, accuracy {row['accuracy']:.3f}, {60 * result.minutes:.1f} s")
        rows.append(row | {"params": f"forms={'/'.join(forms)}; {result.chosen}"})
    return rows


def used_by(form: Form, threat: ThreatModel) -> Known | None:
    """What a form makes use of about the pirate's images."""
    return None if form == AS_IS else "none" if form == LABEL_FREE else threat.knows
