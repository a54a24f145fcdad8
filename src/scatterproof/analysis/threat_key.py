"""The key by which rows of one threat are kept apart from those of another, whatever part the two differ in.

Every table and figure that is grouped by threats is grouped by this key, made of the threat's name, and never by a list
of the parts that its writer knew of. Imports no torch.
"""

import re

import pandas as pd

from scatterproof.config.threat import Part, parts_of, rest_of

KEY = "threat_key"


def with_key(table: pd.DataFrame, *but: Part) -> pd.DataFrame:
    """A table that has `threat` with the column `threat_key`: each threat's name without the parts that the table or
    figure varies over.

    It is text and never NaN. The defence stands first, so that keys without one sort before all others, and whole
    numbers sort as numbers.
    """
    keys = {name: _key(name, but) for name in table["threat"].unique()}
    return table.assign(**{KEY: table["threat"].map(keys)})


def _key(name: str, but: tuple[Part, ...]) -> str:
    defence = "" if "defence" in but else parts_of(name).defence
    key = f"{defence}/{rest_of(name, 'defence', *but)}"
    return re.sub(r"(?<![\d.])\d+", lambda number: number[0].zfill(9), key)


def undefended_first(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each victim as they were, but those of threats without a defence before the others."""
    victims = {name: number for number, name in enumerate(table["victim"].unique())}
    defended = [bool(parts_of(threat).defence) for threat in table["threat"]]
    ranks = pd.DataFrame({"victim": [victims[name] for name in table["victim"]], "defended": defended})
    return table.iloc[ranks.sort_values(["victim", "defended"], kind="stable").index]
