"""Neuron alignment in transformers: a planted one is found, alone and in a heap; random weights give nothing away."""

from pathlib import Path

import pytest
import torch

import transformers_folders as folders
from scatterproof.attacks.base import Machine, Placed, Run
from scatterproof.attacks.fingerprint.alignment import alignment_evidence
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import find_surroundings
from scatterproof.attacks.fingerprint.heap import heap_of
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.judging.judge import placed
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.arrays import Split
from scatterproof.victims.data import Dataset
from scatterproof.victims.hf.text_network import TextNetwork, hf_network
from scatterproof.victims.models import dense_layers

CLASSES, SIDE, CPU = 20, 8, torch.device("cpu")
UP, DOWN = "encoder.layer.{}.intermediate.dense", "encoder.layer.{}.output.dense"
PAIRS = [name.format(layer) for layer in (0, 1) for name in (UP, DOWN)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.write_folder(tmp_path_factory.mktemp("bert"), "bert")


def network(folder: Path, seed: int, planted: bool) -> TextNetwork:
    """Random weights; planted: each neuron writes along or against what it reads, the larger its weights are the lower
    its bias, and slices of the stream differ in scale as its readers and writers do."""
    model = hf_network(VictimConfig(kind="checkpoint", model=f"hf:{folder}"), CLASSES, weights=True)
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    layers = dense_layers(model)
    with torch.no_grad():
        for layer in layers.values():
            layer.weight.copy_(0.1 * noise(*layer.weight.shape))
        stream = torch.exp(0.3 * noise(32))
        for at in (0, 1) if planted else ():
            up, down = layers[UP.format(at)], layers[DOWN.format(at)]
            size, sign = torch.exp(0.6 * noise(64)), noise(64).sign()
            shared = noise(64, 32)
            up.weight.copy_(0.1 * size[:, None] * (shared + 0.4 * noise(64, 32)) / stream)
            down.weight.copy_((0.1 * (size * sign)[:, None] * (shared + 0.4 * noise(64, 32)) * stream).T)
            up.bias.copy_(-size.log() + 0.1 * noise(64))
            for name in ("attention.self.query", "attention.self.key", "attention.self.value"):
                layers[f"encoder.layer.{at}.{name}"].weight.div_(stream)
            layers[f"encoder.layer.{at}.attention.output.dense"].weight.mul_(stream[:, None])
    return model.eval()


def cut(folder: Path, model: TextNetwork, seed: int, layers: list[str], images: int = 20) -> tuple[Puzzle, Answer]:
    generator = torch.Generator().manual_seed(100 + seed)
    ids = torch.randint(5, folders.VOCABULARY, (60, 12), generator=generator)
    split = Split(ids, torch.arange(60) % CLASSES)
    data = Dataset("ids", CLASSES, split, split, split, (), (), "made here", 0)
    config = VictimConfig(kind="checkpoint", model=f"hf:{folder}", layer=layers[0], layers=layers)
    threat = ThreatModel(images=images, scatter="dense" if len(layers) > 1 else "layer")
    return make_puzzle(model, config, data, threat, SIDE, (seed, "ids", 0))


def share(puzzle: Puzzle, answer: Answer) -> float:
    reached = Fingerprint().run(puzzle, Run(Machine(CPU, 1)))[-1].reached
    assert isinstance(reached, Placed)
    return placed(reached, puzzle, answer)["position_accuracy"]


@pytest.mark.parametrize("layer", [UP.format(0), DOWN.format(1)])
@pytest.mark.parametrize("images", [20, 0])
def test_a_planted_alignment_places_a_layer(layer: str, images: int, folder: Path) -> None:
    model = network(folder, 0, planted=True)
    assert share(*cut(folder, model, 0, [layer], images)) > 0.9


def test_a_change_of_scale_hides_nothing(folder: Path) -> None:
    """Each neuron's weights times a factor, its partner's by the inverse."""
    model = network(folder, 1, planted=True)
    factors = torch.exp(2 * torch.randn(64, generator=torch.Generator().manual_seed(3)))
    ratios = []
    for scaled in (False, True):
        layers = dense_layers(model)
        if scaled:
            layers[UP.format(0)].weight.data *= factors[:, None]
            layers[DOWN.format(0)].weight.data /= factors
        puzzle, _ = cut(folder, model, 1, [UP.format(0)])
        around = find_surroundings(puzzle, UP.format(0), CPU)
        ratios.append(alignment_evidence(puzzle.blocks, around))
    torch.testing.assert_close(ratios[0], ratios[1], rtol=1e-3, atol=1e-3)


def test_a_heap_of_all_feed_forward_layers(folder: Path) -> None:
    """Four layers' blocks, nothing placed, no input."""
    model = network(folder, 2, planted=True)
    puzzle, answer = cut(folder, model, 2, PAIRS, images=0)
    assert heap_of(puzzle, puzzle.blocks) is not None
    assert share(puzzle, answer) > 0.5  # of blocks of 8 x 8, where chance is 1 in 128


@pytest.mark.parametrize(
    "layers",
    [
        [UP.format(0)],
        [DOWN.format(0)],
        ["encoder.layer.0.attention.self.query"],
        pytest.param(PAIRS, marks=pytest.mark.slow),
    ],
)
def test_random_weights_give_nothing_away(layers: list[str], folder: Path) -> None:
    """Of several networks no more blocks are right than three times chance."""
    seeds = range(4 if len(layers) > 1 else 10)
    right = [share(*cut(folder, network(folder, seed, False), seed, layers)) for seed in seeds]
    blocks = len(cut(folder, network(folder, 0, False), 0, layers)[0].blocks)
    assert sum(right) / len(right) < 3 / blocks, right


def test_layers_that_are_no_pairs_are_no_heap(folder: Path) -> None:
    model = network(folder, 0, planted=False)
    puzzle, _ = cut(folder, model, 0, [UP.format(0), UP.format(1)])
    assert heap_of(puzzle, puzzle.blocks) is None
