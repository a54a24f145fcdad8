"""Folded training: a dense layer that reads copies is trained as their sums, to the weights of unfolded training."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import scatterproof.victims.training as victim_module
from scatterproof.analysis.tables import victim_table
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.victim import TrainConfig, VictimConfig
from scatterproof.victims.data import Dataset, read_dataset, to_input
from scatterproof.victims.models import build_model
from scatterproof.victims.recipe.folding import FoldedLinear, copied_inputs, fold, folded_layers, follow, unfold
from scatterproof.victims.training import ResumeError, Trained, train_victim
from scatterproof.victims.vision import torchvision
from small import dataset, vgg

CPU = torch.device("cpu")
DATA = dataset(victim=40)
SHORT: dict[str, Any] = {
    "lr": 0.02, "weight_decay": 0.05, "epochs": 3, "batch_size": 16, "schedule": "onecycle", "precision": "fp32",
}  # fmt: skip
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "plain": torch.optim.SGD,
    "momentum": lambda groups, **keys: torch.optim.SGD(groups, **keys, momentum=0.9),
    "nesterov": lambda groups, **keys: torch.optim.SGD(groups, **keys, momentum=0.9, nesterov=True),
    "adamw": lambda groups, **keys: torch.optim.AdamW(groups, **keys | {"lr": keys["lr"] / 10}),
}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return read_dataset(DatasetConfig(kind="digits"))


def optimiser(model: nn.Module, name: str, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    layers = folded_layers(model)
    sums = {id(layer.weight) for layer in layers}
    own = lr / 10 if name == "adamw" else lr
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in sums]},
        *(layer.group(own, weight_decay) for layer in layers),
    ]
    built = OPTIMISERS[name](groups, lr=lr, weight_decay=weight_decay)
    follow(built, layers)
    return built


def run(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """Three epochs under a learning rate that changes, with draws that depend on nothing but the step."""
    steps = 3 * -(-len(labels) // 64)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    for epoch in range(3):
        torch.manual_seed(epoch)
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()


def furthest(model: nn.Module, other: nn.Module) -> float:
    """The largest difference of a weight, relative to the largest of its tensor.

    But for biases ahead of a batch norm: they have no effect and no gradient but rounding, which Adam makes steps of.
    """
    idle = {
        f"features.{i}.bias"
        for i, module in enumerate(getattr(model, "features", []))
        if isinstance(model.features[min(i + 1, len(model.features) - 1)], nn.BatchNorm2d)
    }
    pairs = [(value, other.state_dict()[name]) for name, value in model.state_dict().items() if name not in idle]
    assert [value.shape for value, _ in pairs] == [value.shape for _, value in pairs]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs if a.is_floating_point())


def trained(path: Path, data: Dataset = DATA, threads: int = 1, model: str = "vgg16", **keys: Any) -> Trained:
    return train_victim(vgg(model=model, train=TrainConfig(**SHORT | keys)), 0, data, CPU, threads, path)


# The weights


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize(("kind", "dropout"), [("vgg16", 0.0), ("vgg16_bn", 0.5)])
def test_three_epochs_of_digits_give_the_weights_of_unfolded_training(
    digits: Dataset, kind: str, dropout: float, name: str
) -> None:
    config = VictimConfig(model=kind, width=1 / 64, dropout=dropout)
    torch.manual_seed(1)
    plain = build_model(config, digits.classes).double()
    some = digits.victim.images[:256], digits.victim.labels[:256]
    inputs = to_input(some[0], 32, digits.mean, digits.std).double()
    start, folded = deepcopy(plain), deepcopy(plain)
    assert fold(folded, inputs[:2]) == {"classifier.0": 49}
    for model in (plain, folded):
        run(model, optimiser(model, name, 0.1, 0.05), inputs, some[1])
    left = float(folded_layers(folded)[0].left)
    unfold(folded)
    assert furthest(plain, start) > 0.01
    assert furthest(folded, plain) < 1e-6
    assert 0 < left < 0.999


class Pooled(nn.Module):
    """Logits [n, 3] of [n, 2, 4, 4]: a dense layer reads 3 channels, side x side times each."""

    def __init__(self, side: int, bias: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 3, 4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(side))
        self.dense, self.last = nn.Linear(3 * side**2, 5, bias=bias), nn.Linear(5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(F.relu(self.dense(self.features(images).flatten(1))))
        return logits


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(sorted(OPTIMISERS)), st.integers(2, 4), st.booleans(), st.floats(0.001, 0.2), st.floats(0, 0.5),
    st.integers(0, 2**16),
)  # fmt: skip
def test_any_rate_decay_and_number_of_copies(
    name: str, side: int, bias: bool, lr: float, weight_decay: float, seed: int
) -> None:
    torch.manual_seed(seed)
    plain = Pooled(side, bias).double()
    inputs, labels = torch.randn(30, 2, 4, 4, dtype=torch.float64), torch.arange(30) % 3
    folded = deepcopy(plain)
    assert fold(folded, inputs[:2]) == {"dense": side**2}
    for model in (plain, folded):
        run(model, optimiser(model, name, lr, weight_decay), inputs, labels)
    unfold(folded)
    assert furthest(folded, plain) < 1e-6


@pytest.mark.parametrize("kind", ["vgg16", "vgg16_bn"])
@pytest.mark.parametrize("keys", [{}, {"optimizer": "adamw", "lr": 1e-3}])
def test_one_step_in_single_precision_is_the_unfolded_one(tmp_path: Path, kind: str, keys: dict[str, Any]) -> None:
    one = {"epochs": 1, "batch_size": 40, "schedule": "constant"} | keys
    folded, plain = (trained(tmp_path / fold, model=kind, fold=fold, **one) for fold in ("auto", "never"))
    assert furthest(folded.model, plain.model) < 1e-5


def test_nothing_is_lost_on_the_way_to_sums_and_back() -> None:
    model = Pooled(3, True)
    before = deepcopy(model)
    fold(model, torch.randn(2, 2, 4, 4))
    assert list(model.dense.weight.shape) == [5, 3]
    unfold(model)
    assert isinstance(model.dense, nn.Linear) and furthest(model, before) < 1e-6


def test_an_optimiser_whose_decay_is_not_known_is_refused() -> None:
    model = Pooled(2, True)
    inputs = torch.randn(2, 2, 4, 4)
    fold(model, inputs)
    groups = [layer.group(0.1, 0.1) for layer in folded_layers(model)]
    optimizer = torch.optim.RMSprop(groups, lr=0.1)
    follow(optimizer, folded_layers(model))
    model(inputs).sum().backward()
    with pytest.raises(ValueError, match="folded training needs AdamW, or SGD without dampening"):
        optimizer.step()


# Where it is done


def test_a_victim_says_what_was_folded_and_the_key_turns_it_off(tmp_path: Path) -> None:
    folded = trained(tmp_path / "a", epochs=1)
    plain = trained(tmp_path / "b", epochs=1, fold="never")
    assert (folded.folded, plain.folded) == ({"classifier.0": 49}, {})
    assert [type(model.classifier[0]) for model in (folded.model, plain.model)] == [nn.Linear, nn.Linear]
    assert list(folded.model.state_dict()) == list(plain.model.state_dict())


def test_a_victim_of_an_older_version_was_not_folded(tmp_path: Path) -> None:
    keys = ("model", "width", "input_size", "copies", "parameters", "classes", "chance", "accuracy", "loss", "epochs")
    older = dict.fromkeys((*keys, "device", "device_minutes", "gpu_minutes"), 1)
    older |= {"layer": "classifier.0", "block_size": 16, "grids": {}}
    for name, more in (("old", {}), ("new", {"folded": "classifier.0"})):
        (tmp_path / name).write_text(json.dumps(older | more))
    table = victim_table("study", [("victim", 0), ("victim", 1)], [str(tmp_path / name) for name in ("old", "new")])
    assert table["folded"].tolist() == ["", "classifier.0"]


def test_the_key_at_its_default_leaves_a_rules_recipe_as_it_was() -> None:
    assert "fold" not in VictimConfig().model_dump()["train"]
    never = VictimConfig(train=TrainConfig(fold="never"))
    assert VictimConfig.model_validate_json(never.model_dump_json()) == never


@pytest.mark.parametrize("size", [28, 64])
def test_inputs_that_are_no_copies_are_not_folded(size: int) -> None:
    model = build_model(VictimConfig(width=1 / 64, input_size=28 if size == 28 else 224), 5)
    assert copied_inputs(model, torch.randn(2, 3, size, size)) == {}


def test_dropout_before_the_layer_tells_copies_apart_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    model = torchvision.models.alexnet(num_classes=5)
    assert copied_inputs(model, torch.randn(2, 3, 64, 64)) == {}
    assert "classifier.1 is not trained folded: its inputs are 36 copies each" in capsys.readouterr().out
    model.classifier[0] = nn.Identity()
    assert copied_inputs(model, torch.randn(2, 3, 64, 64)) == {"classifier.1": 36}


class Named(Pooled):
    """Hands its dense layer the input by name."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(F.relu(self.dense(input=self.features(images).flatten(1))))
        return logits


def test_an_input_may_be_handed_over_by_name() -> None:
    model, inputs = Named(2, True), torch.randn(2, 2, 4, 4)
    before = model(inputs)
    assert fold(model, inputs) == {"dense": 4}
    assert torch.allclose(model(inputs), before, atol=1e-6)


class Twice(Pooled):
    """Its dense layer's weight has a second use, by another name."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + self.dense.weight.sum()


class Equal(Pooled):
    """Its inputs are equal pairs in value, each with a gradient of its own."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        one = nn.functional.adaptive_avg_pool2d(images, (1, 1)).flatten(1)
        pairs = torch.stack([one, one * 1.0], 2).flatten(1).repeat_interleave(3, 1)
        logits: torch.Tensor = self.last(self.dense(pairs))
        return logits


@pytest.mark.parametrize("kind", [Twice, Equal])
def test_what_only_looks_like_copies_is_not_folded(kind: type[Pooled]) -> None:
    assert copied_inputs(kind(2, True), torch.randn(2, 2, 4, 4)) == {}


def test_a_frozen_layer_is_not_folded() -> None:
    model = Pooled(2, True)
    model.dense.weight.requires_grad_(False)
    assert fold(model, torch.randn(2, 2, 4, 4)) == {}


def test_looking_for_copies_leaves_network_and_draws_as_they_were() -> None:
    model = build_model(VictimConfig(model="vgg16_bn", width=1 / 64), 5).eval()
    before = deepcopy(model.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    copied_inputs(model, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.rand(4), expected)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Resuming


@pytest.mark.parametrize("keys", [{}, {"optimizer": "adamw", "lr": 1e-3}])
def test_a_run_killed_after_an_epoch_ends_as_the_uninterrupted_one_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    whole = trained(tmp_path / "whole", model="vgg16_bn", **keys)
    save = victim_module._save

    def killed(*args: Any) -> None:
        save(*args)
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(victim_module, "_save", killed)
            trained(tmp_path / "c", model="vgg16_bn", **keys)
    resumed = trained(tmp_path / "c", model="vgg16_bn", **keys)
    assert len(resumed.curve) == 3
    assert [point.train_loss for point in resumed.curve] == [point.train_loss for point in whole.curve]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_checkpoint_holds_the_sums_alone(tmp_path: Path) -> None:
    folded = trained(tmp_path / "c", epochs=1)
    state = torch.load(tmp_path / "c", weights_only=True)["model"]
    assert list(state["classifier.0.weight"].shape) == [64, 8]
    parameters = sum(value.numel() for value in folded.model.parameters())
    assert sum(value.numel() for value in state.values()) == parameters - 64 * 8 * 48 + 2


def test_a_checkpoint_of_unfolded_training_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "c", epochs=1, fold="never")
    with pytest.raises(ResumeError, match="fold"):
        trained(tmp_path / "c", epochs=1)


def test_a_folded_layer_needs_no_bias() -> None:
    layer = nn.Linear(8, 3, bias=False)
    inputs = torch.randn(5, 2).repeat_interleave(4, 1)
    assert torch.allclose(FoldedLinear(layer, 4)(inputs), layer(inputs), atol=1e-6)
