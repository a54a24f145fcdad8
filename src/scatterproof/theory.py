"""How hard a blind search over placements is: the size of the space, and the chance of a first clue.

The talk's clue model. `kept` blocks are put on the rows x columns positions of the grid, uniformly at random. A kept
block gives a *clue* if it lies on its own position and no other kept block lies in its block row, so that nothing else
interferes with the features it feeds. The talk treats the other blocks as independent, each missing that row with
probability (rows - 1) / rows. But two blocks never share a position and one cell of the row is taken by the clue
itself: drawn without replacement, each block that misses the row leaves fewer places that miss it for the next, so the
exact probability is lower. Both are given here, and a Monte Carlo that knows neither formula.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scatterproof.analysis.columns import COLUMNS

INSIGHT_SLIDE = 'talk, slide "Some insight into this result (1)"'
RESULTS_SLIDE = 'talk, slide "New Results on P2"'

_TALK = {"rows": 16, "columns": 98, "keep": 0.1, "population": 100, "expected_clues": 0.000452}
_Z95 = 1.959963984540054
_STAGE_LOG_SURVIVAL = 1.6  # stages that survive with exp(-1.6) = 0.2 need the fewest draws: minimises (e^s - 1) / s^2
_PILOT_DRAWS = 2_000
_CHUNK = 1_000_000
_TABLE_DRAWS = 20_000_000  # two seconds; spent in full only where the probability is below about 1e-19


class Grid(NamedTuple):
    """A layer cut into rows x columns blocks; a plain tuple in this order does as well."""

    layer: str
    block_size: int
    rows: int
    columns: int


class Estimate(NamedTuple):
    """A Monte Carlo estimate, its 95 % interval and the simulated draws it rests on (0: known without any)."""

    value: float
    ci_low: float
    ci_high: float
    draws: int

    @property
    def relative_half_width(self) -> float:
        """The longer arm of the interval over the value."""
        return 0.0 if self.value == 0 else max(self.ci_high / self.value - 1, 1 - self.ci_low / self.value)

    def cells(self, factor: float = 1) -> dict[str, float]:
        """The table's cells for `factor` times the quantity."""
        return {"monte_carlo": self.value * factor, "ci_low": self.ci_low * factor, "ci_high": self.ci_high * factor}


def search_space_bits(blocks: int, positions: int | None = None) -> float:
    """log2 of the ways to put `blocks` distinct blocks on `positions` places (default: as many as blocks)."""
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, got {blocks}")
    places = blocks if positions is None else positions
    if places < blocks:
        raise ValueError(f"positions must be at least blocks = {blocks}, got {places}")
    return (math.lgamma(places + 1) - math.lgamma(places - blocks + 1)) / math.log(2)


def talk_clue_probability(rows: int, columns: int, kept: float) -> float:
    """The talk's formula for one kept block; `kept` may be a real number (10 % of 1568 is 156.8), rounded down here."""
    _check(rows, columns, kept)
    return 1 / (rows * columns) * ((rows - 1) / rows) ** (math.floor(kept) - 1)


def exact_clue_probability(rows: int, columns: int, kept: int) -> float:
    """The same probability with blocks drawn without replacement, as they are."""
    _check(rows, columns, kept)
    positions, others, outside = rows * columns, kept - 1, rows * columns - columns
    if others > outside:
        return 0.0
    return math.exp(_log_choose(outside, others) - _log_choose(positions - 1, others)) / positions


def expected_clues(probability: float, kept: float, population: int) -> float:
    """Expected clues among all kept blocks of all placements of a population."""
    if population < 1:
        raise ValueError(f"population must be at least 1, got {population}")
    return probability * kept * population


def monte_carlo_clue_probability(
    rows: int,
    columns: int,
    kept: int,
    rng: np.random.Generator,
    relative_half_width: float = 0.02,
    max_draws: int | None = None,
) -> Estimate:
    """Simulate the clue probability by multilevel splitting (Kahn & Harris 1951).

    One block is in place with probability exactly 1 / (rows * columns), by symmetry. Given that, the other kept - 1
    blocks are drawn without replacement in stages of a few blocks. Every trial of a stage starts from the survivors of
    the one before (all alike: the row still has columns - 1 free cells) and survives if none of its blocks falls into
    the row. The product of the stages' shares of survivors estimates the rare event without bias; its 95 % interval is
    the delta method's on the log scale. The trials are drawn afresh, and more of them, until `relative_half_width` is
    met or, if `max_draws` is given, that many are spent; the interval is then wider, and says so.
    """
    _check(rows, columns, kept)
    if not 0 < relative_half_width < 1:
        raise ValueError(f"relative_half_width must lie between 0 and 1, got {relative_half_width}")
    certain = 1 / (rows * columns)
    stages = _stages(rows, columns, kept)
    if stages is None:
        return Estimate(0.0, 0.0, 0.0, 0)
    if not stages:
        return Estimate(certain, certain, certain, 0)
    limit = math.inf if max_draws is None else max(1, max_draws // len(stages))
    wanted = math.log1p(relative_half_width)
    trials = _PILOT_DRAWS
    while True:
        trials = int(min(trials, limit))
        share = np.array([_survivors(stage, columns - 1, trials, rng) for stage in stages]) / trials
        if share.min() > 0:
            log_value = float(np.log(share).sum())
            arm = _Z95 * math.sqrt(float(((1 - share) / (trials * share)).sum()))
            if arm <= wanted or trials == limit:
                value = certain * math.exp(log_value)
                return Estimate(value, value * math.exp(-arm), value * math.exp(arm), trials * len(stages))
            trials = math.ceil(1.05 * trials * (arm / wanted) ** 2)
        elif trials == limit:
            raise ValueError(f"max_draws = {max_draws} is too few: a stage had no survivor in {trials} trials")
        else:
            trials *= 10


def theory_table(
    study: str,
    grids: Sequence[Grid | tuple[str, int, int, int]],
    keeps: Sequence[float],
    populations: Sequence[int],
    seed: int,
) -> pd.DataFrame:
    """Everything above for each grid, share of blocks held and population, beside what the talk reports.

    `value` is the talk's formula, which counts keep * rows * columns blocks as a real number; `exact` and
    `monte_carlo` round it to the nearest block, `expected_clues_floor` rounds it down. Every Monte Carlo has its own
    generator, so a row does not depend on which others are asked for.
    """
    for keep in keeps:
        if not 0 < keep <= 1:
            raise ValueError(f"keeps must lie in (0, 1], got {keep}")
    rows = [row for grid in grids for row in _grid_rows(Grid(*grid), keeps, populations, seed)] + talk_cost_rows()
    table = pd.DataFrame([{"study": study, **row} for row in rows]).reindex(columns=COLUMNS["theory"])
    table = table.astype({"victim_seed": "Int64", "block_size": "Int64", "population": "Int64"})
    numbers = ["keep", "value", "exact", "monte_carlo", "ci_low", "ci_high", "reported"]
    return table.astype(dict.fromkeys(numbers, "float64"))


def talk_cost_rows() -> list[dict[str, Any]]:
    """The talk's cost claim taken apart: its own figures give 33 times the training, not 27."""
    evaluations, attack_minutes, retraining_hours, claimed, derived = 10_000, 5_000, 2.5, 27, "from the talk's figures"
    figures: list[tuple[str, float, float | None, str]] = [
        ("evaluations", evaluations, evaluations, RESULTS_SLIDE),
        ("attack_gpu_minutes", attack_minutes, attack_minutes, RESULTS_SLIDE),
        ("seconds_per_evaluation", attack_minutes * 60 / evaluations, None, derived),
        ("retraining_gpu_hours", retraining_hours, retraining_hours, RESULTS_SLIDE),
        ("cost_over_retraining", attack_minutes / 60 / retraining_hours, claimed, RESULTS_SLIDE),
        ("retraining_gpu_hours_implied_by_27x", attack_minutes / 60 / claimed, None, derived),
    ]
    return [dict(zip(("quantity", "value", "reported", "source"), figure, strict=True)) for figure in figures]


def _grid_rows(grid: Grid, keeps: Sequence[float], populations: Sequence[int], seed: int) -> Iterator[dict[str, Any]]:
    shape, positions = (grid.rows, grid.columns), grid.rows * grid.columns
    about = {"layer": grid.layer, "block_size": grid.block_size}
    for keep in dict.fromkeys([1.0, *keeps]):
        bits = search_space_bits(round(_blocks_held(keep, positions)), positions)
        yield {**about, "keep": keep, "quantity": "search_space_bits", "value": bits, "exact": bits}
    for keep in dict.fromkeys(keeps):
        held = _blocks_held(keep, positions)
        kept, floor = round(held), math.floor(held)
        talk, exact = talk_clue_probability(*shape, held), exact_clue_probability(*shape, kept)
        rng = np.random.default_rng([seed, *shape, kept])
        simulated = monte_carlo_clue_probability(*shape, kept, rng, max_draws=_TABLE_DRAWS)
        here = {**about, "keep": keep}
        yield {**here, "quantity": "clue_probability", "value": talk, "exact": exact, **simulated.cells()}
        for population in populations:
            row = {
                **here,
                "quantity": "expected_clues",
                "population": population,
                "value": expected_clues(talk, held, population),
                "exact": expected_clues(exact, kept, population),
                **simulated.cells(expected_clues(1, kept, population)),
            }
            setting = {"rows": grid.rows, "columns": grid.columns, "keep": keep, "population": population}
            if setting.items() <= _TALK.items():
                row |= {"reported": _TALK["expected_clues"], "source": INSIGHT_SLIDE}
            yield row
            if held != floor:
                yield {
                    **here,
                    "quantity": "expected_clues_floor",
                    "population": population,
                    "value": expected_clues(talk, floor, population),
                    "exact": expected_clues(exact_clue_probability(*shape, floor), floor, population),
                }


def _blocks_held(keep: float, positions: int) -> float:
    """keep * positions, at least one block, freed of the rounding that makes 0.29 * 100 a 28.999999999999996."""
    return max(1.0, round(keep * positions, 9))


def _stages(rows: int, columns: int, kept: int) -> list[tuple[int, int]] | None:
    """(free positions outside the row, blocks drawn) per stage; none are needed if no block can fall into the row.

    None if the event is impossible: more blocks to draw than positions outside the row.
    """
    outside, left, row = rows * columns - columns, kept - 1, columns - 1
    if left > outside:
        return None
    stages: list[tuple[int, int]] = []
    while left and row:
        size = min(left, max(1, math.floor(_STAGE_LOG_SURVIVAL / math.log1p(row / outside))))
        stages.append((outside, size))
        outside, left = outside - size, left - size
    return stages


def _survivors(stage: tuple[int, int], row: int, trials: int, rng: np.random.Generator) -> int:
    """How many of `trials` simulated stages leave all `row` cells of the row free."""
    outside, size = stage
    return sum(
        int(np.count_nonzero(rng.hypergeometric(row, outside, size, min(_CHUNK, trials - start)) == 0))
        for start in range(0, trials, _CHUNK)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _check(rows: int, columns: int, kept: float) -> None:
    for name, number in (("rows", rows), ("columns", columns), ("kept", kept)):
        if not number >= 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if kept > rows * columns:
        raise ValueError(f"kept must be at most rows * columns = {rows * columns}, got {kept}")
