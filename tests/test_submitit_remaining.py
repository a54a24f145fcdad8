"""What is left will cost: from finished cells of the same rule, with an interval that holds what it says."""

import random

import pytest
from scipy import stats

from snakemake_executor_plugin_submitit.remaining import Left, T, forecast, history, quantile, tell


def cells(rule: str, count: int, minutes: int | None = 60, gpus: int = 1) -> list[Left]:
    return [Left(rule, minutes, gpus, 4)] * count


def row(
    rule: str, seconds: float, cells: int = 1, completed: int = 1, gpus: int = 1, study: str | None = None
) -> dict[str, object]:
    request = {"gpus": gpus, "cpus_per_task": 4, "study": study}
    return {"rule": rule, "cells": cells, "completed": completed, "task_started": 1000.0, "ended": 1000 + seconds} | {
        "request": request
    }


def test_the_table_is_students_t() -> None:
    assert [round(stats.t.ppf(0.975, freedom), 3) for freedom in range(1, 31)] == list(T)
    for freedom in (31, 50, 100, 1000):
        assert quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


def test_costs_of_finished_cells_are_those_of_whole_tasks() -> None:
    rows = [row("a", 120), row("a", 240, cells=2, completed=2, gpus=2), row("a", 999, cells=2, completed=1)]
    assert history(rows, "gpus", None) == {"a": [2.0, 4.0]}
    assert history(rows, "cpus", None) == {"a": [8.0, 8.0]}


def test_a_study_is_foretold_by_its_own_cells() -> None:
    rows = [row("a", 60 * minutes, study=study) for minutes, study in [(1, "mine"), (2, None), (4, "another")]]
    assert history(rows, "gpus", "mine") == {"a": [1.0, 2.0]}
    assert history(rows, "gpus", None) == {"a": [1.0, 2.0, 4.0]}
    assert "1 jobs, 0.02 GPU-hours" in tell(cells("a", 1), rows[::2], "mine", None, 0)


@pytest.mark.parametrize(("finished", "left"), [(3, 20), (10, 5), (30, 300)])
def test_ninety_five_percent_of_intervals_hold_what_came(finished: int, left: int) -> None:
    draw, held = random.Random(finished), 0
    for _ in range(600):
        costs = [draw.gauss(20, 4) for _ in range(finished + left)]
        found = forecast(cells("a", left), {"a": costs[:finished]}, "gpus")
        held += found.low <= sum(costs[finished:]) <= found.high
    assert 0.92 <= held / 600 <= 0.98


def test_a_rule_that_has_not_finished_is_bounded_by_what_it_asks_for_and_named() -> None:
    found = forecast([*cells("a", 10), *cells("b", 2)], {"a": [5.0, 5.0, 5.0]}, "gpus")
    assert (found.expected, found.low, found.high, found.most) == (50, 50, 170, 720)
    assert found.unknown == ("b",)


def test_one_finished_cell_says_nothing_about_the_spread() -> None:
    found = forecast(cells("a", 10), {"a": [5.0]}, "gpus")
    assert (found.expected, found.low, found.high) == (50, 0, 600)


def test_nothing_is_expected_beyond_what_may_be_asked_for() -> None:
    found = forecast(cells("a", 2, minutes=1), {"a": [5.0, 9.0]}, "gpus")
    assert found.low <= found.expected == found.high == found.most == 2


def test_one_line_says_it_all() -> None:
    line = tell(cells("a", 12), [row("a", 300), row("a", 300)], None, 36000, 1800)
    assert line == (
        "What is left: 12 jobs, 1.00 GPU-hours [1.00, 1.00] expected, at most 12.00 GPU-hours requested; "
        "budget (budget.gpu_hours) 10.00 GPU-hours, 0.50 of it used or reserved."
    )
    assert tell(cells("a", 3, None, gpus=0), [], None, None, 0) == (
        "What is left: 3 jobs, at most ? CPU-hours requested; not known, because none has finished, and bounded by "
        "what is requested: a."
    )
