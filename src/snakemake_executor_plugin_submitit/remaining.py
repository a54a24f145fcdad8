"""What is left to run will cost: from what finished cells of the same rule have cost, with a 95 % interval.

For n cells left of a rule of which m have finished, at a mean cost c with standard deviation s, the expected cost is
n c, and the prediction interval of the sum n c +- t(m - 1) s sqrt(n + n^2 / m): the spread of the cells to come and the
doubt about their mean (Student's t; Meeker, Hahn and Escobar, Statistical Intervals, 2nd ed., chapter 4). Rules are
independent: half-widths add in quadrature. No rule costs less than nothing or more than it asks for. Of a rule with one
finished cell no spread is known, of one with none no mean: they are bounded by nothing and what they ask for.
"""

import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.budget import KEY, hours
from snakemake_executor_plugin_submitit.shared_files import write_json

# the 97.5 % quantile of Student's t by degrees of freedom, from 1 on
T: tuple[float, ...] = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)
T += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


@dataclass(frozen=True)
class Left:
    """A cell that is left, and what it asks for; minutes: None for no limit."""

    rule: str
    minutes: int | None
    gpus: int
    cpus: int


@dataclass(frozen=True)
class Forecast:
    """In minutes. expected: of the rules that have finished cells; low, high: of all; unknown: rules that have none."""

    expected: float
    low: float
    high: float
    most: float
    unknown: tuple[str, ...]


def quantile(freedom: int) -> float:
    """Student's t at 97.5 %, to a thousandth beyond the table."""
    return T[freedom - 1] if freedom <= len(T) else 1.96 + 2.47 / freedom


def history(tasks: Iterable[Mapping[str, Any]], device: str, study: str | None) -> dict[str, list[float]]:
    """Minutes of `gpus` or `cpus` of finished cells, by rule; of cells in one task their mean. tasks: Journal's.

    study: whose tasks count, and those of no study; None: all of the journal's.
    """
    minutes_of: dict[str, list[float]] = defaultdict(list)
    for task in tasks:
        if study not in (None, task["request"].get("study") or study):
            continue
        if task["completed"] == task["cells"] and task["task_started"] and task["ended"]:
            held = int(task["request"].get("gpus" if device == "gpus" else "cpus_per_task") or 0)
            minutes = max(0.0, task["ended"] - task["task_started"]) / 60
            minutes_of[task["rule"]].append(held * minutes / task["cells"])
    return minutes_of


def forecast(left: Sequence[Left], finished: Mapping[str, Sequence[float]], device: str) -> Forecast:
    """Minutes of `gpus` or `cpus` that what is left will take. finished: see history."""
    cells: Counter[str] = Counter(one.rule for one in left)
    asked: dict[str, float] = defaultdict(float)
    for one in left:
        held = one.gpus if device == "gpus" else one.cpus
        if held:
            asked[one.rule] += held * (math.inf if one.minutes is None else one.minutes)
    parts = [_of_rule(cells[rule], asked[rule], finished.get(rule, ())) for rule in cells]
    most = sum(asked.values())
    mean = [part[0] for part in parts]
    low = sum(mean) - math.sqrt(sum(part[1] ** 2 for part in parts))
    high = sum(mean) + math.sqrt(sum(part[2] ** 2 for part in parts))
    unknown = [rule for rule in cells if asked[rule] and not finished.get(rule)]
    high += sum(asked[rule] for rule in unknown)
    return Forecast(sum(mean), max(0.0, low), min(most, high), most, tuple(unknown))


def _of_rule(cells: int, most: float, known: Sequence[float]) -> tuple[float, float, float]:
    """Expected cost of a rule's cells, and how far below and above it may be."""
    if not known:
        return 0.0, 0.0, 0.0
    mean = min(cells * statistics.fmean(known), most)
    if len(known) == 1:
        return mean, mean, most - mean
    half = quantile(len(known) - 1) * statistics.stdev(known) * math.sqrt(cells + cells**2 / len(known))
    return mean, min(half, mean), min(half, most - mean)


def write_left(folder: Path, study: str | None, left: Sequence[Left]) -> None:
    """Keep what there is to run for those who ask later: `left.json`, with when and of which study."""
    counted = [vars(one) | {"cells": count} for one, count in Counter(left).items()]
    write_json(folder / "left.json", {"time": time.time(), "study": study, "left": counted})


def tell(
    left: Sequence[Left], tasks: Sequence[Mapping[str, Any]], study: str | None, limit: int | None, used: int
) -> str:
    """One line about what is left of a study (see history). limit, used: of the budget, in GPU-seconds."""
    device = "gpus" if any(one.gpus for one in left) else "cpus"
    unit = f"{device[:3].upper()}-hours"
    cost = forecast(left, history(tasks, device, study), device)
    low, high, most = (hours(60 * value) if value < math.inf else "?" for value in (cost.low, cost.high, cost.most))
    text = f"What is left: {len(left)} jobs, "
    if len(cost.unknown) < len({one.rule for one in left}):
        text += f"{hours(60 * cost.expected)} {unit} [{low}, {high}] expected, "
    text += f"at most {most} {unit} requested"
    if cost.unknown:
        text += f"; not known, because none has finished, and bounded by what is requested: {', '.join(cost.unknown)}"
    if limit is not None:
        text += f"; budget ({KEY}) {hours(limit)} GPU-hours, {hours(used)} of it used or reserved"
    return text + "."
