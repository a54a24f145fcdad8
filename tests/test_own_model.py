"""A user's own network, docs/own-model.md's MLP-Mixer: its feed-forward layers are put together again."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import small
from scatterproof.attacks.base import Machine, Placed, Run
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.study import read_study
from scatterproof.config.victim import TrainConfig, VictimConfig
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.victims.data import Dataset, read_dataset
from scatterproof.victims.training import train_victim

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
CPU = torch.device("cpu")
MIXER = VictimConfig(
    model="own_model:mixer",
    model_args={"classes": 10, "size": 16, "channels": 48, "hidden": 192, "depth": 2},
    input_size=16,
    train=TrainConfig(optimizer="adamw", lr=0.004, weight_decay=0.05, epochs=10, schedule="onecycle", augment="crop"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Dataset]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        data = read_dataset(DatasetConfig(kind="digits"))
        found = train_victim(MIXER, 0, data, CPU, 1, tmp_path_factory.mktemp("mixer") / "checkpoint.pt")
        yield found.model, data


@pytest.mark.parametrize("layer", ["blocks.0.mix_channels.0", "blocks.0.mix_channels.2"])
def test_both_layers_of_a_feed_forward_block_are_put_together(layer: str, trained: tuple[nn.Module, Dataset]) -> None:
    """The second one has no dense layer behind it but those that read the residual stream."""
    model, data = trained
    puzzle, answer = small.puzzle(model, MIXER.model_copy(update={"layer": layer}), data, 16, images=100)
    judge = PlacementEvaluator(puzzle, data.test.images, data.test.labels, CPU)
    own = float(judge.score(answer.placement.positions[None]).accuracy)
    orders = [torch.randperm(len(puzzle.blocks), generator=torch.Generator().manual_seed(s)) for s in range(5)]
    shuffled = float(judge.score(torch.stack(orders)).accuracy.mean())
    found = Fingerprint().run(puzzle, Run(Machine(CPU, 1)))[-1].reached
    assert isinstance(found, Placed)
    reached = float(judge.score(found.placement[None]).accuracy)
    assert own > 0.9
    assert shuffled < 0.8 * own, "residuals pass around the layer, but not around its loss"
    assert reached >= 0.95 * own


@pytest.mark.parametrize("name", ["own_model", "own_layers", "alexnet"])
def test_the_studies_of_the_walk_through_can_be_read(name: str) -> None:
    study = read_study(EXAMPLES / f"{name}.yaml")
    assert study.study == name.replace("_", "-")
    assert study.attacked
