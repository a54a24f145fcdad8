"""Each verdict reached by a small real study: victims trained on real digits, attacked, controlled and judged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import small
from judged import PERCEPTRON, Victims, read_digits, verdicts
from scatterproof.victims.data import Dataset, Split, to_input

SEEDS = 6
MINUTES = 2.0  # of a victim's training
FORMS = ["told", "told+train", "told+core", "told+free"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return read_digits()


@pytest.fixture(scope="module")
def victims(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Victims:
    trained = Victims.trained(PERCEPTRON, digits, SEEDS, tmp_path_factory.mktemp("victims"))
    # A victim trains for two seconds, and on a busy machine an attack takes as long: the minutes are set, not taken
    return replace(trained, minutes=[MINUTES] * SEEDS)


def study(victims: Victims, size: int, **grid: Any) -> pd.Series:
    """The verdict on a study's only threat."""
    grids = [{"attacks": ["fingerprint"], **grid}]
    (threat,) = verdicts(victims, size, layer={"updates": 150}, grids=grids).itertuples()
    return pd.Series(threat._asdict())


def test_broken(victims: Victims) -> None:
    """20 labels train the layer to four fifths; its blocks are all placed."""
    row = study(victims, 32, images=[20], knows=["labels"])
    assert row["verdict"] == "broken" and row["gain"] > 0.1, row
    assert row["ends_with"] == pytest.approx(row["victim_accuracy"], abs=0.005)


def test_bounded(victims: Victims) -> None:
    """The layer stays at home, devices hold noise, and 20 labels leave over five points to protect."""
    row = study(victims, 32, images=[20], knows=["labels"], defences=["home"], ceilings=FORMS)
    assert row["verdict"] == "bounded" and row["headroom_low"] > 0.05, row.to_string()
    assert row["told"] == ", ".join(FORMS) and row["told_most"] < row["margin"]


def test_without_its_ceilings_the_same_is_not_bounded(victims: Victims) -> None:
    row = study(victims, 32, images=[20], knows=["labels"], defences=["home"])
    assert row["verdict"] == "not broken yet" and row["told"] == "ceiling not run", row


def test_lost(victims: Victims) -> None:
    """297 labels train the layer anew, in less time than the victim took."""
    row = study(victims, 32, images=[297], knows=["labels"])
    assert row["verdict"] == "lost" and row["withheld_accuracy"] > 0.95 * row["victim_accuracy"], row


def test_invalid(victims: Victims) -> None:
    """Of three blocks too many lie right by luck: the control with random layers can't pass."""
    row = study(victims, 32, images=[20], knows=["labels"], keep=[0.1])
    assert row["verdict"] == "invalid" and "fingerprint (control failed: random" in row["controls"], row


def test_moot(digits: Dataset, tmp_path: Path) -> None:
    """Of labels of which half are noise nobody predicts more than half; 22 logits make up for the layer, but for 3 to 4
    points of accuracy."""
    noisy = replace(digits, **{part: with_noise(getattr(digits, part)) for part in ("victim", "pirate", "test")})
    config = PERCEPTRON.model_copy(update={"train": PERCEPTRON.train.model_copy(update={"epochs": 4})})
    victims = Victims.trained(config, noisy, 10, tmp_path)
    row = study(victims, 32, images=[22], knows=["logits"], defences=["home"])
    assert row["verdict"] == "moot", row.to_string()
    assert row["victim_accuracy"] < 0.5 and 0.03 <= row["headroom"] <= 0.04


def test_not_broken_yet(digits: Dataset) -> None:
    """A layer that was never trained is drawn like noise: the fingerprint places none of its blocks, but who is told
    their places has the network."""
    untrained = Victims(PERCEPTRON, digits, [frozen(digits, seed) for seed in range(SEEDS)], [0.02] * SEEDS)
    row = study(untrained, 16, images=[20], knows=["labels"], ceilings=["told"])
    assert row["verdict"] == "not broken yet" and row["gain_most"] < 0, row
    assert row["told_accuracy"] == pytest.approx(row["victim_accuracy"])


def with_noise(split: Split, share: float = 0.55) -> Split:
    """A share of the labels drawn anew."""
    generator = torch.Generator().manual_seed(len(split))
    drawn = torch.randint(0, 10, (len(split),), generator=generator)
    return Split(split.images, torch.where(torch.rand(len(split), generator=generator) < share, drawn, split.labels))


def frozen(data: Dataset, seed: int) -> nn.Module:
    """A network of the test's own making, its layer 3 left as it was drawn."""
    torch.manual_seed(seed)
    model = small.perceptron()
    model.get_parameter("3.weight").requires_grad = False
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], 1e-3)
    images, labels = to_input(data.victim.images, 8, data.mean, data.std), data.victim.labels
    for _ in range(30):
        for part in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[part]), labels[part]).backward()
            optimizer.step()
    return model.eval()
