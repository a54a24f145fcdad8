"""Tables of a study as they are written now, also where an older version wrote them. Imports no torch."""

from pathlib import Path

import numpy as np
import pandas as pd

from scatterproof.running.files import read_table

# Once `defence` named what hides the traffic, `decoys` its cover
_OLDER_COVER = {"threat": {r"(\+stream-.*)\bdecoys=": r"\1cover="}}


def read_study_table(path: Path | str) -> pd.DataFrame:
    """One of `tables/` or of its parts, with the names that older versions had for columns and services made new."""
    table = read_table(path).replace(_OLDER_COVER, regex=True)
    if "defence" not in table or "obfuscation" in table:
        return table
    table = table.rename(columns={"defence": "obfuscation"}).replace({"params": {r"\bdecoys=": "cover="}}, regex=True)
    if "threat" in table:
        place = list(table.columns).index("obfuscation")
        table.insert(place, "defence", "none")
        table.insert(place + 1, "defence_params", np.nan)  # as an empty field is read
    return table
