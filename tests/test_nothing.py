"""The pirate that does without the layer: what it may put there, and by what it chooses."""

from dataclasses import replace
from functools import cache
from math import log
from typing import Any

import pytest
import torch
from torch import nn

import planted
import small
from scatterproof.attacks.base import Copy, Machine, Run
from scatterproof.attacks.nothing import Nothing, Rest, passing, score
from scatterproof.attacks.training.cached import targets
from scatterproof.attacks.training.fitting import held_out_loss
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.victim import VictimConfig
from scatterproof.judging.judge import Judge, copied
from scatterproof.puzzle import Puzzle
from scatterproof.victims.data import read_dataset
from scatterproof.victims.models import dense_layers

HERE = Run(Machine(torch.device("cpu"), 1), ("test",))


class Residual(nn.Module):
    """A residual leads around its layer `inner`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.outer = nn.Linear(192, 32), nn.Linear(32, 64), nn.Linear(64, 32)
        self.last = nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.first(images.flatten(1))
        hidden = hidden + self.outer(torch.relu(self.inner(hidden)))
        logits: torch.Tensor = self.last(torch.tanh(hidden))
        return logits


class Branching(nn.Module):
    """What torch.fx can't trace: a branch on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(192, 32), nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(images.flatten(1)))
        if hidden.sum() < 0:
            hidden = hidden + 1
        logits: torch.Tensor = self.second(hidden)
        return logits


def normed(bias: bool = True) -> nn.Module:
    """A batch norm behind layer 3, through a ReLU."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 16, bias=bias), nn.ReLU(), nn.BatchNorm1d(16),
        nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip


RESIDUAL = VictimConfig(model="test_nothing:Residual", input_size=8, layer="inner")


def held(config: VictimConfig, model: nn.Module | None = None, **threat: Any) -> Puzzle:
    data = small.dataset(pirate=100, classes=10)
    about = {"images": 100} | threat
    return small.puzzle(model or small.network(config, 10), config, data, 8, **about)[0]


def reached(puzzle: Puzzle, redraws: int = 4) -> Copy:
    (found,) = Nothing(redraws=redraws).run(puzzle, HERE)
    assert isinstance(found.reached, Copy)
    return found.reached


def loss(puzzle: Puzzle, copy: Copy) -> float:
    with torch.no_grad():
        return held_out_loss(copied(copy, puzzle)(puzzle.inputs(puzzle.images)), targets(puzzle))


@pytest.mark.parametrize("scatter", ["layer", "dense"])
@pytest.mark.parametrize("knows", ["none", "labels", "logits"])
def test_without_images_the_layer_is_zero_and_with_them_nothing_lower_is_left_out(scatter: str, knows: str) -> None:
    puzzle = held(planted.CONFIG, scatter=scatter, knows=knows)
    assert reached(replace(puzzle, images=puzzle.images[:0])).tensors == {}
    if knows == "none":
        return
    found = [reached(puzzle, redraws) for redraws in (0, 1, 4, 16)]
    losses = [loss(puzzle, each) for each in (Copy({}), *found)]
    assert losses == sorted(losses, reverse=True), "more draws among which to choose"
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("knows", ["none", "labels", "logits"])
def test_a_network_that_cannot_be_cut_has_its_layer_replaced_as_well(knows: str) -> None:
    puzzle = held(VictimConfig(model="test_nothing:Branching", input_size=8, layer="second"), knows=knows)
    if knows == "none":
        assert reached(puzzle).tensors.keys() <= {"second.weight"}
    else:
        assert loss(puzzle, reached(puzzle, 16)) < loss(puzzle, Copy({}))


def test_an_inputs_copies_are_passed_on_as_one() -> None:
    config = small.vgg()
    puzzle = small.puzzle(small.network(config), config, small.dataset(), images=12, knows="labels")[0]
    weight = passing(64, 392, 49)
    features = torch.randn(5, 8).repeat_interleave(49, 1)
    assert torch.allclose((features @ weight.T)[:, :8], features[:, ::49], atol=1e-5)
    assert not weight[8:].any() and passing(3, 5, 1).equal(torch.eye(3, 5))
    assert reached(puzzle).tensors.keys() <= {"classifier.0.weight"}


@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_stands_in_where_running_statistics_tell_what_it_does(bias: bool) -> None:
    """The norm then puts out its own bias, as it does for the mean of what it was trained on."""
    config = VictimConfig(model="test_nothing:normed", model_args={"bias": bias}, input_size=8, layer="3")
    model = small.network(config, 10)
    assert isinstance(model, nn.Sequential) and isinstance(model[5], nn.BatchNorm1d)
    with torch.no_grad():
        model[5].running_mean.copy_(torch.rand(16))  # type: ignore[operator, union-attr]
        model[5].bias.copy_(torch.randn(16))
    puzzle = held(config, model)
    stand_in = _stand_ins(puzzle)["mean"]
    assert stand_in.keys() == {"5.running_mean"}
    network = copied(Copy(stand_in), puzzle)
    assert isinstance(network, nn.Sequential)
    with torch.no_grad():
        normed = network[:6](puzzle.inputs(puzzle.images[:3]))
    assert torch.allclose(normed, model[5].bias.expand(3, -1), atol=1e-6)


def test_where_no_norm_follows_the_mean_is_not_known() -> None:
    assert _stand_ins(held(RESIDUAL))["mean"] == _stand_ins(held(planted.CONFIG))["mean"] == {}


def _stand_ins(puzzle: Puzzle) -> dict[str, dict[str, torch.Tensor]]:
    return Nothing().stand_ins(puzzle, Rest.of(puzzle, torch.device("cpu")), HERE)


@cache
def trained() -> tuple[Puzzle, Judge]:
    """A network that reads digits, around whose layer a residual leads."""
    data = read_dataset(DatasetConfig(kind="digits"))
    torch.manual_seed(0)
    model = Residual()
    empty, _ = small.puzzle(model, RESIDUAL, data, 8, images=100)
    planted._train(model, empty.inputs(data.victim.images), data.victim.labels)
    puzzle, answer = small.puzzle(model.eval(), RESIDUAL, data, 8, images=100)
    return puzzle, Judge(puzzle, answer, model, data, torch.device("cpu"))


def test_with_nothing_known_the_answers_choose_where_they_say_something() -> None:
    """Around the layer of the one network a residual leads, of the other all that is answered goes through it."""
    around, judge = trained()
    stand_ins = [Copy(each) for each in _stand_ins(around).values()]
    with torch.no_grad():
        said = [score(around, copied(each, around)(around.inputs(around.images))) for each in stand_ins]
    found = reached(around)
    best = stand_ins[said.index(max(said))].tensors
    assert found.tensors.keys() == best.keys() and all(found.tensors[name].equal(best[name]) for name in best)
    right = [float(judge.score(each).accuracy) for each in stand_ins]
    assert max(right) - min(right) > 0.02 and float(judge.score(found).accuracy) > max(right) - 0.02
    through = held(planted.CONFIG)
    assert reached(through).tensors == {} and min(said) > 0.5 * log(10)


def test_what_answers_say_is_their_mutual_information() -> None:
    puzzle = held(RESIDUAL)
    sure = 100 * torch.eye(10).repeat(10, 1)
    assert score(puzzle, sure) == pytest.approx(log(10), abs=1e-6)
    assert score(puzzle, sure[:1].expand(100, 10)) == pytest.approx(0, abs=1e-6)
    assert score(puzzle, torch.zeros(100, 10)) == pytest.approx(0, abs=1e-6)
    assert score(puzzle, torch.full((100, 10), torch.nan)) == -torch.inf


def test_redraws_are_as_large_as_a_new_networks_weights_and_each_another() -> None:
    puzzle = held(planted.CONFIG)
    draws = [tensors["3.weight"] for name, tensors in _stand_ins(puzzle).items() if name.startswith("redraw")]
    assert len(draws) == 4 and not torch.equal(draws[0], draws[1])
    fresh = dense_layers(planted.network())["3"].weight.detach().std()
    assert all(0.8 < float(each.std() / fresh) < 1.25 for each in draws)
