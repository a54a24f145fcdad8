"""What the defence `withhold` leaves with the devices, what it costs, and what still shows of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import small
from planted import planted_puzzle
from scatterproof.analysis.gains import interval, upper
from scatterproof.attacks.base import Machine, Run
from scatterproof.attacks.training.fitting import Fit, Start
from scatterproof.blocks import Layout
from scatterproof.config.attacks import AttackSettings
from scatterproof.config.settings.defences import defence_of
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import make_puzzle
from scatterproof.defences import make_defence
from scatterproof.defences.base import DefenceError, Layer, whole_work
from scatterproof.defences.network import check_defence, protect_network
from scatterproof.judging.ceilings.forms import ToldPirate
from scatterproof.judging.ceilings.supports import CoreTask
from scatterproof.judging.ceilings.told import directions, tell
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Answer, Puzzle

CPU = torch.device("cpu")
LAYER = "3"
FILLS = ("plain", "refilled", "spread")
TAUGHT = AttackSettings.model_validate({"layer": {"updates": 100, "rates": [0.1]}})
each_fill = pytest.mark.parametrize("fill", FILLS)


def settings_of(fill: str, count: float) -> dict[str, Any]:
    return {"name": "withhold", "directions": count, "fill": fill}


def withheld(fill: str, count: int, seed: int = 0) -> tuple[torch.Tensor, Puzzle, Answer, Judge]:
    """A network on real digits, its layer of 128 x 128, under the defence; the layer's own weight first."""
    plain, placed, data = planted_puzzle(seed, hidden=128, block=32)
    own, model = tell(plain, placed).weights[LAYER], plain.model()
    model.get_submodule(LAYER).weight.data = own.clone()  # type: ignore[union-attr]
    threat = ThreatModel(images=40, knows="labels", defence=settings_of(fill, count))
    images = plain.inputs(data.test.images[:4])
    made = protect_network(model, plain.layout, threat.defence, images, ("test",))
    puzzle, answer = make_puzzle(model, plain.config, data, threat, 32, ("test",), protected=made)
    return own, puzzle, answer, Judge(puzzle, answer, model, data, CPU)


@each_fill
def test_the_strongest_directions_are_with_the_owner_alone(fill: str) -> None:
    own, _, answer, _ = withheld(fill, 6)
    left, values, right = torch.linalg.svd(own)
    added = answer.secret[f"{LAYER}/left"] @ answer.secret[f"{LAYER}/right"]
    held = own - added
    strongest = left[:, :6].T @ held @ right[:6].T
    assert float(strongest.abs().max()) < 0.5 * float(values[5])
    assert len(answer.secret[f"{LAYER}/right"]) == (12 if fill == "spread" else 6)


def test_a_plain_hole_is_the_null_space_and_a_filled_one_leads() -> None:
    own, puzzle, answer, _ = withheld("plain", 6)
    lost = torch.linalg.svd(own)[0][:, :6]
    told = tell(puzzle, answer)
    shown = directions(told.weights[LAYER])
    assert told.rank == 6 and not told.complete and shown.lost == 6
    assert float(torch.linalg.svdvals(shown.left[:, shown.rank :].T @ lost).min()) > 0.99
    _, puzzle, answer, _ = withheld("refilled", 6)
    filled = directions(tell(puzzle, answer).weights[LAYER])
    assert filled.lost == 0
    leading = (filled.left[:, :18].T @ lost).norm() ** 2 / 6
    assert float(leading) > 0.8 and float(leading) > 3 * 18 / 128, "a random span of 18 would hold 14 %"


@pytest.mark.parametrize("fill", ["plain", "refilled"])
def test_a_core_on_what_shows_wins_some_of_it_back(fill: str) -> None:
    _, puzzle, answer, judge = withheld(fill, 6)
    pirate = ToldPirate(puzzle, tell(puzzle, answer), TAUGHT, [], Run(Machine(CPU, 1), ("test",)))
    as_is, core = (float(judge.score(pirate.result(form).copy).accuracy) for form in ("told", "told+core"))
    assert core > as_is + 0.1


@pytest.mark.slow
def test_a_core_on_a_random_span_gains_nothing_and_one_on_the_null_space_gains_more() -> None:
    """Five victims; a core on any few directions undoes some harm of the hole, but the pirate does as well without."""
    gains, apart = [], []
    for seed in range(5):
        _, puzzle, answer, judge = withheld("plain", 6, seed)
        run = Run(Machine(CPU, 1), ("test", seed))
        pirate = ToldPirate(puzzle, tell(puzzle, answer), TAUGHT, [], run)
        (null,) = (each for name, each in pirate._core_tasks.items() if name.startswith("null"))
        without = pirate._layer.run(puzzle, replace(run, key=(*run.key, "layer")))[-1].reached
        reached = {"without": float(judge.score(without).accuracy)}
        for name, task in {"null": null[0], "random": on_a_random_span(null[0], seed)}.items():
            fit = Fit(task, {"zero": Start.at(task.zero)}, pirate._layer.recipe, pirate._key, None)
            reached[name] = float(judge.score(pirate._core(name, task, fit).finish()).accuracy)
        print(seed, reached)
        gains.append(reached["random"] - reached["without"])
        apart.append(reached["null"] - reached["random"])
    assert upper(np.array(gains)) < 0.01
    assert interval(np.array(apart))[1] > 0


def on_a_random_span(task: CoreTask, seed: int) -> CoreTask:
    """The same core on as many directions of the outputs, drawn without regard to the weights."""
    span = task.spans[LAYER]
    assert span.left is not None
    drawn = torch.randn(span.left.shape, generator=torch.Generator().manual_seed(seed))
    return replace(task, spans={LAYER: replace(span, left=torch.linalg.qr(drawn)[0])})


@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(3, 40),
    channels=st.integers(2, 12),
    copied=st.sampled_from([1, 4, 7]),
    share=st.floats(0.01, 0.99),
    fill=st.sampled_from(FILLS),
)
def test_a_share_of_the_cost_is_kept_to(outputs: int, channels: int, copied: int, share: float, fill: str) -> None:
    weight = np.random.default_rng(outputs).standard_normal((outputs, channels * copied)).astype(np.float32)
    layer = Layer("x", weight, None, 8, 8, copies=copied)
    defence = make_defence(defence_of(settings_of(fill, share)))
    secret = defence.protect(layer, np.random.default_rng(0)).secret
    whole, work = whole_work(layer), defence.trusted_work(layer, secret)
    one = 2.0 * (outputs + channels) * (2 if fill == "spread" else 1)
    assert work.flops <= max(share * whole.flops, one) and work.flops <= whole.flops


def test_more_directions_than_the_layer_has_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 5)).eval()
    layout = Layout.square({"1": (32, 192)}, 16)
    with pytest.raises(DefenceError, match=r"directions 32 are 32 of the 32 that 1 \[32, 192\] has: expected fewer"):
        check_defence(model, layout, defence_of(settings_of("plain", 32)))
    with pytest.raises(ValueError, match="expected a whole number, or a share of the cost below 1"):
        defence_of(settings_of("plain", 2.5))


@each_fill
def test_two_keys_hide_under_two_fills(fill: str) -> None:
    model = small.network(small.WIDE)
    layout = small.puzzle(model, small.WIDE, small.dataset())[0].layout
    images = torch.rand(4, 3, 8, 8)
    one, other = (
        protect_network(model, layout, defence_of(settings_of(fill, 3)), images, (key,)).weights for key in (0, 1)
    )
    assert torch.equal(one[LAYER], other[LAYER]) == (fill == "plain")
