"""The talk's '27x' beside our own costs: 10,000 evaluations against training one victim."""

from typing import Any

import numpy as np
import pandas as pd

from scatterproof.analysis.control_results import marked
from scatterproof.analysis.threat_key import KEY, with_key
from scatterproof.cost.ledger import retraining_minutes
from scatterproof.report.input_words import inputs
from scatterproof.report.sections.searches import searched
from scatterproof.report.words import minutes, number

_TALK_SEARCH = {"victim": "victim", "attack": "genetic", "fitness": "accuracy", "population": 100, "images": 100}


def talk_costs(search: pd.DataFrame | None, victims: pd.DataFrame) -> list[dict[str, float | str]]:
    """The talk's search at our own cost, for each block size and threat, from the runs of the most evaluations.

    A genetic search of 100 by accuracy on 100 images: `seconds` of one evaluation, set-up included; `training`, minutes
    of one victim on the same device (NaN if none); `runs` and `budget` that it rests on.
    """
    if search is None:
        return []
    rows = search[np.logical_and.reduce([search[key] == value for key, value in _TALK_SEARCH.items()])]
    costs: list[dict[str, float | str]] = []
    of = ["block_size", KEY, "keep", "device", "control"]
    for (size, _, keep, device, control), here in with_key(rows, "share", "images").groupby(of, sort=True):
        threat = str(here["threat"].iloc[0])
        here = here[here["budget"] == here["budget"].max()]
        ends = here.sort_values("evaluations").groupby(["victim_seed", "seed"]).tail(1)
        trained = retraining_minutes(victims[victims["device"] == device])
        costs.append(
            {
                "setting": searched(_TALK_SEARCH["victim"], size, keep, threat),
                "search": marked("genetic search", str(control)),
                "device": str(device),
                "seconds": float((60 * ends["device_minutes"] / ends["evaluations"]).mean()),
                "training": trained if trained > 0 else np.nan,
                "runs": len(ends),
                "budget": float(ends["budget"].iloc[0]),
            }
        )
    return costs


def talk_sentences(costs: list[dict[str, Any]], theory: pd.DataFrame) -> list[str]:
    """The talk's '27x' at our own costs."""
    evaluations, talk_seconds = (_talk(theory)[key]["value"] for key in ("evaluations", "seconds_per_evaluation"))
    if not costs:
        return [
            f"The talk's search, genetic with a population of 100 by accuracy on 100 {inputs()}, was not made here."
        ]
    parts = []
    for cost in costs:
        spent, trained = cost["seconds"] * evaluations / 60, cost["training"]
        part = (
            f"{number(cost['seconds'], 2)} s ({cost['setting']}: {cost['runs']:g} runs of the {cost['search']} with "
            f"{number(cost['budget'])} evaluations), so that {number(evaluations)} take {minutes(spent)} minutes"
        )
        if trained > 0:
            part += f", {number(spent / trained, 2)}x the {minutes(trained)} of training one victim on the same device"
        parts.append(part)
    return [
        f"The talk's evaluation takes {number(talk_seconds)} s. Ours, of the same search (population 100, by "
        f"accuracy on 100 {inputs()}, set-up included), takes {'; '.join(parts)}. That is a cost, not what it buys: "
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
    ours = (f"measured here, {cost['search']}, {cost['setting']} ({cost['device']})" for cost in costs)
    return ("quantity", "the talk says", "follows from the talk's figures (RTX 4060)", *ours)


def _both(row: dict[str, float]) -> tuple[str, str]:
    return number(row["reported"]), number(row["value"])


def _talk(theory: pd.DataFrame) -> dict[str, dict[str, float]]:
    rows = theory.drop_duplicates("quantity").set_index("quantity")[["value", "reported"]]
    return {str(quantity): {str(key): float(value) for key, value in row.items()} for quantity, row in rows.iterrows()}
