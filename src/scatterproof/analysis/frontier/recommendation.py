"""Which setting of a defence to deploy against each threat, and whether other victims bear it out. Imports no torch.

The cheapest setting that is `bounded` is recommended; where none is, that under which the pirate ends with least among
those `not broken yet`, by the upper end of the interval. Whoever takes the best of many settings takes luck with it.
So with ten victims or more every second one chooses, and the others confirm; with fewer the words say `unconfirmed`.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from scatterproof.analysis.basis import LEAST, RECIPE
from scatterproof.analysis.frontier.points import COST, frontiers, with_costs
from scatterproof.analysis.verdict import BOUNDED, NOT_YET, UNDECIDED, Cheapest, verdict_table

LEVEL = {NOT_YET: 1, BOUNDED: 2}  # of what may be recommended; a higher one promises more
CLAIM = {1: f"{NOT_YET}: do not rely on it", 2: BOUNDED}
WHOLE_COST = 1.0


def recommended_verdicts(
    attacks: pd.DataFrame, controls: pd.DataFrame, defences: pd.DataFrame, cheapest: Cheapest | None = None
) -> pd.DataFrame:
    """`tables/verdict.csv` with a recommendation in each row of a threat that some defence was tried against.

    attacks, controls, cheapest: as `verdict_table` has them; defences: `tables/defences.csv`.
    """
    verdicts = with_costs(verdict_table(attacks, controls, cheapest), defences)
    choosing, confirming = (with_costs(verdict_table(half, controls, cheapest), defences) for half in _halves(attacks))
    said = verdicts["recommendation"].astype(object)
    for rows in frontiers(verdicts):
        names = list(rows["threat"])
        said[rows.index] = _words(rows, *(_same(half, rows, names) for half in (choosing, confirming)))
    return verdicts.assign(recommendation=said).drop(columns=COST)


def recommendations(verdicts: pd.DataFrame) -> Iterator[tuple[Any, str]]:
    """A row of each threat that has a recommendation, that without a defence if there is one, and the recommendation.

    verdicts: `verdict.csv`, of an earlier study without that column, too.
    """
    if "recommendation" in verdicts and verdicts["recommendation"].notna().any():
        for rows in frontiers(verdicts):
            first = next(_rows(rows.sort_values("defence", key=lambda names: names != "none", kind="stable")))
            yield first, str(first.recommendation)


def in_brief(recommendation: str) -> str:
    """What to set, what that promises and whether other victims bear it out: `home (share=1): bounded; unconfirmed`."""
    setting, _, rest = recommendation.partition(": ")
    if setting == "none":
        return setting
    promised, confirmed, *_ = rest.split("; ")
    return f"{setting}: {promised.partition(':')[0]}; {confirmed.split(':')[0].split()[0]}"


def _halves(attacks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of every second seed of each victim, and those of the others; none where a half would decide nothing."""
    place = pd.Series(-1, attacks.index)
    for _, rows in attacks.groupby("victim", sort=False):
        seeds = sorted(rows["victim_seed"].unique())
        if len(seeds) >= 2 * LEAST[RECIPE]:
            place[rows.index] = rows["victim_seed"].map({seed: number % 2 for number, seed in enumerate(seeds)})
    return attacks[place == 0], attacks[place == 1]


def _same(half: pd.DataFrame, rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The half's rows of the same victim, block size and threats."""
    first = rows.iloc[0]
    here = (half["victim"] == first["victim"]) & (half["block_size"] == first["block_size"])
    matching: pd.DataFrame = half[here & (half["layer"] == first["layer"]) & half["threat"].isin(names)]
    return matching


def _words(rows: pd.DataFrame, choosing: pd.DataFrame, confirming: pd.DataFrame) -> str:
    """The recommendation in words; rows: the verdicts on all victims."""
    pick = _best(choosing)
    if pick is None:
        pick = _best(rows)
        if pick is None:
            return f"none: no setting is {BOUNDED} or {NOT_YET}"
        return _said(pick, LEVEL[pick.verdict], "unconfirmed: judged on the victims that chose it")
    everyone, others = (next(_rows(each[each["threat"] == pick.threat])) for each in (rows, confirming))
    chose = f"none: {_setting(pick)} is {pick.verdict} on the {pick.seeds} victims that chose it, and"
    if everyone.verdict not in LEVEL:
        return f"{chose} {everyone.verdict} on all {everyone.seeds}"
    if others.verdict == UNDECIDED:
        level = min(LEVEL[pick.verdict], LEVEL[everyone.verdict])
        return _said(everyone, level, f"unconfirmed: undecided on {others.seeds} victims that did not choose it")
    if others.verdict not in LEVEL:
        return f"{chose} {others.verdict} on {others.seeds} others"
    level = min(LEVEL[row.verdict] for row in (pick, everyone, others))
    return _said(others, level, f"confirmed on {others.seeds} victims that did not choose it")


def _best(rows: pd.DataFrame) -> Any:
    """The row to recommend, or None."""
    defended = rows[rows["defence"] != "none"]
    bounded = defended[defended["verdict"] == BOUNDED].sort_values([COST, "ends_with_high"], kind="stable")
    least = defended[defended["verdict"] == NOT_YET].sort_values(["ends_with_high", COST], kind="stable")
    return next(_rows(bounded if len(bounded) else least), None)


def _said(row: Any, level: int, confirmed: str) -> str:
    ends = f"{100 * row.ends_with:.1f} [{100 * row.ends_with_low:.1f}, {100 * row.ends_with_high:.1f}]"
    return (
        f"{_setting(row)}: {CLAIM[level]}; {confirmed}; {_cost(getattr(row, COST))}; "
        f"the pirate ends with {ends} of {100 * row.victim_accuracy:.1f} %"
    )


def _setting(row: Any) -> str:
    parameters = "" if pd.isna(row.defence_params) else str(row.defence_params)
    return f"{row.defence} ({parameters})" if parameters else str(row.defence)


def _cost(share: float) -> str:
    """What the trusted party does of the cheapest exact form of the layer."""
    if pd.isna(share):
        return "at an unknown cost"
    if share >= WHOLE_COST:
        return "at the cost of the whole layer or more"
    return f"at {100 * share:.3g} % of the layer's operations" if share else "at no cost to a trusted party"


def _rows(frame: pd.DataFrame) -> Any:
    return frame.itertuples(index=False)
