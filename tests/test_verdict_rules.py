"""Each verdict from tables that give it, and what no number of seeds, forms or lucky draws may turn round."""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scatterproof.analysis.basis import LEAST, RECIPE
from scatterproof.analysis.gains import interval, seeds_to_decide, upper
from scatterproof.analysis.verdict import (
    BOUNDED,
    BROKEN,
    INVALID,
    LOST,
    MOOT,
    NOT_YET,
    UNDECIDED,
    Evidence,
    judged,
    margin_of,
)  # fmt: skip
from scatterproof.config.settings.ceilings import FORMS

SPREAD = np.array([-0.004, 0.002, 0.0, 0.004, -0.002])
DECIDED = {BROKEN, BOUNDED}


def around(value: float) -> Any:
    return value + SPREAD


@dataclass
class Case:
    """Accuracies by seed: the victim's, the best without the blocks, the best with them, the forms told."""

    victim: Any = field(default_factory=lambda: around(0.9))
    without: Any = field(default_factory=lambda: around(0.5))
    best: Any = field(default_factory=lambda: around(0.5))
    told: dict[str, float] = field(default_factory=dict)
    cost: float = 0.1

    def verdict(self) -> str:
        told = {name: around(value) for name, value in self.told.items()}
        return judged(
            Evidence(
                gain=self.best - self.without,
                attacks={"fingerprint": self.best - self.without},
                told={name: values - self.without for name, values in told.items()},
                beyond=self.best - max(told.values(), key=np.mean) if told else None,
                headroom=self.victim - self.without,
                stolen=self.without / self.victim,
                cost=self.cost + 0 * SPREAD,
            )
        )


def told(value: float) -> dict[str, float]:
    return dict.fromkeys(FORMS, value)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        (Case(best=around(0.8)), BROKEN),
        (Case(best=around(0.8), told=told(0.85)), BROKEN),
        (Case(best=around(0.8), told=told(0.6)), INVALID),
        (Case(without=around(0.88)), LOST),
        (Case(without=around(0.88), cost=2.0), MOOT),
        (Case(victim=around(0.45), without=around(0.415), best=around(0.415)), MOOT),
        (Case(told=told(0.5)), BOUNDED),
        (Case(told=told(0.53)), NOT_YET),
        (Case(told={"told": 0.5}), NOT_YET),
        (Case(), NOT_YET),
        (Case(best=around(0.5) + np.array([0.1, -0.1, 0.05, 0.0, -0.05])), UNDECIDED),
    ],
    ids=[
        *("broken", "broken-below-told", "beyond-told", "lost", "dear-to-steal", "moot", "bounded"),
        *("told-gains", "one-form", "not-run", "wide"),
    ],
)
def test_each_verdict_from_what_gives_it(case: Case, verdict: str) -> None:
    assert case.verdict() == verdict


def test_without_an_attack_it_is_invalid_and_with_few_seeds_undecided() -> None:
    case = Case(best=around(0.8))
    nothing = Evidence(None, {}, {}, None, case.victim - case.without, case.without / case.victim, SPREAD)
    assert judged(nothing) == INVALID
    parts = [case.best - case.without, {}, {}, None, case.victim - case.without, case.without / case.victim, SPREAD]
    few = Evidence(*(each[: LEAST[RECIPE] - 1] if isinstance(each, np.ndarray) else each for each in parts))
    assert judged(few) == UNDECIDED


@settings(max_examples=200, deadline=None)
@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.05), st.integers(2, 20), st.integers(0, 2**31), st.floats(0.0, 0.1))
def test_more_seeds_of_the_same_effect_never_turn_a_decided_verdict_round(
    gain: float, spread: float, times: int, seed: int, told_gain: float
) -> None:
    """The same five seeds again and again: the same mean and spread, only more of them."""
    rng = np.random.default_rng(seed)
    without, noise = np.full(LEAST[RECIPE], 0.5), rng.normal(0, spread, LEAST[RECIPE])
    noise -= noise.mean()

    def of(repeats: int) -> str:
        mine = np.tile(without, repeats)
        gains = np.tile(gain + noise, repeats)
        forms = {name: np.tile(told_gain + noise, repeats) for name in FORMS}
        return judged(Evidence(gains, {}, forms, None, 0.9 - mine, mine / 0.9, mine))

    few, many = of(1), of(times)
    assert {few, many} != DECIDED
    assert few not in DECIDED or many in (few, INVALID)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.4, 0.9), min_size=len(FORMS), max_size=len(FORMS)), st.floats(0.3, 0.95))
def test_a_form_more_only_weakens_bounded(values: list[float], more: float) -> None:
    """Where the attack beat every form the ceiling was invalid, and one form more may mend that."""
    forms = dict(zip(FORMS, values, strict=True))
    before, after = Case(told=forms).verdict(), Case(told=forms | {"another": more}).verdict()
    assert after != BOUNDED or before in (BOUNDED, INVALID)
    assert before != INVALID or max(values) < 0.5


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-0.3, 0.3), min_size=LEAST[RECIPE], max_size=12), st.floats(0, 0.3))
def test_a_larger_gain_is_never_judged_milder(gains: list[float], more: float) -> None:
    order = [NOT_YET, UNDECIDED, BROKEN]
    values, count = np.array(gains), len(gains)
    low, high = (
        judged(Evidence(values + shift, {}, {}, None, np.full(count, 0.4), np.full(count, 0.5), np.ones(count)))
        for shift in (0.0, more)
    )
    assert order.index(low) <= order.index(high)


@pytest.mark.parametrize(("seeds", "headroom"), list(product([5, 8], [0.06, 0.08, 0.4])))
def test_a_gain_at_the_margin_is_decided_wrongly_at_most_as_often_as_it_says(seeds: int, headroom: float) -> None:
    """2,000 studies whose true gain, of attack and of every form, is the margin: neither verdict is then right."""
    rng, counted, studies = np.random.default_rng(seeds), {BROKEN: 0, BOUNDED: 0}, 2000
    for _ in range(studies):
        without = 0.5 + rng.normal(0, 0.01, seeds)
        victim = 0.5 + headroom + rng.normal(0, 0.003, seeds)
        true = margin_of(np.full(seeds, headroom))
        gains = {name: true + rng.normal(0, 0.01, seeds) for name in ("attack", *FORMS)}
        gain = gains.pop("attack")
        verdict = judged(Evidence(gain, {}, gains, None, victim - without, without / victim, np.ones(seeds)))
        if verdict in counted:
            counted[verdict] += 1
    assert max(counted.values()) <= 0.06 * studies, counted


@settings(max_examples=100, deadline=None)
@given(st.floats(-0.1, 0.1), st.floats(1e-4, 0.1))
def test_as_many_seeds_as_are_said_to_decide_do(mean: float, spread: float) -> None:
    base = np.array([-1.0, 1.0, 0.0, -1.0, 1.0])
    gains = mean + spread * base / base.std(ddof=1)
    wanted = seeds_to_decide(gains, 0.02, LEAST[RECIPE])
    if np.isfinite(wanted):
        many = int(wanted)
        deviations = np.where(np.arange(many) % 2, 1.0, -1.0) * np.where((many % 2 == 1) & (np.arange(many) == 0), 0, 1)
        again = mean + spread * deviations / deviations.std(ddof=1)
        again -= again.mean() - mean
        assert interval(again)[1] > 0.02 - 1e-9 or upper(again) < 0.02 + 1e-9
        assert wanted >= LEAST[RECIPE]
