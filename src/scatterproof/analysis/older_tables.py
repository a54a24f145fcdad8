"""Tables of a study as they are written now, also where an older version wrote them. Imports no torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scatterproof.running.files import read_table

# Once `defence` named what hides the traffic, `decoys` its cover
_OLDER_COVER = {"threat": {r"(\+stream-.*)\bdecoys=": r"\1cover="}}

# Of threats before there were any
_PARTS: dict[str, Any] = {
    "activations": "none",
    "requests": 0,
    "defence": "none",
    "defence_params": np.nan,
    "obfuscation": "none",
}


def read_study_table(path: Path | str) -> pd.DataFrame:
    """One of `tables/` or of its parts, with the names that older versions had for columns and services made new."""
    table = read_table(path).replace(_OLDER_COVER, regex=True)
    if "defence" in table and "defence_params" not in table:
        table = table.rename(columns={"defence": "obfuscation"}).replace(
            {"params": {r"\bdecoys=": "cover="}}, regex=True
        )
    if "width" in table and "attack" in table and "threat" not in table:
        return _with_fineness_threat(table)
    if "threat" not in table or "obfuscation" not in table:
        return table
    parts = pd.DataFrame({name: table.get(name, absent) for name, absent in _PARTS.items()}, index=table.index)
    rest = table.drop(columns=[name for name in _PARTS if name in table])
    place = list(rest.columns).index("knows" if "knows" in rest else "threat") + 1
    return pd.concat([rest.iloc[:, :place], parts, rest.iloc[:, place:]], axis=1)


def _with_fineness_threat(table: pd.DataFrame) -> pd.DataFrame:
    """The tables on fineness, once there was one threat for each number of images and no ceiling of the evidence."""
    threats = [f"layer-{row.keep:g}-{row.images}-none" for row in table.itertuples()]
    table.insert(list(table.columns).index("attack") + 1, "threat", threats)
    if "column_accuracy" in table and "own_evidence" not in table:
        place = list(table.columns).index("column_accuracy") + 1
        for name in ("own_evidence_of_chance", "own_evidence"):
            table.insert(place, name, np.nan)
    return table
