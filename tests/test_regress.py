"""Who sees a layer's inputs and the next layer's needs no block: every function between them, every defence, tokens."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import planted
import small
from scatterproof.attacks.base import AttackError, Copy, Machine, Run
from scatterproof.attacks.regress.attack import Regress
from scatterproof.attacks.regress.preimages import preimages
from scatterproof.attacks.regress.regression import Ridge, regressed
from scatterproof.attacks.training.layer import Layer
from scatterproof.blocks import Layout
from scatterproof.config.attacks import AttackGrid, AttacksConfig, attacks_on
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import logits_on, make_puzzle
from scatterproof.defences.network import protect_network, seen_under
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset, to_input
from scatterproof.victims.models import dense_layers

CPU = torch.device("cpu")
HERE = Run(Machine(CPU, 1), ("test",))
BLOCK, ENOUGH = 16, 400
BETWEEN = ("ReLU", "LeakyReLU", "PReLU", "GELU", "SiLU", "ELU", "Tanh", "Hardswish", "ReLU6", "Identity")


def between(activation: str) -> nn.Module:
    """Its layer 3, 96 x 64, is read through this function and, in eval mode, an idle dropout."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 64), nn.Tanh(), nn.Linear(64, 96), getattr(nn, activation)(), nn.Dropout(0.3),
        nn.Linear(96, 10),
    )  # fmt: skip


class Tokens(nn.Module):
    """Eight tokens of each image; its layer reads each, and a residual leads around it and the next."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(24, 16), nn.Linear(16, 48), nn.Linear(48, 16)
        self.between, self.last = nn.GELU(), nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = torch.tanh(self.first(images.transpose(1, 2).flatten(2)))
        tokens = tokens + 3 * self.third(self.between(self.second(tokens)))
        logits: torch.Tensor = self.last(tokens.mean(1))
        return logits


TOKENS = VictimConfig(model="test_regress:Tokens", input_size=8, layer="second")


def reading(activation: str) -> VictimConfig:
    return VictimConfig(
        model="test_regress:between", model_args={"activation": activation}, input_size=8, layer="3"
    )  # fmt: skip


@cache
def cut(config: str, requests: int = ENOUGH, **defence: Any) -> tuple[Puzzle, Judge]:
    """What the pirate sees of a network drawn at random, whose labels are its own answers."""
    made = VictimConfig.model_validate_json(config)
    model, data = small.network(made, 10), small.dataset(pirate=requests, test=500, classes=10)
    threat = ThreatModel.model_validate({"activations": "both", "requests": requests, "defence": defence or "none"})
    layer = dense_layers(model)[made.layer]
    images = to_input(data.test.images[:20], made.input_size, data.mean, data.std)
    layout = Layout.square({made.layer: layer.weight.shape}, BLOCK)
    protected = protect_network(model, layout, threat.defence, images, (0,)) if threat.defended else None
    seen = seen_under(threat, model, made, data, protected)
    puzzle, answer = make_puzzle(model, made, data, threat, BLOCK, (0,), protected=protected, seen=seen)
    return puzzle, Judge(puzzle, answer, model, data, CPU)


def puzzle_of(config: VictimConfig, requests: int = ENOUGH, **defence: Any) -> tuple[Puzzle, Judge]:
    return cut(config.model_dump_json(), requests, **defence)


def agreement(judge: Judge, reached: Any) -> float:
    return float(judge.score(reached).agreement)


# The attack


@pytest.mark.parametrize("activation", BETWEEN)
def test_enough_requests_give_the_layer_away_whatever_lies_between(activation: str) -> None:
    puzzle, judge = puzzle_of(reading(activation))
    assert agreement(judge, Copy({})) < 0.5
    (found,) = Regress().run(puzzle, HERE)
    scores = judge.score(found.reached)
    assert float(scores.agreement) >= 0.99
    assert abs(float(scores.accuracy) - judge.known_places.own_accuracy) <= 0.01


@pytest.mark.parametrize("activation", ["ReLU", "GELU", "Tanh", "Identity"])
def test_the_weight_is_the_victims_own(activation: str) -> None:
    """Of 64 inputs, in the rows of which twice as many values say more than where they lie."""
    puzzle, judge = puzzle_of(reading(activation))
    own = dense_layers(judge.victim)["3"].weight.detach()
    reached = Regress().run(puzzle, HERE)[-1].reached
    assert isinstance(reached, Copy)
    seen = (puzzle.seen["following"] != 0).sum(0) >= 128
    assert seen.sum() > 70
    assert float((reached.tensors["3.weight"] - own)[seen].norm() / own[seen].norm()) < 0.01


def test_requests_in_another_order_than_what_followed_give_nothing() -> None:
    """What follows on average is learnt, which answers no image otherwise than the next. Of pairs in the right order as
    many requests give all: see above."""
    puzzle, judge = puzzle_of(reading("ReLU"))
    reached = []
    for seed in range(5):
        order = torch.randperm(ENOUGH, generator=torch.Generator().manual_seed(seed))
        mixed = replace(puzzle, seen=puzzle.seen | {"following": puzzle.seen["following"][order]})
        reached.append(agreement(judge, Regress().run(mixed, HERE)[-1].reached))
    logits = logits_on(judge.victim, puzzle.config, judge.dataset, judge.dataset.test.images)
    likeliest = float(logits.argmax(1).bincount().max() / len(logits))
    assert sum(reached) / 5 < likeliest + 0.02, reached


@pytest.mark.parametrize(
    ("activation", "defence"),
    [
        ("ReLU", {"name": "rescale", "factor": 10.0}),
        ("GELU", {"name": "rescale", "factor": 1.0}),
        ("ReLU", {"name": "home", "share": 1.0}),
        ("GELU", {"name": "home", "share": 0.3}),
    ],
)
def test_a_defence_of_the_blocks_changes_nothing(activation: str, defence: dict[str, Any]) -> None:
    puzzle, judge = puzzle_of(reading(activation), **defence)
    plain, its = puzzle_of(reading(activation))
    assert agreement(judge, Regress().run(puzzle, HERE)[-1].reached) >= 0.99
    changed = not torch.allclose(puzzle.seen["following"], plain.seen["following"], atol=1e-4)
    assert changed == (defence["name"] == "rescale"), "in the basis in which the layer is served"
    assert its.known_places.own_accuracy == judge.known_places.own_accuracy


def test_a_layer_that_reads_tokens_gives_several_equations_a_request() -> None:
    puzzle, judge = puzzle_of(TOKENS, 12)
    assert len(puzzle.seen["inputs"]) == 12 * 8
    assert agreement(judge, Copy({})) < 0.5
    assert agreement(judge, Regress().run(puzzle, HERE)[-1].reached) >= 0.98


def test_more_requests_give_more() -> None:
    reached = [
        agreement(judge, Regress().run(puzzle, HERE)[-1].reached)
        for puzzle, judge in (puzzle_of(reading("ReLU"), requests) for requests in (1, 8, 30, ENOUGH))
    ]
    assert reached == sorted(reached) and reached[0] < 0.7 < reached[-1]


def test_what_was_not_seen_is_named() -> None:
    puzzle, _ = puzzle_of(reading("ReLU"))
    with pytest.raises(AttackError, match=r"^regress needs what the layer after the scattered one is given"):
        Regress().run(replace(puzzle, seen={"inputs": puzzle.seen["inputs"]}), HERE)
    less = puzzle.threat.model_copy(update={"activations": "inputs"})
    with pytest.raises(AttackError, match=r"^regress needs activations of requests, both, the threat grants inputs$"):
        Regress().run(replace(puzzle, threat=less), HERE)


@cache
def digits(requests: int) -> tuple[Puzzle, Answer, nn.Module, Dataset]:
    """The planted network that reads digits, 100 of them labelled."""
    whole, answer, data = planted.planted_puzzle(0)
    model = whole.model()
    with torch.no_grad():
        lines = whole.layout.cut({"3": torch.zeros(32, 32)})
        lines[answer.placement.positions] = whole.blocks
        everything = torch.arange(whole.layout.positions)
        dense_layers(model)["3"].weight.copy_(whole.layout.assemble(lines.flatten(0, 1), everything)["3"])
    threat = ThreatModel.model_validate(
        {"images": 100, "knows": "labels", "activations": "both", "requests": requests}
    )  # fmt: skip
    seen = seen_under(threat, model, planted.CONFIG, data, None)
    return *make_puzzle(model, planted.CONFIG, data, threat, planted.BLOCK, (0,), seen=seen), model, data


def test_labelled_images_mend_what_few_requests_leave_open() -> None:
    puzzle, answer, model, data = digits(5)
    judge = Judge(puzzle, answer, model, data, CPU)
    first, last = (float(judge.score(each.reached).accuracy) for each in Regress().run(puzzle, HERE))
    alone = float(judge.score(Layer().run(puzzle, HERE)[-1].reached).accuracy)
    assert first < 0.9 < last
    assert last > alone - 0.03


def test_it_runs_wherever_both_are_seen_and_nowhere_else() -> None:
    grid = AttackGrid.model_validate(
        {"activations": ["none", "inputs", "both"], "requests": [20], "defences": ["none", "home"]}
    )
    ran = {
        name: "regress" in attacks for name, (_, attacks) in attacks_on(AttacksConfig(grids=[grid]), "layer").items()
    }
    assert {name for name, runs in ran.items() if runs} == {
        "layer-1-100-none-both-20",
        "layer-1-100-none-home-1-drawn-both-20",
    }
    with pytest.raises(ValueError, match=r"^attacks.grids: regress needs activations of requests, both, the threat"):
        attacks_on(AttacksConfig(grids=[AttackGrid(attacks=["regress"])]), "layer")


# What a function leaves open


FUNCTIONS = [F.relu, F.gelu, F.silu, F.hardswish, F.relu6, F.mish, F.elu, torch.tanh, torch.sigmoid, F.softplus]
values = st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=12)


@settings(max_examples=60, deadline=None)
@given(values, st.sampled_from(FUNCTIONS))
def test_the_value_itself_is_possible_and_what_is_possible_gives_the_same(places: list[float], function: Any) -> None:
    were = torch.tensor([places]).double()
    gave = function(were).float()
    possible = preimages(function, gave)
    assert torch.allclose(possible.nearest(were), were, atol=1e-3)
    assert torch.allclose(possible.hull().nearest(were), were, atol=1e-3)
    for guess in (-20.0, -1.0, 0.0, 3.0, 20.0):
        nearest = possible.nearest(torch.full_like(were, guess))
        assert torch.allclose(function(nearest).float(), gave, atol=2e-5 * max(1.0, float(gave.abs().max())))


def test_zeros_of_relu_are_half_lines_and_gelu_has_two_places() -> None:
    zeros = preimages(F.relu, torch.tensor([[0.0, 2.0]]))
    assert len(zeros.low) == 1 and float(zeros.low[0, 0, 0]) == -torch.inf and abs(float(zeros.high[0, 0, 0])) < 1e-4
    assert abs(float(zeros.low[0, 0, 1]) - 2) < 1e-4 and abs(float(zeros.high[0, 0, 1]) - 2) < 1e-4
    two = preimages(F.gelu, torch.full((1, 1), -0.1))
    assert sorted(round(float(each), 1) for each in two.low[:, 0, 0]) == [-1.5, -0.2]
    one = preimages(F.gelu, torch.ones(1, 1))
    assert one.low[:, 0, 0].isfinite().sum() == 1, "a value above zero has one place"


def test_a_regression_without_open_values_is_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(30, 8, generator=generator), torch.randn(4, 8, generator=generator)
    noise = 0.1 * torch.randn(4, 30, generator=generator)
    gave = weight @ inputs.T + noise + 1
    found = regressed(preimages(nn.Identity(), gave), Ridge.of(inputs), torch.ones(4).double(), 1e-12, 50)
    expected = torch.linalg.lstsq(inputs.double(), (gave.double() - 1).T).solution.T
    assert torch.allclose(found, expected, atol=1e-4)
