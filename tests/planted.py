"""A puzzle that a search can solve in seconds: what an attack must solve before its failure on another says anything.

A small network reads scikit-learn's handwritten digits; its second dense layer, 32 x 32, is cut 4 x 4: 16! placements.
"""

import torch
from torch import nn
from torch.nn import functional as F

from scatterproof.blocks import Placement
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.seeds import seed_of
from scatterproof.victims.data import Dataset, read_dataset

SIDE, HIDDEN, BLOCK, STEPS = 8, 32, 8, 150
CONFIG = VictimConfig(model="planted:network", input_size=SIDE, layer="3")


def network(hidden: int = HIDDEN) -> nn.Module:
    """Logits [n, 10] of float [n, 3, 8, 8]: two hidden layers, the second of them scattered."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * SIDE * SIDE, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, 10),
    )  # fmt: skip


def planted_puzzle(seed: int, hidden: int = HIDDEN, block: int = BLOCK) -> tuple[Puzzle, Answer, Dataset]:
    """The puzzle of a victim trained from this seed, with all 297 of the pirate's images and their labels."""
    config = CONFIG.model_copy(update={"model_args": {"hidden": hidden}})
    dataset = read_dataset(DatasetConfig(kind="digits"))
    threat = ThreatModel(images=len(dataset.pirate), knows="labels")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("planted", seed))
        model = network(hidden)
    empty, _ = make_puzzle(model, config, dataset, threat, block, ("planted", seed))
    _train(model, empty.inputs(dataset.victim.images), dataset.victim.labels)
    return *make_puzzle(model.eval(), config, dataset, threat, block, ("planted", seed)), dataset


def _train(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """Whole batches, no randomness."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def swapped(placement: Placement, one: int, other: int) -> Placement:
    """Blocks `one` and `other` exchange their positions."""
    positions = placement.positions.clone()
    positions[[one, other]] = placement.positions[[other, one]]
    return Placement(positions, placement.slots)
