"""The own-evidence ceiling: what is planted is placed from the truth, and the truth of random layers gives nothing."""

import pytest
import torch

import small
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.judging.own_evidence import own_evidence, own_evidence_of_chance
from test_fingerprint import planted, right

CPU = torch.device("cpu")


@pytest.mark.parametrize("leak", [0.5, 1.0])
def test_from_the_truth_no_less_is_placed_than_by_the_attack(leak: float) -> None:
    for seed in range(3):
        puzzle, answer = planted(seed, leak)
        assert own_evidence(puzzle, answer, Fingerprint(), CPU) >= right(Fingerprint(), puzzle, answer)


def test_on_random_layers_the_truth_places_nothing() -> None:
    """Ten layers: no more than three times chance, one in 128."""
    data = small.dataset(pirate=100)
    model = small.network(small.WIDE)
    puzzle, _ = small.puzzle(model, small.WIDE, data, images=100)
    shares = [own_evidence_of_chance(model, puzzle, data, Fingerprint(), CPU, (draw,)) for draw in range(10)]
    assert sum(shares) / len(shares) < 3 / puzzle.layout.positions
