"""The hijacks of a pirate that holds blocks as rows beside other attacks', so that the verdict can weigh them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.tables import attack_table
from scatterproof.attacks.base import Machine, Run, Snapshot
from scatterproof.attacks.nothing import Nothing
from scatterproof.config.attacks import NOTHING
from scatterproof.config.stream import StreamCell, hijack_name
from scatterproof.judging.judge import Judge
from scatterproof.judging.traffic.stream_cells import HijackResult


def hijack_table(
    cells: Sequence[StreamCell],
    results: Sequence[HijackResult],
    judges: Mapping[float, Judge],
    about: dict[str, Any],
    retraining: dict[str, Any],
    device: str,
) -> pd.DataFrame:
    """A row, in the columns of `tables/attacks.csv`, for each cell in which blocks are held; none for the others.

    Beside them, for each threat and layout, the same pirate without the blocks, who with nothing known of its images
    can train nothing, and the ceiling. judges: by the share held; retraining: the victim's training.json.
    """
    peers = {
        held: judge.rows({NOTHING: Nothing().run(judge.puzzle, Run(Machine(judge.device, 1)))})
        for held, judge in judges.items()
    }
    parts, judged = [], set()
    for cell, one in zip(cells, results, strict=True):
        if one.reached is None:
            continue
        judge = judges[cell.held]
        threat = cell.threat_name(judge.puzzle.threat)
        rows = judge.scored(hijack_name(cell), "blocks", "none", [Snapshot(one.minutes, one.reached)])
        if (threat, cell.layout) not in judged:
            rows += peers[cell.held]
            judged.add((threat, cell.layout))
        frozen = {"frozen": judge.puzzle.config.frozen_among(judge.puzzle.layout.grids)}
        table = attack_table(rows, about | frozen, judge.puzzle.threat, retraining, device)
        hidden = {"obfuscation": cell.obfuscation.name, "params": cell.obfuscation.params}
        parts.append(table.assign(threat=threat, seed=cell.layout, **hidden))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS["hijacks"])
