"""Attacks against retraining in words: which is cheaper to which level, and the talk's '27x' at our own costs."""

from typing import Any

import numpy as np
import pandas as pd

from scatterproof.cost.ledger import retraining_minutes
from scatterproof.cost.retraining import SOURCES, candidates
from scatterproof.report.searches import FITNESS, label
from scatterproof.report.words import minutes, number, victim_label

TABLE_HEAD = (
    *("victim", "blocks held", "level", "cheapest attack", "its minutes", "runs that reached it"),
    *("own recipe", "cheapest recipe tried", "pirate's images alone"),
    *("attack over own recipe", "over cheapest recipe", "over pirate's images"),
)

_TALK_SEARCH = {"victim": "victim", "attack": "genetic", "fitness": "accuracy", "population": 100, "images": 100}


def cells(breakeven: pd.DataFrame) -> list[dict[str, Any]]:
    """One for each victim, share held and level: the cheapest attack's row and that of each curve of retraining, None
    where nothing reached it. A curve is on the attack's device, on the victim's if no attack reached the level."""
    table = breakeven.fillna({"threat": "", "params": ""})
    found = []
    for victim, own in table.groupby("victim", sort=True):
        attacks = own[own["what"] == "attack"]
        for keep in sorted(attacks["keep"].unique()):
            for level, at in own.groupby("level", sort=True):
                best = _least(at[(at["what"] == "attack") & (at["keep"] == keep)])
                curves = {source: _least(_on(candidates(at, source), best)) for source in SOURCES}
                tried = {source: bool((at["what"] == source).any()) for source in SOURCES}
                same = {source: len(_on(candidates(at, source), best)) > 0 for source in SOURCES}
                about = {"victim": victim, "keep": keep, "level": level, "attack": best}
                found.append({**about, **curves, "tried": tried, "same": same})
    return found


def _on(rows: pd.DataFrame, attack: Any) -> pd.DataFrame:
    return rows if attack is None else rows[rows["device"] == attack.device]


def _least(rows: pd.DataFrame) -> Any:
    """The row of fewest minutes; None where nothing reached the level."""
    known = rows.dropna(subset=["minutes"]).sort_values(["minutes", "name", "params"])
    return next(known.head(1).itertuples(index=False), None)


def table_rows(breakeven: pd.DataFrame) -> list[tuple[str, ...]]:
    """The report's table, as text: a row for each victim, share held and level."""
    return [
        (
            *(victim_label(cell["victim"]), f"{100 * cell['keep']:g} %", f"{100 * cell['level']:g} %"),
            *_attack_cells(cell["attack"]),
            *(_training_cell(cell, source) for source in SOURCES),
            *(_ratio(cell["attack"], column) for column in ("over_retraining", "over_recipe", "over_pirate")),
        )
        for cell in cells(breakeven)
    ]


def _attack_cells(attack: Any) -> tuple[str, ...]:
    if attack is None:
        return "none", "", ""
    return _name(attack), _minutes(attack), f"{attack.reached} of {attack.runs}"


def _training_cell(cell: dict[str, Any], source: str) -> str:
    training = cell[source]
    if training is None or not cell["tried"][source]:
        return _WHY_NOT[_outcome(cell, source)]
    return f"{_name(training)}: {_minutes(training)}"


def _name(row: Any) -> str:
    """An attack or a training in words."""
    params = dict(part.split("=") for part in str(row.params).split())
    if row.what == "attack":
        name = f"{label(row.name, params.get('population', ''))} by {FITNESS[params['fitness']]}"
    else:
        name = "the own recipe" if row.name == "own" else f"'{row.name}'"
    if row.what in ("attack", "pirate"):
        name += f" on {number(int(params['images']))} images"
    return name


def _minutes(row: Any) -> str:
    if pd.isna(row.ci_low):
        return minutes(row.minutes)
    high = "open" if pd.isna(row.ci_high) else minutes(row.ci_high)
    return f"{minutes(row.minutes)} [{minutes(row.ci_low)}, {high}]"


def _ratio(attack: Any, column: str) -> str:
    return "" if attack is None else number(getattr(attack, column), 2)


def sentences(breakeven: pd.DataFrame) -> list[str]:
    """Which attack is cheaper than which retraining to which level, or that none is; for each victim, share, curve."""
    found = cells(breakeven)
    if not found:
        return ["No attack was made: there is nothing to set against retraining."]
    outcomes = [(cell, source, _outcome(cell, source)) for cell in found for source in SOURCES]
    shown = [outcome for _, _, outcome in outcomes if outcome == "cheaper"]
    texts = [
        "No attack is shown to be cheaper than any of these trainings to any level."
        if not shown
        else f"In {len(shown)} of {len(outcomes)} comparisons below an attack is shown to be cheaper: its interval "
        "lies below that of the training."
    ]
    for victim, keep in dict.fromkeys((cell["victim"], cell["keep"]) for cell in found):
        for source, curve in SOURCES.items():
            mine = [
                (cell, outcome)
                for cell, at, outcome in outcomes
                if (cell["victim"], cell["keep"], at) == (victim, keep, source)
            ]
            parts = [_part(outcome, mine, source) for outcome in _WORDS]
            said = "; ".join(part for part in parts if part)
            texts.append(f"{victim_label(victim)}, {100 * keep:g} % of the blocks held, against {curve}: {said}.")
    return texts


_WORDS = {
    "cheaper": "an attack is cheaper to {}",
    "open": "attack and training are not told apart to {}",
    "dearer": "every attack is dearer to {}",
    "alone": "only an attack reached {}",
    "no attack": "no attack reached {}",
    "neither": "neither reached {}",
    "elsewhere": "minutes of different devices are not compared, to {}",
    "untried": "there was no such training",
}
_WHY_NOT = {"untried": "not tried", "elsewhere": "on another device", "alone": "not reached", "neither": "not reached"}


def _outcome(cell: dict[str, Any], source: str) -> str:
    """What the comparison of the cheapest attack with a curve of retraining at one level says: a key of `_WORDS`."""
    attack, training = cell["attack"], cell[source]
    if not cell["tried"][source]:
        return "untried"
    if attack is None:
        return "neither" if training is None else "no attack"
    if training is None:
        return "alone" if cell["same"][source] else "elsewhere"
    if attack.ci_low > _high(training):
        return "dearer"
    return "cheaper" if _high(attack) < training.ci_low else "open"


def _high(row: Any) -> float:
    """The upper end of the interval; infinite where it is open, or where there is no interval."""
    return np.inf if pd.isna(row.ci_high) else float(row.ci_high)


def _part(outcome: str, mine: list[tuple[dict[str, Any], str]], source: str) -> str:
    """The levels of one outcome, with the numbers of the one that is closest to turning; empty if there are none."""
    here = [cell for cell, found in mine if found == outcome]
    if not here:
        return ""
    text = _WORDS[outcome].format(_levels([cell["level"] for cell in here]))
    if outcome in ("cheaper", "open", "dearer"):
        cell = here[-1] if outcome == "cheaper" else here[0]
        text += (
            f" ({100 * cell['level']:g} %: {_name(cell['attack'])} in {_minutes(cell['attack'])} minutes, "
            f"{_name(cell[source])} in {_minutes(cell[source])})"
        )
    return text


def _levels(levels: list[float]) -> str:
    return ", ".join(f"{100 * level:g}" for level in levels) + " %"


def talk_costs(search: pd.DataFrame | None, victims: pd.DataFrame) -> list[dict[str, float | str]]:
    """The talk's search at our own cost, for each share of blocks held that it was run with, most evaluations first.

    A genetic search of 100 by accuracy on 100 images: `seconds` of one evaluation, set-up included; `training`, minutes
    of one victim on the same device (NaN if none); `runs` and `budget` that it rests on.
    """
    if search is None:
        return []
    rows = search[np.logical_and.reduce([search[key] == value for key, value in _TALK_SEARCH.items()])]
    found: list[dict[str, float | str]] = []
    for (keep, device), here in rows.groupby(["keep", "device"], sort=True):
        here = here[here["budget"] == here["budget"].max()]
        ends = here.sort_values("evaluations").groupby(["victim_seed", "seed"]).tail(1)
        trained = retraining_minutes(victims[victims["device"] == device])
        found.append(
            {
                "keep": float(str(keep)),
                "device": str(device),
                "seconds": float((60 * ends["device_minutes"] / ends["evaluations"]).mean()),
                "training": trained if trained > 0 else np.nan,
                "runs": len(ends),
                "budget": float(ends["budget"].iloc[0]),
            }
        )
    return found


def talk_sentences(costs: list[dict[str, Any]], theory: pd.DataFrame) -> list[str]:
    """The talk's '27x' at our own costs."""
    evaluations, talk_seconds = (_talk(theory)[key]["value"] for key in ("evaluations", "seconds_per_evaluation"))
    if not costs:
        return ["The talk's search, genetic with a population of 100 by accuracy on 100 images, was not made here."]
    parts = []
    for cost in costs:
        spent, trained = cost["seconds"] * evaluations / 60, cost["training"]
        part = (
            f"with {100 * cost['keep']:g} % of the blocks held {number(cost['seconds'], 2)} s ({cost['runs']:g} runs "
            f"of {number(cost['budget'])}), so that {number(evaluations)} take {minutes(spent)} minutes"
        )
        if trained > 0:
            part += f", {number(spent / trained, 2)}x the {minutes(trained)} of training one victim on the same device"
        parts.append(part)
    return [
        f"The talk's evaluation takes {number(talk_seconds)} s. Ours, of the same search (genetic, population 100, by "
        f"accuracy on 100 images, set-up included), takes {'; '.join(parts)}. That is a cost, not what it buys: "
        "how far the search gets is said where the searches are."
    ]


def talk_rows(costs: list[dict[str, Any]], theory: pd.DataFrame) -> list[tuple[str, ...]]:
    """The talk's cost claim beside ours: text for `talk_head`."""
    talk = _talk(theory)
    evaluations = talk["evaluations"]["value"]
    spent = [cost["seconds"] * evaluations / 60 for cost in costs]
    trained = [cost["training"] for cost in costs]
    ratios = [mine / own for mine, own in zip(spent, trained, strict=True)]
    claim = talk["cost_over_retraining"]
    hours = talk["retraining_gpu_hours"]
    return [
        ("evaluations", *_both(talk["evaluations"]), *(number(evaluations) for _ in costs)),
        (
            *("seconds for each", *_both(talk["seconds_per_evaluation"])),
            *(number(cost["seconds"], 2) for cost in costs),
        ),
        ("minutes of the search", *_both(talk["attack_gpu_minutes"]), *map(minutes, spent)),
        (
            *("minutes of training", minutes(60 * hours["reported"]), minutes(60 * hours["value"])),
            *map(minutes, trained),
        ),
        (
            *("search over training", f"{claim['reported']:g}x", f"{claim['value']:.1f}x"),
            *(f"{number(ratio, 2)}x" if ratio > 0 else "" for ratio in ratios),
        ),
    ]


def talk_head(costs: list[dict[str, Any]]) -> tuple[str, ...]:
    """The head of `talk_rows`."""
    ours = (f"measured here, {100 * cost['keep']:g} % held ({cost['device']})" for cost in costs)
    return ("quantity", "the talk says", "follows from the talk's figures (RTX 4060)", *ours)


def _both(row: dict[str, float]) -> tuple[str, str]:
    return number(row["reported"]), number(row["value"])


def _talk(theory: pd.DataFrame) -> dict[str, dict[str, float]]:
    rows = theory.drop_duplicates("quantity").set_index("quantity")[["value", "reported"]]
    return {str(quantity): {str(key): float(value) for key, value in row.items()} for quantity, row in rows.iterrows()}
