"""Numbers as text, and how the report names victims, blocks and attacks."""

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from markupsafe import Markup

from scatterproof.analysis.control_results import marked
from scatterproof.analysis.threat_key import KEY
from scatterproof.report.threat_words import defended

CORRECTIONS = {
    "none": "missing blocks left empty",
    "scale": "rescaled by the share held",
    "mean": "mean of missing blocks added",
}


def number(value: Any, digits: int = 4) -> str:
    """A number with so many digits, thousands apart; whole numbers in full; empty if unknown."""
    if pd.isna(value):
        return ""
    value = float(value)
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= 1e-3:
        return f"{value:,.{digits}g}"
    digits_part, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{digits_part}e{int(exponent)}"


def minutes(value: Any) -> str:
    """Minutes with three digits; empty if unknown."""
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def percent(share: Any) -> str:
    """A share as `39.1 %`; empty if unknown."""
    return "" if pd.isna(share) else f"{100 * share:.1f} %"


def points(share: float) -> str:
    """A difference of shares in points of percent, with its sign."""
    return f"{100 * share:+.1f}"


def interval(value: float, low: float, high: float, text: Callable[[float], str] = number) -> str:
    """`value [low, high]`; without the brackets where there is no interval, empty if unknown."""
    if pd.isna(value):
        return ""
    return text(value) if pd.isna(low) else f"{text(value)} [{text(low)}, {text(high)}]"


def percent_interval(row: Any, column: str) -> str:
    """`39.1 % [37.0, 41.2]` of a row with ci_low and ci_high; empty without a row."""
    if row is None:
        return ""
    bounds = "" if pd.isna(row.ci_low) else f" [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
    return percent(getattr(row, column)) + bounds


def threshold_text(row: Any, least: float, most: float, chance: bool = False) -> str:
    """A threshold with its interval; `at most` the least share measured, `> ` the most if it was not reached.

    `chance`: there is none, as half of the accuracy is no more than chance.
    """
    if chance:
        return "none: half of the accuracy is no more than chance"
    if pd.isna(row.keep):
        return f"> {100 * most:g} %, not reached"
    if row.keep <= least:
        return f"at most {100 * least:g} %"
    if pd.isna(row.ci_low):
        return percent(row.keep)
    low = f"≤ {100 * least:g}" if row.ci_low <= least else f"{100 * row.ci_low:.1f}"
    high = f"> {100 * most:g}" if pd.isna(row.ci_high) else f"{100 * row.ci_high:.1f}"
    return f"{percent(row.keep)} [{low}, {high}]"


def victim_label(victim: str) -> str:
    """A victim's name in words: `copy_free` reads `copy free`."""
    return victim.replace("_", " ")


def side(block_size: Any) -> str:
    """A block's size as `16 x 16`."""
    return f"{block_size:g} x {block_size:g}"


def cut(victim: Any, block_size: Any, threat: str = "") -> str:
    """Whose blocks, and how large: `copy free, blocks of 16 x 16`; under a threat to all dense layers, or with a
    defence, it says so."""
    return whole_cut(victim, block_size, threat) + (defended(threat) if threat else "")


def whole_cut(victim: Any, block_size: Any, threat: str = "") -> str:
    """Likewise, without a word on defences."""
    what = "all dense layers in " if threat.startswith("dense") else ""
    return f"{victim_label(str(victim))}, {what}blocks of {side(block_size)}"


def setting(victim: Any, block_size: Any, keep: Any, threat: str = "") -> str:
    """What a percentage is of: `copy free, blocks of 16 x 16, 25 % of them held`; likewise."""
    return f"{cut(victim, block_size, threat)}, {share(keep)} of them held"


def held(threat: str, keep: Any) -> str:
    """The share of the blocks held, and of what."""
    return f"all dense layers, {share(keep)}" if threat.startswith("dense") else share(keep)


def share(keep: Any) -> str:
    """A share that the study sets, as `25 %`."""
    return f"{100 * float(keep):g} %"


def seeds(count: int) -> str:
    """Over what a mean was taken."""
    return "One victim." if count == 1 else f"Mean of {count} victims."


def in_red(text: str, red: bool = True) -> str:
    """A part of the page in red and bold: what a reader must not miss."""
    return Markup('<b class="alarm">{}</b>').format(text) if red else text


def attack_label(row: Any) -> str:
    """An attack's name with its mark; row: of a table as `with_controls` gives it."""
    return marked(str(row.attack), str(row.control))


def cases(frame: pd.DataFrame) -> list[tuple[str, int]]:
    """Each victim and block size of a table, in order: victims as `names` has them."""
    pairs = frame[["victim", "block_size"]].drop_duplicates().itertuples(index=False)
    return sorted(((str(name), int(size)) for name, size in pairs), key=lambda case: (case[0] != "victim", *case))


def of_case(frame: pd.DataFrame, case: tuple[str, int]) -> pd.DataFrame:
    """The rows of one victim and block size."""
    return frame[(frame["victim"] == case[0]) & (frame["block_size"] == case[1])]


def threat_cases(frame: pd.DataFrame) -> Iterator[tuple[str, int, str, pd.DataFrame]]:
    """Victim, block size, a threat and the rows of each key of a table as `with_key` gives it, in order; the threat is
    any one of the key's, for words."""
    for case in cases(frame):
        for _, rows in of_case(frame, case).groupby(KEY, sort=True):
            yield *case, str(rows["threat"].iloc[0]), rows


def names(frame: pd.DataFrame) -> list[str]:
    """The victims of a table: `victim` first, then the controls by name."""
    return sorted({str(name) for name in frame["victim"]}, key=lambda name: (name != "victim", name))


def in_order(frame: pd.DataFrame, block_size: int) -> pd.DataFrame:
    """The rows with `victim` before the controls and the main block size before the others, else as they were."""
    ranks = frame.assign(control=frame["victim"] != "victim", other=frame["block_size"] != block_size)
    return frame.loc[ranks.sort_values(["control", "victim", "other", "block_size"], kind="stable").index]
