"""Attacks that train: they learn, from what they are granted alone, resume to the bit, and spoil no start."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import planted
import small
from scatterproof.attacks import ATTACKS
from scatterproof.attacks.base import Attack, AttackError, Copy, Machine, Run
from scatterproof.attacks.runner import make_attack
from scatterproof.attacks.training import fitting
from scatterproof.attacks.training.base import assembled
from scatterproof.attacks.training.cached import cache as cached
from scatterproof.attacks.training.finetune import Finetune
from scatterproof.attacks.training.fitting import Fit, Start
from scatterproof.attacks.training.from_blocks import Blocks
from scatterproof.attacks.training.layer import Layer
from scatterproof.attacks.training.surrogate import Surrogate
from scatterproof.config.attacks import NEEDS, AttackGrid, AttacksConfig, attacks_on
from scatterproof.config.study import StudyError, parse_study
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.judging.controls import Controls
from scatterproof.judging.judge import Judge, copied
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims import training as victim
from scatterproof.victims.data import Dataset
from scatterproof.victims.models import dense_layers

CPU = torch.device("cpu")
MACHINE = Machine(CPU, 1)
HERE = Run(MACHINE, ("test",))
LIGHT: dict[str, dict[str, Any]] = {
    "probe": {"updates": 120},
    "layer": {"updates": 120},
    "finetune": {"updates": 24},
    "blocks": {"updates": 120},
    "surrogate": {"updates": 160, "models": [{"width": 1.0}, {"model": "small:narrow"}], "train": {"lr": 0.05}},
}
WITHHELD = [name for name in LIGHT if NEEDS[name].role == "withheld"]


def light(name: str) -> Attack[Any]:
    return ATTACKS[name](called=[Layer(updates=80)] if name == "finetune" else [], **LIGHT[name])


@cache
def trained_victim() -> tuple[nn.Module, Dataset]:
    """That of the planted puzzle, which reads handwritten digits."""
    puzzle, answer, dataset = planted.planted_puzzle(0)
    model = puzzle.model()
    with torch.no_grad():
        dense_layers(model)["3"].weight.copy_(assembled(puzzle, answer.placement.positions)["3"])
    return model, dataset


@cache
def held(images: int = 150, knows: str = "labels", share: float = 1.0, scatter: str = "layer") -> tuple[Puzzle, Answer]:
    model, dataset = trained_victim()
    about = {"images": images, "knows": knows, "share": share, "scatter": scatter}
    return small.puzzle(model, planted.CONFIG, dataset, planted.BLOCK, **about)


def judged(puzzle: Puzzle, answer: Answer, reached: Any) -> float:
    model, dataset = trained_victim()
    return float(Judge(puzzle, answer, model, dataset, CPU).score(reached).accuracy)


@cache
def reached(name: str, knows: str = "labels") -> Copy:
    found = light(name).run(held(knows=knows)[0], HERE)[-1].reached
    assert isinstance(found, Copy)
    return found


def same(first: Copy, second: Copy) -> bool:
    assert first.config == second.config
    return all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors | second.tensors)


@pytest.mark.parametrize("knows", ["labels", "logits"])
@pytest.mark.parametrize("name", LIGHT)
def test_it_learns_from_labels_and_from_logits(name: str, knows: str) -> None:
    """Ten classes, a victim of 96 %, and nothing reaches 30 % with the layer left zero."""
    puzzle, answer = held(knows=knows)
    assert judged(puzzle, answer, Copy({})) < 0.3
    assert judged(puzzle, answer, reached(name, knows)) > 0.7


@pytest.mark.parametrize("name", WITHHELD)
def test_without_the_blocks_nothing_of_them_is_seen(name: str) -> None:
    puzzle = held()[0]
    spoilt = replace(puzzle, blocks=torch.full_like(puzzle.blocks, torch.nan))
    found = light(name).run(spoilt, HERE)[-1].reached
    assert isinstance(found, Copy)
    assert same(found, reached(name))


@pytest.mark.parametrize("name", LIGHT)
def test_the_puzzle_and_the_key_decide_every_bit(name: str) -> None:
    torch.manual_seed(5)  # whatever the global generator has seen
    found = light(name).run(held()[0], HERE)[-1].reached
    other = light(name).run(held()[0], Run(MACHINE, ("other",)))[-1].reached
    assert isinstance(found, Copy)
    assert isinstance(other, Copy)
    assert same(found, reached(name))
    assert not same(other, reached(name))


class Killed(Exception):
    """What stops a run here."""


@pytest.mark.parametrize("name", ["probe", "layer", "blocks"])
def test_a_killed_training_goes_on_after_what_was_finished(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, losses = Run(MACHINE, ("test",), tmp_path), Fit._losses
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Fit, "_losses", lambda self, *kind: losses(self, *kind) if kind[1] < 0.05 else kill())
        light(name).run(held()[0], run)
    made: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_losses", lambda self, *kind: made.append(kind[1]) or losses(self, *kind))
        snapshot = light(name).run(held()[0], run)[-1]
    assert min(made) >= 0.05, "what was finished is not done again"
    assert isinstance(snapshot.reached, Copy)
    assert same(snapshot.reached, reached(name))


def kill() -> Any:
    raise Killed


def test_a_killed_surrogate_goes_on_from_its_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, save = Run(MACHINE, ("test",), tmp_path), victim._save
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(victim, "_save", lambda *state: save(*state) if len(state[-1]) < 3 else kill())
        light("surrogate").run(held()[0], run)
    (checkpoint,) = tmp_path.iterdir()
    spent = torch.load(checkpoint)["curve"][-1]["minutes"]
    snapshot = light("surrogate").run(held()[0], run)[-1]
    assert isinstance(snapshot.reached, Copy)
    assert same(snapshot.reached, reached("surrogate"))
    again = light("surrogate").run(held()[0], run)[-1]
    assert again.minutes > spent, "minutes of killed attempts count"


@pytest.mark.parametrize(
    ("name", "threat", "named"),
    [
        ("layer", {"images": 4}, "layer needs at least 5 images, the threat grants 4"),
        ("probe", {"images": 4}, "probe needs at least 5 images, the threat grants 4"),
        ("finetune", {"images": 4}, "finetune needs at least 5 images, the threat grants 4"),
        ("blocks", {"images": 4}, "blocks needs at least 5 images, the threat grants 4"),
        ("surrogate", {"images": 49}, "surrogate needs at least 50 images, the threat grants 49"),
        ("layer", {"knows": "none"}, "layer needs labels or logits of its images, the threat grants none"),
        ("blocks", {"scatter": "dense"}, "blocks needs what is scattered to be layer, the threat scatters dense"),
    ],
)
def test_a_threat_that_grants_too_little_is_refused_by_name(name: str, threat: dict[str, Any], named: str) -> None:
    with pytest.raises(AttackError, match=f"^{named}$"):
        light(name).run(held(**threat)[0], HERE)


@pytest.mark.parametrize("name", ["layer", "finetune", "probe"])
def test_five_images_are_enough_to_run_and_several_layers_may_be_missing(name: str) -> None:
    puzzle, answer = held(images=5)
    assert judged(puzzle, answer, light(name).run(puzzle, HERE)[-1].reached) > 0.1
    puzzle, answer = held(scatter="dense")
    assert judged(puzzle, answer, light(name).run(puzzle, HERE)[-1].reached) > 0.7


def blocks_fit(rates: tuple[float, ...], images: int = 20) -> tuple[Fit, Start]:
    """`blocks`, begun from the true placement."""
    puzzle, answer = held(images=images)
    task = cached(puzzle, CPU)
    start = Start.at(task.folded(assembled(puzzle, answer.placement.positions)))
    return Fit(task, {"placed": start}, Blocks(rates=list(rates), updates=40).recipe, ("test",)), start


@pytest.mark.parametrize("rates", [(0.05,), (0.5, 5.0)])
@pytest.mark.parametrize("images", [6, 20, 150])
def test_no_start_is_made_worse_on_the_images_held_out(rates: tuple[float, ...], images: int) -> None:
    fit, _ = blocks_fit(rates, images)
    choice = fit.choose()
    assert choice.loss <= choice.start_loss
    train, held_out = fit.split()
    found = fit.trained(choice, train)
    logits = fit.task.logits(found, fit.task.inputs(held_out, False))
    assert fitting.held_out_loss(logits, fit.task.targets[held_out]) == pytest.approx(choice.loss, abs=1e-5)


def test_a_start_that_training_only_spoils_is_returned_as_it_is() -> None:
    fit, start = blocks_fit((1e4,))
    choice, found = fit.run()
    assert choice.updates == 0
    assert all(torch.equal(found[name], start.parameters[name]) for name in found)


def test_decay_draws_to_the_start() -> None:
    fit, start = blocks_fit((0.05,))
    moved = []
    for decay in (0.0, 1.0, 10.0):
        *_, (_, found) = fit._train("placed", 0.05, decay, torch.arange(20), 40)
        moved.append(float((found["3"] - start.anchor["3"]).norm()))
    assert moved[0] > moved[1] > moved[2] > 0


def test_the_images_held_out_teach_nothing_while_choosing() -> None:
    fit, _ = blocks_fit((0.05,), 150)
    _, held_out = fit.split()
    spoilt = fit.task.targets.clone()
    spoilt[held_out] = 0
    other = replace(fit, task=replace(fit.task, targets=spoilt))  # type: ignore[type-var]
    train, _ = other.split()
    first, second = (each._train("placed", 0.05, 0.0, train, 10) for each in (fit, other))
    for (_, one), (_, two) in zip(first, second, strict=True):
        assert torch.equal(one["3"], two["3"])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 5))
def test_a_pass_takes_each_image_at_most_once_and_leaves_out_less_than_a_batch(n: int, batch: int, passes: int) -> None:
    index = torch.arange(n) + 7
    a_pass = n // min(batch, n)
    for number in range(passes):
        seen = torch.cat([fitting.drawn(index, number * a_pass + at, batch, ("test",)) for at in range(a_pass)])
        assert len(seen.unique()) == len(seen) > n - min(batch, n)
        assert torch.isin(seen, index).all()


# Copied channels, and networks that resist


def copying(images: int = 12) -> tuple[Puzzle, Answer]:
    """A VGG whose layer reads each channel 49 times."""
    config = small.vgg()
    return small.puzzle(small.network(config), config, small.dataset(), images=images, knows="labels")


def test_the_copy_computes_what_was_trained_where_channels_are_copied() -> None:
    puzzle, answer = copying()
    task = cached(puzzle, CPU)
    assert task.copies == 49
    own = assembled(puzzle, answer.placement.positions)
    folded = task.folded(own)
    assert torch.allclose(task.folded(task.unfolded(folded))["classifier.0"], folded["classifier.0"], atol=1e-5)
    inputs = puzzle.inputs(puzzle.images)
    for weights in (own, task.unfolded(folded)):
        copy = Copy({"classifier.0.weight": weights["classifier.0"]})
        expected = task.logits(folded, task.inputs(torch.arange(12), False))
        assert torch.allclose(copied(copy, puzzle)(inputs), expected, atol=1e-3)


class Repeating(nn.Module):
    """Its second layer reads each input four times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(192, 32), nn.Linear(128, 32), nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        repeated = torch.tanh(self.first(images.flatten(1))).repeat_interleave(4, 1)
        logits: torch.Tensor = self.third(torch.relu(self.second(repeated)))
        return logits


@pytest.mark.parametrize("name", ["probe", "layer", "finetune", "blocks"])
def test_they_learn_where_channels_are_copied(name: str) -> None:
    config = VictimConfig(model="test_retrain_attacks:Repeating", input_size=8, layer="second")
    model, dataset = small.network(config, 10), trained_victim()[1]
    puzzle, answer = small.puzzle(model, config, dataset, 8, images=150, knows="labels")
    assert cached(puzzle, CPU).copies == 4
    found = light(name).run(puzzle, HERE)[-1].reached
    assert float(Judge(puzzle, answer, model, dataset, CPU).score(found).accuracy) > 0.6


def test_rows_are_rescaled_by_the_share_of_their_inputs_held() -> None:
    puzzle, answer = held(share=0.5)
    layer = dense_layers(trained_victim()[0])["3"].weight.detach()
    found = assembled(puzzle, answer.placement.positions)["3"]
    here = found != 0
    rows = here.float().mean(1, keepdim=True).clamp(min=1e-9)
    assert torch.allclose(found[here], (layer / rows)[here])


class Stubborn(nn.Module):
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


def test_a_network_that_cannot_be_cut_is_retrained_whole_and_probed_never() -> None:
    config = VictimConfig(model="test_retrain_attacks:Stubborn", input_size=8, layer="second")
    dataset = trained_victim()[1]
    model = small.network(config, 10)
    puzzle, answer = small.puzzle(model, config, dataset, 8, images=150, knows="labels")
    found = Layer(updates=120).run(puzzle, HERE)[-1].reached
    assert float(Judge(puzzle, answer, model, dataset, CPU).score(found).accuracy) > 0.7
    with pytest.raises(AttackError, match=r"^probe needs a network that torch\.fx can trace and cut before the layer$"):
        light("probe").run(puzzle, HERE)


# The controls, and the study


@pytest.mark.slow
@pytest.mark.parametrize("knows", ["labels", "logits"])
def test_blocks_pass_their_controls(knows: str) -> None:
    """Found where a leak is planted, and nothing where the layer is drawn at random."""
    config = AttacksConfig.model_validate({"control_shuffles": 10, "blocks": {"updates": 40}})
    model, data = small.network(small.WIDE), small.dataset(pirate=100, test=500)
    controls = Controls(config, model, small.WIDE, data, 16, ("test",), MACHINE)
    rows = controls.rows("blocks", ThreatModel.model_validate({"images": 100, "knows": knows}))
    assert [row["control"] for row in rows] == ["planted", "random"]
    assert all(row["passed"] for row in rows), rows


def test_the_study_sets_every_hyperparameter() -> None:
    config = AttacksConfig.model_validate(
        {"layer": {"updates": 11}, "blocks": {"decays": [2.0]}, "surrogate": {"models": [{"width": 0.5}]}}
    )
    layer, blocks, finetune, surrogate = (
        make_attack(config, each) for each in ("layer", "blocks", "finetune", "surrogate")
    )
    assert isinstance(layer, Layer) and layer.recipe.updates == 11
    assert isinstance(blocks, Blocks) and blocks.recipe.decays == (2.0,)
    assert isinstance(finetune, Finetune) and finetune.calling(Layer).recipe.updates == 11
    task = cached(held()[0], CPU)
    assert finetune.layer_fit(held()[0], task, HERE).recipe.updates == 11, "its first stage is trained as layer is"
    assert isinstance(surrogate, Surrogate) and [each.width for each in surrogate.configs(held()[0])] == [0.5]


def test_the_layer_is_retrained_wherever_something_is_known_of_enough_images() -> None:
    grid = AttackGrid.model_validate({"images": [0, 4, 100], "knows": ["none", "labels", "logits"]})
    found = attacks_on(AttacksConfig(grids=[grid]), "layer")
    with_layer = {name for name, (_, attacks) in found.items() if "layer" in attacks}
    assert with_layer == {"layer-1-100-labels", "layer-1-100-logits"}


@pytest.mark.parametrize(
    ("surrogate", "named"),
    [
        ({"train": {"lr": -1.0}}, "attacks.surrogate.train.lr"),
        ({"train": {"speed": 1.0}}, "attacks.surrogate.train.speed: unknown key"),
        ({"train": {"epochs": 3}}, "attacks.surrogate.train.epochs: they follow from attacks.surrogate.updates"),
        ({"models": [{"model": "resnet"}]}, "victim.model 'resnet': expected"),
        ({"models": []}, "attacks.surrogate.models"),
    ],
)
def test_a_surrogate_that_cannot_be_trained_is_refused_before_anything_runs(
    surrogate: dict[str, Any], named: str
) -> None:
    with pytest.raises(StudyError) as error:
        parse_study({"study": "wrong", "attacks": {"surrogate": surrogate}}, "wrong.yaml")
    assert named in str(error.value)
    assert "\n" not in str(error.value)
