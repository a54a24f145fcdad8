"""What the searches reached: the table of the report and its sentences, computed from tables/search.csv."""

from typing import Any

import pandas as pd

from scatterproof.analysis.control_results import has_failed, marked
from scatterproof.analysis.statistics import WITHIN, curve, kinds
from scatterproof.analysis.threat_key import KEY, with_key
from scatterproof.config.threat import Part, granted_knowledge, parts_of
from scatterproof.report.input_words import inputs
from scatterproof.report.table import DEFENCE
from scatterproof.report.threat_words import besides, defence_words, granted, sees, taps
from scatterproof.report.words import held, number, percent, points, setting, side, victim_label

ATTACKS = {
    "genetic": "genetic search",
    "random": "random search",
    "hill_climbing": "hill climbing",
    "annealing": "simulated annealing",
    "reinforce": "PPO",
}
FITNESS = {"accuracy": "accuracy", "loss": "cross-entropy"}
OF_PANEL: tuple[Part, ...] = ("share", "images")  # columns too, as a threat has the images of all runs on it
KIND = ["victim", "block_size", KEY, "threat", "keep", "fitness", "budget"]
KIND += ["attack", "control", "population", "images"]

MAIN = ("search", "fitness", "test accuracy", "gain in points", "minutes")
TALK_EVALUATIONS, LEAST_RUNS = 10_000, 5


def label(attack: str, population: str, state: str) -> str:
    """`genetic search of 100 (no control)`; the attack alone where it has no population and its controls passed."""
    return marked(ATTACKS.get(attack, attack) + (f" of {population}" if population else ""), state)


def aligned(search: pd.DataFrame) -> pd.DataFrame:
    """The same runs at the same evaluations: each carries what it had reached last to every count that another run of
    its kind has, from its own first on. `seed` is renamed `repeat`, as the statistics have it."""
    search = _repeated(search)
    parts = []
    for _, kind in search.groupby(KIND, sort=True):
        counts = sorted(kind["evaluations"].unique())
        for _, run in kind.groupby(["victim_seed", "repeat"], sort=True):
            run = run.sort_values("evaluations").drop_duplicates("evaluations", keep="last")
            parts.append(run.set_index("evaluations").reindex(counts).ffill().dropna(subset=["attack"]).reset_index())
    return pd.concat(parts, ignore_index=True) if parts else search


def _repeated(search: pd.DataFrame) -> pd.DataFrame:
    return with_key(kinds(search), *OF_PANEL).rename(columns={"seed": "repeat"})


def searched(victim: Any, block_size: Any, keep: Any, threat: str) -> str:
    """Whose blocks were searched for, and under which threat, whatever its images; that their labels are known is not
    said, as fitness is on labelled images."""
    known = granted_knowledge(threat)
    knows = "" if known == "labels" else f", {granted(parts_of(threat).images, known)}"
    return f"{setting(victim, block_size, keep, threat)}{knows}{besides(threat)}"


def final(search: pd.DataFrame) -> pd.DataFrame:
    """One row for each kind of search: what it had reached at its last evaluation, on images that it never saw.

    Columns KIND, accuracy, accuracy_low, accuracy_high, gain (over the best of its first generation), gain_low,
    gain_high, fitness_start, fitness_end, evaluations, minutes, runs. Intervals: victim seeds, then runs within each.
    """
    search = _repeated(search)
    run = [*KIND, "victim_seed", "repeat"]
    ordered = search.sort_values([*run, "evaluations"])
    first, last = (ordered.groupby(run, as_index=False).nth(at) for at in (0, -1))
    ends = last.merge(first[[*run, "accuracy", "best_fitness"]], on=run, suffixes=("", "_start"))
    ends["gain"] = ends["accuracy"] - ends["accuracy_start"]
    table = None
    for value in ("accuracy", "gain"):
        means = curve(ends, KIND[:-1], "images", value)[[*KIND, "mean", "ci_low", "ci_high"]]
        means = means.rename(columns={"mean": value, "ci_low": f"{value}_low", "ci_high": f"{value}_high"})
        table = means if table is None else table.merge(means, on=KIND)
    assert table is not None
    about = {
        "fitness_start": ("best_fitness_start", "mean"),
        "fitness_end": ("best_fitness", "mean"),
        "evaluations": ("evaluations", "mean"),
        "minutes": ("device_minutes", "mean"),
        "runs": ("accuracy", "size"),
    }
    return table.merge(ends.groupby(KIND, as_index=False).agg(**about), on=KIND)


def sentences(search: pd.DataFrame, victims: pd.DataFrame, retraining: float) -> list[str]:
    """Is the talk's result reproduced, and what does the loss change? For each victim, threat, fitness and budget."""
    table = final(search)
    tests = len(table)
    texts = [
        f"Each sentence is about searches of one fitness and budget. {tests} kinds of search are compared at once: a "
        f"gain counts as shown where its 95 % interval leaves 0 out, and of {tests} such intervals about "
        f"{number(0.025 * tests, 2)} lie above 0 by luck."
    ]
    of = ["victim", "block_size", KEY, "keep", "fitness", "budget"]
    for (victim, size, _, keep, fitness, budget), rows in table.groupby(of, sort=True):
        own, where = victims[victims["victim"] == victim], searched(victim, size, keep, rows["threat"].iloc[0])
        spent = f"{number(budget)} evaluations by {FITNESS[str(fitness)]}"
        texts.append(f"{where}, {spent}: {_outcome(rows, str(fitness), own)}")
    longest: Any = next(table.sort_values("minutes", ascending=False).itertuples())
    if retraining > 0:
        texts.append(
            f"The longest of these searches, {label(longest.attack, longest.population, longest.control)}, took "
            f"{number(longest.minutes, 3)} minutes for {number(longest.evaluations)} evaluations; training one victim "
            f"takes {number(retraining, 3)}."
        )
    return texts


def _outcome(rows: pd.DataFrame, fitness: str, own: pd.DataFrame) -> str:
    """What searches of one fitness and budget came to."""
    chance, top = float(own["chance"].mean()), float(own["accuracy"].mean())
    highest = rows["accuracy_high"].fillna(rows["accuracy"]).max()
    genetic = rows[rows["attack"] == "genetic"]
    if len(genetic) and _as_in_the_talk(genetic, fitness) and top > chance + 5 * WITHIN:
        reached = genetic["accuracy_high"].fillna(1).max()
        if reached <= chance + WITHIN:
            said = "stays within 2 points of chance: the talk's result is reproduced"
        else:
            said = "does not stay within 2 points of chance as the talk's does"
        name = label("genetic", "", str(genetic["control"].iloc[0]))
        return f"the {name}, with as many evaluations as the talk's, {said}; {_range(genetic)}."
    shown = rows[rows["gain_low"] > 0]
    if highest <= chance + WITHIN:
        return f"every search stays within 2 points of chance ({percent(chance)}); {_range(rows)}."
    if shown.empty:
        unseen = f"on {inputs()} it never saw"
        return f"no search is shown to gain anything {unseen}; {_range(rows)}; chance is {percent(chance)}."
    best = shown[~has_failed(shown["control"])].sort_values("gain", ascending=False).head(3)
    most = ", ".join(
        f"{label(row.attack, row.population, row.control)} on {number(row.images)} {inputs()} {_percent(row)}, "
        f"{_gain(row)} points"
        for row in _tuples(best)
    )
    most = f", most of all {most}" if most else ""
    return (
        f"{len(shown)} of {len(rows)} kinds of search, of {number(rows['runs'].min())} runs or more, gain on "
        f"{inputs()} they never saw{most}. The victim's accuracy is {percent(top)}, chance {percent(chance)}."
    )


def _as_in_the_talk(genetic: pd.DataFrame, fitness: str) -> bool:
    """By accuracy, 10,000 evaluations, and enough runs for an interval."""
    enough = genetic["evaluations"].min() >= TALK_EVALUATIONS and genetic["runs"].min() >= LEAST_RUNS
    return fitness == "accuracy" and bool(enough)


def _range(rows: pd.DataFrame) -> str:
    low, high = rows["accuracy"].min(), rows["accuracy"].max()
    runs = f"{len(rows)} kind{'s' if len(rows) > 1 else ''} of {number(rows['runs'].min())} runs or more"
    if len(rows) == 1:
        return f"test accuracy {_percent(_tuples(rows)[0])}, {runs}"
    return f"test accuracies {percent(low)} to {percent(high)}, {runs}"


def _tuples(rows: pd.DataFrame) -> list[Any]:
    return list(rows.itertuples())


def _percent(row: Any) -> str:
    return f"{percent(row.accuracy)}" + _brackets(100 * row.accuracy_low, 100 * row.accuracy_high, ".1f")


def _gain(row: Any) -> str:
    return points(row.gain) + _brackets(100 * row.gain_low, 100 * row.gain_high, "+.1f")


def _brackets(low: float, high: float, text: str) -> str:
    return "" if pd.isna(low) else f" [{low:{text}}, {high:{text}}]"


def table_rows(search: pd.DataFrame, retraining: float) -> list[tuple[str, ...]]:
    """The report's table, as text: a row for each kind of search."""
    rows: Any = final(search).sort_values(KIND).itertuples()
    return [
        (
            *(
                victim_label(row.victim),
                side(row.block_size),
                held(row.threat, row.keep),
                defence_words(row.threat),
                label(row.attack, row.population, row.control),
            ),
            *(FITNESS[row.fitness], _images(row), _percent(row), _gain(row)),
            *(number(row.fitness_start, 3), number(row.fitness_end, 3)),
            *(number(row.evaluations), number(row.minutes, 3)),
            *(number(row.minutes / retraining, 2) if retraining > 0 else "", number(row.runs)),
        )
        for row in rows
    ]


def _images(row: Any) -> str:
    known = granted_knowledge(row.threat)
    images = number(row.images) if known == "labels" else granted(row.images, known)
    return "; ".join(filter(None, (images, sees(row.threat), taps(row.threat))))


def table_head() -> tuple[str, ...]:
    """Of `table_rows`."""
    return (
        *("victim", "block size", "blocks held", DEFENCE, "search", "fitness", inputs(), "test accuracy"),
        *("gain in points", "fitness at start", "at end", "evaluations", "minutes", "x training one victim", "runs"),
    )
