"""What the searches reached: the table of the report and its sentences, computed from tables/search.csv."""

from typing import Any

import pandas as pd

from scatterproof.report.statistics import WITHIN, curve
from scatterproof.report.words import number, percent, points, victim_label

ATTACKS = {
    "genetic": "genetic search",
    "random": "random search",
    "hill_climbing": "hill climbing",
    "annealing": "simulated annealing",
    "reinforce": "PPO",
}
FITNESS = {"accuracy": "accuracy", "loss": "cross-entropy"}
KIND = ["victim", "threat", "keep", "attack", "fitness", "population", "images"]


def kinds(search: pd.DataFrame) -> pd.DataFrame:
    """The table with population as text, empty where an attack has none, so that it can be grouped by."""
    return search.assign(population=search["population"].map(number))


def label(attack: str, population: str) -> str:
    """`genetic search of 100`, or the attack alone."""
    return ATTACKS.get(attack, attack) + (f" of {population}" if population else "")


def final(search: pd.DataFrame) -> pd.DataFrame:
    """One row for each kind of search: what it had reached at its last evaluation, on images that it never saw.

    Columns KIND, accuracy, accuracy_low, accuracy_high, gain (over the best of its first generation), gain_low,
    gain_high, fitness_start, fitness_end, evaluations, minutes, runs. Intervals: victim seeds, then runs within each.
    """
    search = kinds(search).rename(columns={"seed": "repeat"})
    run = [*KIND, "victim_seed", "repeat"]
    ordered = search.sort_values([*run, "evaluations"])
    first, last = (ordered.groupby(run, as_index=False).nth(at) for at in (0, -1))
    ends = last.merge(first[[*run, "accuracy", "best_fitness"]], on=run, suffixes=("", "_start"))
    ends["gain"] = ends["accuracy"] - ends["accuracy_start"]
    found = None
    for value in ("accuracy", "gain"):
        means = curve(ends, KIND[:-1], "images", value)[[*KIND, "mean", "ci_low", "ci_high"]]
        means = means.rename(columns={"mean": value, "ci_low": f"{value}_low", "ci_high": f"{value}_high"})
        found = means if found is None else found.merge(means, on=KIND)
    assert found is not None
    about = {
        "fitness_start": ("best_fitness_start", "mean"),
        "fitness_end": ("best_fitness", "mean"),
        "evaluations": ("evaluations", "mean"),
        "minutes": ("device_minutes", "mean"),
        "runs": ("accuracy", "size"),
    }
    return found.merge(ends.groupby(KIND, as_index=False).agg(**about), on=KIND)


def sentences(search: pd.DataFrame, victims: pd.DataFrame, retraining: float) -> list[str]:
    """Is the talk's result reproduced, and what does the loss change? A sentence for each victim, share and fitness."""
    found = final(search)
    texts = []
    for (victim, keep, fitness), rows in found.groupby(["victim", "keep", "fitness"], sort=True):
        chance = float(victims[victims["victim"] == victim]["chance"].mean())
        own = float(victims[victims["victim"] == victim]["accuracy"].mean())
        where = f"{victim_label(str(victim))}, {100 * float(str(keep)):g} % of the blocks held"
        genetic = rows[rows["attack"] == "genetic"]
        if len(genetic):
            texts.append(f"{where}: {_genetic(genetic, str(fitness), chance, own)}")
        others: Any = rows[rows["attack"] != "genetic"].sort_values("accuracy", ascending=False)
        if len(others):
            best = next(others.itertuples())
            texts.append(
                f"{where}: of the other searches by {FITNESS[str(fitness)]}, {label(best.attack, '')} ended highest, "
                f"at {_percent(best)} on {number(best.images)} images, a gain of {_gain(best)} points over its start."
            )
    longest: Any = next(found.sort_values("minutes", ascending=False).itertuples())
    if retraining > 0:
        texts.append(
            f"The longest of these searches took {number(longest.minutes, 3)} minutes for "
            f"{number(longest.evaluations)} evaluations; training one victim takes "
            f"{number(retraining, 3)}. The talk's 5,000 GPU-minutes for 10,000 evaluations are its evaluation's cost, "
            "not the search's."
        )
    return texts


def _genetic(rows: pd.DataFrame, fitness: str, chance: float, own: float) -> str:
    best: Any = next(rows.sort_values("accuracy", ascending=False).itertuples())
    stuck = rows["accuracy_high"].fillna(rows["accuracy"]).max() <= chance + WITHIN
    if stuck:
        verdict = "stays within 2 points of chance: the talk's result is reproduced"
    elif best.gain_low > 0:
        verdict = "leaves its start behind on images it never saw"
    else:
        verdict = "is not shown to gain anything on images it never saw"
    return (
        f"the genetic search by {FITNESS[fitness]} {verdict}. At its best (population {best.population}, "
        f"{number(best.images)} images) it reaches {_percent(best)} of the victim's {percent(own)}, a gain of "
        f"{_gain(best)} points over its first generation; chance is {percent(chance)}."
    )


def _percent(row: Any) -> str:
    return f"{percent(row.accuracy)}" + _brackets(100 * row.accuracy_low, 100 * row.accuracy_high, ".1f")


def _gain(row: Any) -> str:
    return points(row.gain) + _brackets(100 * row.gain_low, 100 * row.gain_high, "+.1f")


def _brackets(low: float, high: float, text: str) -> str:
    return "" if pd.isna(low) else f" [{low:{text}}, {high:{text}}]"


def table_rows(search: pd.DataFrame, retraining: float) -> list[tuple[str, ...]]:
    """The report's table, as text: a row for each kind of search."""
    rows: Any = final(search).sort_values(["victim", "keep", "fitness", "attack", "population", "images"]).itertuples()
    return [
        (
            *(victim_label(row.victim), f"{100 * row.keep:g} %", label(row.attack, row.population)),
            *(FITNESS[row.fitness], number(row.images), _percent(row), _gain(row)),
            *(number(row.fitness_start, 3), number(row.fitness_end, 3)),
            *(number(row.evaluations), number(row.minutes, 3)),
            *(number(row.minutes / retraining, 2) if retraining > 0 else "", number(row.runs)),
        )
        for row in rows
    ]


TABLE_HEAD = (
    *("victim", "blocks held", "search", "fitness", "images", "test accuracy", "gain in points"),
    *("fitness at start", "at end", "evaluations", "minutes", "x training one victim", "runs"),
)
