"""Attacks against retraining in words: which is cheaper to which level."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from scatterproof.analysis.breakeven import OVER, SOURCES, candidates
from scatterproof.analysis.control_results import has_failed
from scatterproof.analysis.threat_key import KEY, with_key
from scatterproof.config.threat import granted_knowledge
from scatterproof.report.input_words import inputs
from scatterproof.report.sections.attacks import OF_LINE
from scatterproof.report.sections.searches import FITNESS, label
from scatterproof.report.table import DEFENCE
from scatterproof.report.threat_words import besides, defence_words, granted
from scatterproof.report.words import cut, held, minutes, number, setting, share, side, victim_label

_WORDS = {
    "cheaper": "an attack is cheaper to {}",
    "open": "attack and training are not told apart to {}",
    "dearer": "the cheapest attack is dearer to {}",
    "alone": "only an attack reached {}",
    "no attack": "no attack reached {}",
    "neither": "neither reached {}",
    "elsewhere": "such trainings ran on another device, and minutes of different devices are not compared",
    "untried": "there was no such training",
}
MAIN = ("level", "cheapest attack", "its minutes", "own recipe", "attack over own recipe")
_WHY_NOT = {"untried": "not tried", "elsewhere": "on another device", "alone": "not reached", "neither": "not reached"}


@dataclass(frozen=True)
class Comparison:
    """The cheapest attack on a victim against a curve of retraining, to one level on one device.

    whose: the victim, and the device where attacks on it ran on several; threat: one of those compared, which differ in
    images and what is known of them alone; attack, training: rows of `tables/breakeven.csv`, None where nothing reached
    the level; no attack whose control failed; outcome: a key of `_WORDS`.
    """

    whose: str
    block_size: int
    keep: float
    threat: str
    level: float
    source: str
    attack: Any
    training: Any
    outcome: str


def comparisons(breakeven: pd.DataFrame) -> list[Comparison]:
    """Every victim, device, block size, threat whatever its images, level and curve of retraining, in this order.

    breakeven: as `with_controls` gives it.
    """
    table = breakeven.fillna({"threat": "", "params": ""})
    compared = []
    for victim, own in table.groupby("victim", sort=True):
        attacks = own[own["what"] == "attack"]
        several = len(attacks["device"].unique()) > 1
        of = ["device", "block_size", KEY, "keep"]
        for (device, size, _, keep), kinds in with_key(attacks, *OF_LINE).groupby(of, sort=True):
            threat = str(kinds["threat"].iloc[0])
            whose = victim_label(str(victim)) + (f" on {device}" if several else "")
            for level, at in kinds.groupby("level", sort=True):
                attack, there = _least(at[~has_failed(at["control"])]), own[own["level"] == level]
                for source in SOURCES:
                    trainings = candidates(there, source)
                    same = trainings[trainings["device"] == device]
                    outcome = _outcome(attack, source, trainings, same)
                    place = whose, int(str(size)), float(str(keep)), threat, float(str(level)), source
                    compared.append(Comparison(*place, attack, _least(same), outcome))
    return compared


def left_out(breakeven: pd.DataFrame) -> list[str]:
    """For each victim and block size the attacks that are left out, as a control of theirs failed."""
    wrong = breakeven[has_failed(breakeven["control"])]
    texts = []
    of = ["victim", "block_size", KEY]
    for (victim, size, _), rows in with_key(wrong, *OF_LINE).groupby(of, sort=True):
        attacks = sorted({_name(row) for row in rows.fillna({"params": ""}).itertuples(index=False)})
        threat = rows["threat"].iloc[0]
        texts.append(
            f"{cut(victim, size, threat)}{besides(threat)}: left out of these comparisons: {', '.join(attacks)}."
        )
    return texts


def _least(rows: pd.DataFrame) -> Any:
    """The row of fewest minutes; None where nothing reached the level."""
    known = rows.dropna(subset=["minutes"]).sort_values(["minutes", "name", "params"])
    return next(known.head(1).itertuples(index=False), None)


def _outcome(attack: Any, source: str, trainings: pd.DataFrame, same: pd.DataFrame) -> str:
    """What the comparison says; trainings: of the curve at the level, on any device; same: those on the attack's."""
    if not (trainings["what"] == source).any():  # the own recipe alone is no cheapest of several
        return "untried"
    if same.empty:
        return "elsewhere"
    training = _least(same)
    if attack is None or training is None:
        return "alone" if attack is not None else "no attack" if training is not None else "neither"
    if attack.ci_low > _high(training):
        return "dearer"
    return "cheaper" if _high(attack) < training.ci_low else "open"


def _high(row: Any) -> float:
    """The upper end of the interval; infinite where it is open, or where there is no interval."""
    return np.inf if pd.isna(row.ci_high) else float(row.ci_high)


def sentences(breakeven: pd.DataFrame) -> list[str]:
    """Which attack is cheaper than which retraining to which level, or that none is; for each victim, share, curve."""
    compared = comparisons(breakeven)
    if not compared:
        return ["No attack was made: there is nothing to set against retraining here."]
    cheaper = sum(each.outcome == "cheaper" for each in compared)
    texts = [
        f"In {cheaper} of {len(compared)} comparisons below an attack is shown to be cheaper: its interval lies below "
        "that of the training."
        if cheaper
        else "No attack is shown to be cheaper than any of these trainings to any level."
    ]
    by_curve: dict[tuple[str, int, float, str, str], list[Comparison]] = {}
    for each in compared:
        by_curve.setdefault((each.whose, each.block_size, each.keep, each.threat, each.source), []).append(each)
    for (whose, size, keep, threat, source), mine in by_curve.items():
        parts = [_part(outcome, [each for each in mine if each.outcome == outcome]) for outcome in _WORDS]
        said = "; ".join(part for part in parts if part)
        against = SOURCES[source].format(inputs())
        texts.append(f"{setting(whose, size, keep, threat)}{besides(threat)}, against {against}: {said}.")
    return [*texts, *left_out(breakeven)]


def _part(outcome: str, here: Sequence[Comparison]) -> str:
    """The levels of one outcome, with the numbers of the one that is closest to turning; empty if there are none."""
    if not here:
        return ""
    levels = ", ".join(f"{100 * each.level:g}" for each in here)
    text = _WORDS[outcome].format(f"{levels} %")
    if outcome in ("cheaper", "open", "dearer"):
        each = here[-1] if outcome == "cheaper" else here[0]
        text += (
            f" ({100 * each.level:g} %: {_name(each.attack)} in {_minutes(each.attack)} minutes, "
            f"{_name(each.training)} in {_minutes(each.training)})"
        )
    return text


def table_head() -> tuple[str, ...]:
    """Of `table_rows`."""
    return (
        *("victim", "block size", "blocks held", DEFENCE, "level", "cheapest attack", "its minutes"),
        *("runs that reached it", "own recipe", "cheapest recipe tried", f"pirate's {inputs()} alone"),
        *("attack over own recipe", "over cheapest recipe", f"over pirate's {inputs()}"),
    )


def table_rows(breakeven: pd.DataFrame) -> list[tuple[str, ...]]:
    """The report's table, as text: a row for each comparison's victim, device, block size, threat and level."""
    rows = []
    for (whose, size, keep, threat, level), curves in groupby(
        comparisons(breakeven), lambda each: (each.whose, each.block_size, each.keep, each.threat, each.level)
    ):
        each = list(curves)
        rows.append(
            (
                *(whose, side(size), held(threat, keep) + besides(threat), defence_words(threat), share(level)),
                *_attack_cells(each[0].attack),
                *(_WHY_NOT.get(one.outcome) or f"{_name(one.training)}: {_minutes(one.training)}" for one in each),
                *(_ratio(one) for one in each),
            )
        )
    return rows


def _attack_cells(attack: Any) -> tuple[str, ...]:
    if attack is None:
        return "none", "", ""
    return _name(attack), _minutes(attack), f"{attack.reached} of {attack.runs}"


def _name(row: Any) -> str:
    """An attack or a training in words."""
    params = dict(part.split("=") for part in str(row.params).split())
    if row.what == "attack":
        name = label(row.name, params.get("population", ""), row.control)
        name += f" by {FITNESS[params['fitness']]}" if "fitness" in params else ""
    else:
        name = "the own recipe" if row.name == "own" else f"'{row.name}'"
    if row.what == "attack":
        return f"{name} on {granted(float(params['images']), granted_knowledge(row.threat))}"
    return name + (f" on {granted(float(params['images']), 'labels')}" if row.what == "pirate" else "")


def _minutes(row: Any) -> str:
    if pd.isna(row.ci_low):
        return minutes(row.minutes)
    high = "open" if pd.isna(row.ci_high) else minutes(row.ci_high)
    return f"{minutes(row.minutes)} [{minutes(row.ci_low)}, {high}]"


def _ratio(comparison: Comparison) -> str:
    """Minutes of the attack over those of the training; empty where the two are not compared."""
    if comparison.outcome not in ("cheaper", "open", "dearer"):
        return ""
    return number(getattr(comparison.attack, OVER[comparison.source]), 2)
