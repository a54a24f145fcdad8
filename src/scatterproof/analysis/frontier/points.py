"""The frontier: what the pirate is left with under each setting of a defence, beside what the setting costs.

One threat without its defence is one frontier. Its points are no defence, every setting, and the whole layer at the
trusted party, of which no device holds anything. Imports no torch.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.threat_key import KEY, with_key
from scatterproof.config.threat import rest_of

COST = "trusted_flops_share"
NONE, SETTING, WHOLE = "none", "setting", "whole layer"
_CASE = ["study", "layer", "block_size", "victim", KEY]
_SETTING = ["victim", "layer", "block_size", "defence", "defence_params"]


def frontiers(verdicts: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of `verdict.csv`, or of `frontier.csv`, that differ in nothing but the defence, where one was tried."""
    for _, rows in with_key(verdicts, "defence").groupby(_CASE, sort=False):
        if (rows["defence"] != "none").any():
            yield rows.drop(columns=KEY)


def with_costs(verdicts: pd.DataFrame, defences: pd.DataFrame) -> pd.DataFrame:
    """Verdicts with the trusted party's share of operations, the mean over victims; NaN where it was not measured.

    defences: `tables/defences.csv`, whose share is one of the cheapest exact form of the layer.
    """
    plain = {"defence_params": ""}
    costs = defences.fillna(plain).astype({"defence_params": str}).groupby(_SETTING)[COST].mean()
    keys = pd.MultiIndex.from_frame(verdicts.fillna(plain)[_SETTING].astype({"defence_params": str}))
    shares = costs.reindex(keys).to_numpy(dtype=float)
    return verdicts.assign(**{COST: pd.Series(shares, verdicts.index).mask(verdicts["defence"] == "none", 0.0)})


def frontier_table(verdicts: pd.DataFrame, defences: pd.DataFrame) -> pd.DataFrame:
    """`tables/frontier.csv`; verdicts: `verdict.csv`."""
    parts = []
    for rows in frontiers(with_costs(verdicts, defences)):
        points = rows["defence"].map(lambda name: NONE if name == "none" else SETTING)
        parts += [rows.assign(point=points), pd.DataFrame([_whole(rows)])]
    columns = COLUMNS["frontier"]
    return (
        pd.concat([part.reindex(columns=columns) for part in parts], ignore_index=True)
        if parts
        else pd.DataFrame(columns=columns)
    )


def _whole(rows: pd.DataFrame) -> dict[str, Any]:
    """The point that no defence can undercut by giving away less: the pirate is the one without the blocks."""
    first = rows.iloc[0]
    without = float(first["withheld_accuracy"])
    about = {name: first[name] for name in [*COLUMNS["verdict"][:6], "images", "knows", "activations", "requests"]}
    return about | {
        "threat": rest_of(str(first["threat"]), "defence"),
        "defence": "home",
        "defence_params": "",
        "obfuscation": first["obfuscation"],
        "point": WHOLE,
        COST: 1.0,
        "ends_with": without,
        "gain": 0.0,
        "withheld_accuracy": without,
        "victim_accuracy": first["victim_accuracy"],
        "seeds": first["seeds"],
    }
