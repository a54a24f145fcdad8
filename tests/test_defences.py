"""Defences: the network stays what it was, a defence's secret stays with its owner, and its costs are what it costs."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import small
from scatterproof.blocks import Layout
from scatterproof.config.settings.defences import defence_of
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import make_puzzle
from scatterproof.defences import DEFENCES, make_defence
from scatterproof.defences.base import DefenceError, Layer, whole_work
from scatterproof.defences.network import check_defence, protect_network, see_requests, served_network
from scatterproof.defences.telling import telling_for
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.controls import planted
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Protected, Puzzle
from scatterproof.victims.data import to_input
from scatterproof.victims.models import dense_layers

SETTINGS: list[Any] = [
    "none",
    {"name": "rescale", "factor": 1.0},
    {"name": "rescale", "factor": 10.0},
    {"name": "home", "share": 0.3},
    {"name": "home", "share": 0.3, "choice": "largest"},
    {"name": "home", "share": 0.3, "choice": "telling"},
    {"name": "home", "share": 1.0},
    {"name": "withhold", "directions": 3},
    {"name": "withhold", "directions": 3, "fill": "refilled"},
    {"name": "withhold", "directions": 0.4, "fill": "spread"},
]
DATA = small.dataset()
IMAGES = to_input(DATA.test.images, 8, DATA.mean, DATA.std)


def layout_of(model: nn.Module, names: list[str], size: int = 16) -> Layout:
    return Layout.square({name: dense_layers(model)[name].weight.shape for name in names}, size)


def protected(model: nn.Module, names: list[str], defence: Any, size: int = 16, key: int = 0) -> Protected:
    layout, settings = layout_of(model, names, size), defence_of(defence)
    telling = telling_for(settings, model, small.WIDE, DATA, layout)
    return protect_network(model, layout, settings, IMAGES, (key,), telling)


def test_every_defence_is_tried_here() -> None:
    assert {defence_of(each).name for each in SETTINGS} == set(DEFENCES)


@pytest.mark.parametrize("defence", SETTINGS, ids=lambda each: defence_of(each).label)
@settings(max_examples=8, deadline=None)
@given(key=st.integers(0, 2**32), size=st.sampled_from([8, 16, 33]), several=st.booleans())
def test_the_network_answers_as_before(defence: Any, key: int, size: int, several: bool) -> None:
    model = small.network(small.WIDE, seed=key % 7)
    names = ["1", "3", "5"] if several and defence_of(defence).trusted else ["3"]
    served = served_network(model, protected(model, names, defence, size, key))
    with torch.inference_mode():
        before, after = model(IMAGES), served(IMAGES)
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


@pytest.mark.parametrize("defence", SETTINGS[1:], ids=lambda each: defence_of(each).label)
def test_the_devices_hold_something_else_than_the_layer(defence: Any) -> None:
    model = small.network(small.WIDE)
    made = protected(model, ["3"], defence)
    threat = ThreatModel(defence=defence)
    puzzle, answer = make_puzzle(model, small.WIDE, DATA, threat, 16, (0,), protected=made)
    own = layout_of(model, ["3"]).cut({"3": model[3].weight.detach()})
    same = (puzzle.blocks[:, None] == own[None]).all(-1).all(-1).any(1)
    assert len(puzzle.blocks) == len(own) - len(made.at_home)
    assert bool(same.all()) == (defence_of(defence).name == "home" and len(made.at_home) > 0)
    assert not torch.isin(answer.placement.positions, made.at_home).any()


def test_the_secret_is_in_the_answer_and_not_in_the_puzzle() -> None:
    model = small.network(small.WIDE)
    for defence in SETTINGS[1:]:
        made = protected(model, ["3"], defence)
        puzzle, answer = make_puzzle(model, small.WIDE, DATA, ThreatModel(defence=defence), 16, (0,), protected=made)
        assert answer.secret and answer.secret.keys() == made.secret.keys()
        held = [puzzle.blocks, *puzzle.state.values()]
        for value in made.secret.values():
            assert not any(value.shape == each.shape and bool((value == each).all()) for each in held)


def test_a_puzzle_keeps_the_defence_s_kind_and_parameters(tmp_path: Any) -> None:
    model = small.network(small.WIDE)
    threat = ThreatModel(defence={"name": "rescale", "factor": 3.0})
    made = protected(model, ["3"], {"name": "rescale", "factor": 3.0})
    made.save(tmp_path / "made")
    again = Protected.load(tmp_path / "made")
    assert again.about["defence"] == {"name": "rescale", "factor": 3.0}
    puzzle, _ = make_puzzle(model, small.WIDE, DATA, threat, 16, (0,), protected=again)
    puzzle.save(tmp_path / "puzzle")
    assert Puzzle.load(tmp_path / "puzzle").threat == threat


def test_rescaled_blocks_in_their_places_are_the_whole_victim() -> None:
    """Nobody need undo it: the pirate's network with the blocks in place answers as the victim."""
    model = small.network(small.WIDE)
    made = protected(model, ["3"], "rescale")
    puzzle, answer = make_puzzle(model, small.WIDE, DATA, ThreatModel(defence="rescale"), 16, (0,), protected=made)
    judge = Judge(puzzle, answer, model, DATA, torch.device("cpu"))
    assert float(judge.known_places.agreement) == 1.0
    scales = made.secret["3/scales"]
    assert float(scales.max()) <= 10 and float(scales.min()) >= 0.1 and float(scales.std()) > 1


def test_a_threat_without_a_defence_is_cut_as_ever() -> None:
    model = small.network(small.WIDE)
    plain, answer = make_puzzle(model, small.WIDE, DATA, ThreatModel(images=4), 16, (0,))
    whole = PlacementEvaluator(plain, DATA.test.images, DATA.test.labels, torch.device("cpu"))
    assert float(whole.score(answer.placement.positions[None]).accuracy) > 0
    with pytest.raises(ValueError, match="not protected"):
        make_puzzle(model, small.WIDE, DATA, ThreatModel(defence="rescale"), 16, (0,))


@pytest.mark.parametrize("activation", [nn.GELU(), nn.Tanh()], ids=["gelu", "tanh"])
def test_scales_that_would_not_pass_are_refused(activation: nn.Module) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), activation, nn.Linear(32, 5)).eval()
    layout = layout_of(model, ["1"])
    with pytest.raises(DefenceError, match=r"factor 10.*expected factor 1"):
        check_defence(model, layout, defence_of("rescale"))
    served = served_network(model, protected(model, ["1"], {"name": "rescale", "factor": 1.0}))
    assert torch.allclose(model(IMAGES), served(IMAGES), atol=1e-5)


def test_a_layer_that_nobody_reads_alone_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.LayerNorm(32), nn.Linear(32, 5)).eval()
    with pytest.raises(DefenceError, match="expected another layer, or another defence"):
        check_defence(model, layout_of(model, ["1"]), defence_of("rescale"))


@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(1, 40),
    channels=st.integers(1, 12),
    copied=st.sampled_from([1, 4, 7]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    share=st.floats(0.05, 1),
)
def test_what_stays_at_home_never_costs_more_than_the_whole_layer_folded(
    outputs: int, channels: int, copied: int, height: int, width: int, share: float
) -> None:
    rng = np.random.default_rng(outputs)
    weight = rng.standard_normal((outputs, channels * copied)).astype(np.float32)
    layer = Layer("x", weight, None, height, width, copies=copied)
    defence = make_defence(defence_of({"name": "home", "share": share}))
    secret = defence.protect(layer, rng).secret
    work, whole = defence.trusted_work(layer, secret), whole_work(layer)
    assert 0 < work.flops <= whole.flops and 0 < work.bytes <= whole.bytes
    assert 0 <= defence.device_share(layer, secret) <= 1
    assert ("weight" in secret) == (work == whole and defence.device_share(layer, secret) == 1)


def test_copied_inputs_make_a_small_part_at_home_dear() -> None:
    """A tenth of the blocks, drawn, reads most channels of most rows: folded, the whole layer costs hardly more."""
    rng = np.random.default_rng(0)
    layer = Layer("x", rng.standard_normal((64, 49 * 8)).astype(np.float32), None, 8, 8, copies=49)
    defence = make_defence(defence_of({"name": "home", "share": 0.1}))
    share = defence.trusted_work(layer, defence.protect(layer, rng).secret).flops / whole_work(layer).flops
    assert 0.3 < share < 0.9


def test_requests_show_what_the_neighbours_of_the_layer_are_given() -> None:
    model = small.network(small.WIDE)
    seen = see_requests(model, "3", IMAGES, True, None)
    after = torch.relu(seen["inputs"] @ model[3].weight.T + model[3].bias)
    assert torch.allclose(seen["following"], after, atol=1e-5)
    assert see_requests(model, "3", IMAGES, False, None).keys() == {"inputs"}
    at_home = see_requests(model, "3", IMAGES, True, protected(model, ["3"], "home"))
    assert torch.allclose(at_home["following"], seen["following"], atol=1e-4)
    made = protected(model, ["3"], "rescale")
    rescaled = see_requests(model, "3", IMAGES, True, made)["following"]
    back = (rescaled / made.secret["3/scales"])[:, made.secret["3/order"].argsort()]
    assert torch.allclose(back, seen["following"], rtol=1e-3, atol=1e-4)


def test_the_most_telling_blocks_stay_at_home() -> None:
    """A leak planted in half of the rows: those blocks tell of their places, and stay; noise tells nothing."""
    model = small.network(small.WIDE)
    puzzle, _ = make_puzzle(model, small.WIDE, DATA, ThreatModel(), 16, (0,))
    model[3].weight.data[:64] = planted(model, puzzle, (0,))[3].weight.detach()[:64]  # the lower rows tell nothing
    made = protected(model, ["3"], {"name": "home", "share": 0.25, "choice": "telling"})
    layout = layout_of(model, ["3"])
    upper = made.at_home // layout.grids["3"].columns < layout.grids["3"].rows // 2
    assert len(made.at_home) == round(0.25 * layout.positions)
    assert float(upper.double().mean()) > 0.9


def test_a_choice_by_what_blocks_tell_needs_to_be_told() -> None:
    model = small.network(small.WIDE)
    settings = defence_of({"name": "home", "share": 0.5, "choice": "telling"})
    with pytest.raises(DefenceError, match="nobody said what the blocks of 3 tell"):
        protect_network(model, layout_of(model, ["3"]), settings, IMAGES, (0,))
