"""Theory: the talk's figures, the exact ones, and a Monte Carlo that must find the exact ones by itself."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from scatterproof.analysis.columns import COLUMNS
from scatterproof.theory import (
    Grid,
    exact_clue_probability,
    expected_clues,
    monte_carlo_clue_probability,
    search_space_bits,
    talk_clue_probability,
    theory_table,
)

TALK_GRID = Grid("classifier.0", 256, 16, 98)
SIDES = st.integers(1, 40)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    grids = [TALK_GRID, ("classifier.0", 2048, 2, 13)]
    return theory_table("talk", grids, [0.1, 0.5, 1.0], [10, 100], seed=1)


def clue_count(placement: tuple[int, ...], columns: int) -> int:
    """Clues in a placement of blocks 0, 1, ... (block b belongs on position b), straight from the definition."""
    rows = [position // columns for position in placement]
    return sum(p == block and rows.count(rows[block]) == 1 for block, p in enumerate(placement))


def test_search_space_of_the_talk() -> None:
    assert search_space_bits(1568) == pytest.approx(14388.35, abs=0.005)
    assert search_space_bits(2, 5) == pytest.approx(math.log2(20))


def test_expected_clues_of_the_talk_and_exact() -> None:
    talk = expected_clues(talk_clue_probability(16, 98, 156.8), 156.8, 100)
    assert talk == pytest.approx(4.524e-4, abs=1e-6)
    assert expected_clues(exact_clue_probability(16, 98, 157), 157, 100) == pytest.approx(2.72e-4, abs=5e-7)
    assert expected_clues(exact_clue_probability(16, 98, 156), 156, 100) == pytest.approx(2.90e-4, abs=5e-7)


@pytest.mark.parametrize("kept", [2, 3, 4])
def test_exact_equals_enumeration_of_every_placement(kept: int) -> None:
    placements = list(itertools.permutations(range(6), kept))
    per_block = sum(clue_count(placement, columns=3) for placement in placements) / len(placements) / kept
    assert exact_clue_probability(2, 3, kept) == pytest.approx(per_block, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("rows", "columns", "kept"), [(3, 4, 4), (4, 3, 3), (5, 2, 6)])
def test_exact_agrees_with_placements_drawn_outright(rows: int, columns: int, kept: int) -> None:
    draws = 200_000
    rng = np.random.default_rng(7)
    placed = rng.random((draws, rows * columns)).argsort(axis=1)[:, :kept]
    row = placed // columns
    alone = (row[:, :, None] == row[:, None, :]).sum(axis=2) == 1
    clues = ((placed == np.arange(kept)) & alone).sum(axis=1) / kept
    arm = 3.3 * clues.std() / math.sqrt(draws)
    assert abs(clues.mean() - exact_clue_probability(rows, columns, kept)) < arm
    assert arm < 0.1 * clues.mean()


def test_monte_carlo_finds_the_exact_value_and_rejects_the_talks() -> None:
    estimate = monte_carlo_clue_probability(16, 98, 157, np.random.default_rng(0))
    assert estimate.ci_low < exact_clue_probability(16, 98, 157) < estimate.ci_high
    assert estimate.ci_high < talk_clue_probability(16, 98, 156.8)
    assert estimate.relative_half_width <= 0.02
    assert estimate == monte_carlo_clue_probability(16, 98, 157, np.random.default_rng(0))


def test_monte_carlo_interval_covers_as_often_as_it_says() -> None:
    exact, seeds = exact_clue_probability(16, 98, 157), 60
    estimates = [monte_carlo_clue_probability(16, 98, 157, np.random.default_rng(s), 0.05) for s in range(seeds)]
    covered = sum(e.ci_low <= exact <= e.ci_high for e in estimates)
    assert covered >= binom.ppf(0.001, seeds, 0.95)
    # and is no wider than it need be: intervals at half the width must miss a plausible number of times (33 %)
    inner = sum(abs(math.log(e.value / exact)) <= math.log(e.ci_high / e.value) / 2 for e in estimates)
    assert binom.ppf(0.001, seeds, 0.673) <= inner <= binom.ppf(0.999, seeds, 0.673)


@pytest.mark.parametrize(("rows", "columns", "kept"), [(2, 3, 4), (3, 4, 9), (2, 300, 3), (7, 5, 20), (2, 2, 2)])
def test_monte_carlo_on_awkward_grids(rows: int, columns: int, kept: int) -> None:
    estimate = monte_carlo_clue_probability(rows, columns, kept, np.random.default_rng(3))
    exact = exact_clue_probability(rows, columns, kept)
    assert abs(math.log(estimate.value / exact)) < 2 * math.log(estimate.ci_high / estimate.value)
    assert estimate.relative_half_width <= 0.02


def test_monte_carlo_where_nothing_is_random() -> None:
    rng = np.random.default_rng(0)
    assert monte_carlo_clue_probability(16, 98, 1, rng) == (1 / 1568, 1 / 1568, 1 / 1568, 0)
    assert monte_carlo_clue_probability(9, 1, 5, rng) == (1 / 9, 1 / 9, 1 / 9, 0)
    assert monte_carlo_clue_probability(16, 98, 1568, rng) == (0, 0, 0, 0)
    assert monte_carlo_clue_probability(1, 5, 2, rng) == (0, 0, 0, 0)
    assert exact_clue_probability(16, 98, 1568) == 0
    assert exact_clue_probability(3, 4, 9) > 0 == exact_clue_probability(3, 4, 10)


def test_monte_carlo_within_a_budget_widens_its_interval() -> None:
    estimate = monte_carlo_clue_probability(16, 98, 784, np.random.default_rng(0), max_draws=200_000)
    assert estimate.draws <= 200_000 and estimate.relative_half_width > 0.02
    assert abs(math.log(estimate.value / exact_clue_probability(16, 98, 784))) < 2 * estimate.relative_half_width
    with pytest.raises(ValueError, match="max_draws"):
        monte_carlo_clue_probability(16, 98, 784, np.random.default_rng(0), max_draws=100)


@given(SIDES, SIDES)
def test_one_block_alone_meets_no_other(rows: int, columns: int) -> None:
    assert exact_clue_probability(rows, columns, 1) == pytest.approx(1 / (rows * columns), rel=1e-12)
    assert talk_clue_probability(rows, columns, 1) == pytest.approx(1 / (rows * columns), rel=1e-12)


@given(SIDES, SIDES, st.data())
def test_more_blocks_make_clues_rarer(rows: int, columns: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, rows * columns))
    exact = exact_clue_probability(rows, columns, kept)
    assert 0 <= exact <= (1 + 1e-9) / (rows * columns)
    if kept < rows * columns:
        assert exact_clue_probability(rows, columns, kept + 1) <= exact * (1 + 1e-9)


@given(st.integers(2, 3000), st.data())
def test_more_blocks_make_the_space_larger(positions: int, data: st.DataObject) -> None:
    blocks = data.draw(st.integers(1, positions - 1))
    assert search_space_bits(blocks, positions) <= search_space_bits(blocks + 1, positions) + 1e-9
    assert search_space_bits(blocks, positions) <= search_space_bits(blocks, positions + 1) + 1e-9


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: exact_clue_probability(0, 4, 1), "rows"),
        (lambda: exact_clue_probability(3, 0, 1), "columns"),
        (lambda: exact_clue_probability(3, 4, 0), "kept"),
        (lambda: exact_clue_probability(3, 4, 13), "kept"),
        (lambda: talk_clue_probability(3, 4, 0.5), "kept"),
        (lambda: talk_clue_probability(3, 4, 12.5), "kept"),
        (lambda: talk_clue_probability(3, 4, math.nan), "kept"),
        (lambda: monte_carlo_clue_probability(3, 4, 13, np.random.default_rng(0)), "kept"),
        (lambda: monte_carlo_clue_probability(3, 4, 2, np.random.default_rng(0), 0), "relative_half_width"),
        (lambda: expected_clues(0.1, 2, 0), "population"),
        (lambda: search_space_bits(0), "blocks"),
        (lambda: search_space_bits(5, 4), "positions"),
        (lambda: theory_table("s", [TALK_GRID], [0.0], [10], 0), "keeps"),
    ],
)
def test_impossible_arguments_are_named(call: Callable[[], Any], argument: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument} must"):
        call()


def test_table_holds_the_talk_beside_the_exact_value(table: pd.DataFrame) -> None:
    assert list(table.columns) == COLUMNS["theory"]
    assert table["victim_seed"].isna().all() and (table["study"] == "talk").all()
    talk = table[(table["block_size"] == 256) & (table["keep"] == 0.1) & (table["population"] == 100)]
    row = talk[talk["quantity"] == "expected_clues"].iloc[0]
    assert row["value"] == pytest.approx(row["reported"], abs=1e-6) == 0.000452
    assert row["exact"] == pytest.approx(2.72e-4, abs=5e-7)
    assert row["ci_low"] < row["monte_carlo"] < row["ci_high"] < row["value"]
    assert row["source"] == 'talk, slide "Some insight into this result (1)"'
    floor = talk[talk["quantity"] == "expected_clues_floor"].iloc[0]
    assert floor["exact"] == pytest.approx(2.90e-4, abs=5e-7)
    assert table.loc[table["quantity"].str.startswith("expected"), "reported"].notna().sum() == 1


def test_table_rows_per_grid(table: pd.DataFrame) -> None:
    counts = table[table["block_size"] == 256].groupby("quantity").size().to_dict()
    # half of 1568 and all of it are whole numbers of blocks: only 10 % has a floor of its own
    assert counts == {"search_space_bits": 3, "clue_probability": 3, "expected_clues": 6, "expected_clues_floor": 2}
    bits = table[(table["quantity"] == "search_space_bits") & (table["block_size"] == 256)].set_index("keep")["value"]
    assert bits[1.0] == pytest.approx(14388.35, abs=0.005)
    assert bits[0.1] == pytest.approx(search_space_bits(157, 1568))
    whole = table[(table["quantity"] == "clue_probability") & (table["keep"] == 1)]
    assert (whole[["exact", "monte_carlo", "ci_low", "ci_high"]] == 0).all(axis=None)


def test_a_row_does_not_depend_on_the_others(table: pd.DataFrame) -> None:
    alone = theory_table("talk", [TALK_GRID], [0.1], [100], seed=1)
    wanted = (table["block_size"] == 256) & (table["keep"] == 0.1) & ~table["population"].eq(10).fillna(False)
    again = alone[alone["keep"] == 0.1]
    pd.testing.assert_frame_equal(table[wanted].reset_index(drop=True), again.reset_index(drop=True))


def test_cost_claim_taken_apart(table: pd.DataFrame) -> None:
    cost = table[table["layer"].isna()].set_index("quantity")
    assert cost["block_size"].isna().all() and cost["keep"].isna().all()
    assert cost["value"].to_dict() == pytest.approx(
        {
            "evaluations": 10_000,
            "attack_gpu_minutes": 5_000,
            "seconds_per_evaluation": 30,
            "retraining_gpu_hours": 2.5,
            "cost_over_retraining": 33.33,
            "retraining_gpu_hours_implied_by_27x": 3.09,
        },
        rel=2e-3,
    )
    assert cost["reported"].dropna().to_dict() == {
        "evaluations": 10_000,
        "attack_gpu_minutes": 5_000,
        "retraining_gpu_hours": 2.5,
        "cost_over_retraining": 27,
    }
