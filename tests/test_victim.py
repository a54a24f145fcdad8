"""Training: it learns, repeats to the last bit however often interrupted, and fails clearly."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import scatterproof.victims.training as victim_module
from scatterproof.config.victim import TrainConfig, VictimConfig
from scatterproof.victims.data import Dataset
from scatterproof.victims.models import ModelError
from scatterproof.victims.recipe.augment import augment
from scatterproof.victims.recipe.optimizer import make_optimizer
from scatterproof.victims.recipe.schedule import rate_factor
from scatterproof.victims.training import DivergenceError, ResumeError, Trained, curve_table, measure, obtain_victim
from small import dataset, network, vgg

CPU = torch.device("cpu")
DATA = dataset(victim=33)  # the last batch of 16 holds one image
SHORT: dict[str, Any] = {
    "optimizer": "adamw", "lr": 3e-3, "epochs": 3, "batch_size": 16, "schedule": "cosine", "precision": "fp32",
}  # fmt: skip


def recipe(**keys: Any) -> VictimConfig:
    return VictimConfig(model="small:tiny", train=TrainConfig(**(SHORT | keys)))


def train(config: VictimConfig, path: Path, seed: int = 0, data: Dataset = DATA, threads: int = 1) -> Trained:
    return obtain_victim(config, seed, data, CPU, threads, path)


def interrupt_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is killed once its checkpoint of this epoch is written."""
    save = victim_module._save

    def saved(*args: Any) -> None:
        save(*args)
        if len(args[-1]) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(victim_module, "_save", saved)


def bits(trained: Trained) -> dict[str, bytes]:
    return {name: value.contiguous().numpy().tobytes() for name, value in trained.model.state_dict().items()}


def points(trained: Trained) -> list[tuple[int, float, float]]:
    return [(point.epoch, point.train_loss, point.accuracy) for point in trained.curve]


# Training


def test_it_learns(tmp_path: Path) -> None:
    trained = train(recipe(epochs=12, lr=1e-2, augment="none"), tmp_path / "c")
    assert [point.epoch for point in trained.curve] == list(range(1, 13))
    assert trained.curve[-1].train_loss < 0.7 * trained.curve[0].train_loss
    minutes = [point.minutes for point in trained.curve]
    assert minutes == sorted(minutes)
    assert trained.minutes == minutes[-1] > 0
    assert not trained.model.training
    assert measure(trained.model, DATA, DATA.test, 32, CPU)[0] == trained.curve[-1].accuracy
    assert trained.curve[-1].accuracy > 0.6  # chance is 0.2
    assert curve_table(trained.curve)["epoch"].tolist() == list(range(1, 13))


RECIPES: list[dict[str, Any]] = [
    {},
    {"optimizer": "sgd", "lr": 0.01, "schedule": "onecycle", "augment": "crop"},
    {"schedule": "step", "milestones": [1, 2], "label_smoothing": 0.1, "channels_last": False},
]


@pytest.mark.parametrize("keys", RECIPES)
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    whole = train(recipe(**keys), tmp_path / "whole")
    for epochs in (1, 2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(epochs, patch)
            train(recipe(**keys), tmp_path / "c")
        torch.manual_seed(epochs)  # another process has drawn otherwise
        torch.rand(17)
    resumed = train(recipe(**keys), tmp_path / "c")
    assert whole.minutes_before == 0 and resumed.minutes_before == resumed.curve[1].minutes
    assert points(resumed) == points(whole)
    assert bits(resumed) == bits(whole)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(recipe(epochs=1), tmp_path / "c")
    monkeypatch.setattr(victim_module, "_train_epoch", None)
    again = train(recipe(epochs=1), tmp_path / "c")
    assert again.curve == first.curve
    assert bits(again) == bits(first)


def test_seeds_give_different_victims(tmp_path: Path) -> None:
    one, other = (train(recipe(epochs=1), tmp_path / str(seed), seed) for seed in (1, 2))
    assert bits(one) != bits(other)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda path: train(recipe(epochs=1, lr=0.5), path), "victim.train.lr was 0.003, is 0.5"),
        (lambda path: train(recipe(epochs=1, optimizer="sgd"), path), "victim.train.optimizer was 'adamw', is 'sgd'"),
        (lambda path: train(recipe(epochs=1, precision="bf16"), path), "bf16 was False, is True"),
        (lambda path: train(recipe(epochs=1), path, seed=5), "seed was 0, is 5"),
        (lambda path: train(recipe(epochs=1), path, threads=2), "threads was 1, is 2"),
        (lambda path: train(recipe(epochs=1), path, data=dataset(victim=34)), "split was [0, 33, 1, 8, 8], is [0, 34"),
    ],
)
def test_a_resume_under_other_terms_is_refused(tmp_path: Path, change: Callable[[Path], Trained], named: str) -> None:
    train(recipe(epochs=1), tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(ResumeError) as caught:
        change(tmp_path / "c")
    message = str(caught.value)
    assert named in message
    assert str(tmp_path / "c") in message
    assert "model_args" not in message  # only what differs is named
    assert "\n" not in message
    assert (tmp_path / "c").read_bytes() == before


def test_divergence_is_one_clear_line(tmp_path: Path) -> None:
    config = vgg(train=TrainConfig(**SHORT | {"optimizer": "sgd", "lr": 1e6}))
    with pytest.raises(DivergenceError, match=r"diverged in epoch \d+ .*lower victim.train.lr, now 1000000.0$"):
        train(config, tmp_path / "c")


@pytest.mark.parametrize("keys", [{"precision": "bf16"}, {"precision": "auto", "channels_last": False}])
def test_mixed_precision_trains_weights_in_full_precision(tmp_path: Path, keys: dict[str, Any]) -> None:
    trained = train(vgg(model="vgg16_bn", train=TrainConfig(**SHORT | {"epochs": 1} | keys)), tmp_path / "c")
    assert math.isfinite(trained.curve[0].train_loss)
    assert {value.dtype for value in trained.model.parameters()} == {torch.float32}


# A checkpoint of the user's own


@pytest.mark.parametrize("name", ["own{seed}.safetensors", "own{seed}-{epoch}.safetensors"])
def test_a_checkpoint_is_read_and_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(victim_module, "_train_epoch", None)
    model = network(vgg())
    save_file(model.state_dict(), tmp_path / name.replace("{seed}", "7"))
    found = train(vgg(kind="checkpoint", checkpoint=str(tmp_path / name)), tmp_path / "c", seed=7)
    assert bits(found) == bits(Trained(model, [], 0.0))
    assert (found.curve, found.minutes, found.model.training) == ([], 0.0, False)
    assert not (tmp_path / "c").exists()
    assert list(curve_table(found.curve).columns) == ["epoch", "minutes", "train_loss", "accuracy"]
    with pytest.raises(ModelError, match=r"own8.*no such file"):
        train(vgg(kind="checkpoint", checkpoint=str(tmp_path / name)), tmp_path / "c", seed=8)


# Schedules


def rates(steps: int = 10, **keys: Any) -> list[float]:
    factor = rate_factor(TrainConfig(**keys), steps)
    return [factor(step) for step in range(steps * keys["epochs"])]


def test_schedules() -> None:
    assert rates(schedule="constant", epochs=3) == [1.0] * 30
    stepped = rates(schedule="step", epochs=4, milestones=[1, 3], gamma=0.5)
    assert stepped == [1.0] * 10 + [0.5] * 20 + [0.25] * 10
    cosine = rates(schedule="cosine", epochs=4)
    assert cosine == pytest.approx([(1 + math.cos(math.pi * i / 40)) / 2 for i in range(40)], abs=1e-6)
    cycle = rates(schedule="onecycle", epochs=10)
    assert max(cycle) == cycle[30] == 1.0
    assert cycle[:31] == sorted(cycle[:31])
    assert cycle[30:] == sorted(cycle[30:], reverse=True)
    assert min(cycle) > 0


def test_biases_and_batch_norms_have_no_weight_decay() -> None:
    model = network(recipe())
    for name in ("sgd", "adamw"):
        optimizer = make_optimizer(model, TrainConfig(optimizer=name, weight_decay=0.1))
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        for key, value in model.named_parameters():
            spared = key.endswith("bias") or value.ndim == 1
            assert decay[id(value)] == (0.0 if spared else 0.1), key


# Augmentation


@settings(deadline=None)
@given(st.sampled_from(["none", "crop", "crop_flip"]), st.integers(2, 20), st.integers(2, 20), st.integers(1, 3))
def test_augmentation_keeps_shape_type_and_grey_levels(kind: str, height: int, width: int, channels: int) -> None:
    images = torch.randint(0, 256, (3, channels, height, width), dtype=torch.uint8)
    found = augment(images, kind)
    assert (found.shape, found.dtype) == (images.shape, torch.uint8)
    for before, after in zip(images, found, strict=True):
        assert set(after.flatten().tolist()) <= set(before.flatten().tolist())


def test_each_image_has_a_draw_of_its_own() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    torch.manual_seed(0)
    seen = {found.numpy().tobytes() for found in augment(image.repeat(300, 1, 1, 1), "crop_flip")}
    assert len(seen) == 18  # 3 x 3 crops, each mirrored or not
    assert len({found.numpy().tobytes() for found in augment(image.repeat(300, 1, 1, 1), "crop")}) == 9
    padded = torch.nn.functional.pad(image.float(), (1,) * 4, mode="reflect").to(torch.uint8)[0, 0]
    crops = {padded[i : i + 8, j : j + 8].contiguous().numpy().tobytes() for i in range(3) for j in range(3)}
    assert crops < seen


def test_crops_keep_channels_together() -> None:
    image = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8).repeat(20, 3, 1, 1)
    found = augment(image, "crop_flip")
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])


def test_a_dataset_of_one_image_more_than_a_batch_still_trains(tmp_path: Path) -> None:
    small = dataclasses.replace(DATA, victim=dataset(victim=17).victim)
    assert math.isfinite(train(recipe(epochs=1), tmp_path / "c", data=small).curve[0].train_loss)
