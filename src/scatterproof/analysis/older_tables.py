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
    missing = [] if "attack" not in table or "knows" not in table else [name for name in _PARTS if name not in table]
    for name in missing:
        table.insert(list(table.columns).index("knows") + 1 + list(_PARTS).index(name), name, _PARTS[name])
    return table
