"""A layer drawn from a seed of a known generator is found by its contents; one drawn from 256 bits is not."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import small
from scatterproof.attacks import seed_search
from scatterproof.attacks.base import Machine, Placed, Run
from scatterproof.attacks.seed_search import SeedSearch, draw_layer, numbers_of
from scatterproof.config.attacks import AttacksConfig
from scatterproof.config.settings.blocks import SeedSearchSettings
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import make_puzzle
from scatterproof.judging.controls import Controls, right_places
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.models import dense_layers
from scatterproof.victims.networks.frozen import drawn_layer

CPU = torch.device("cpu")
HERE = Run(Machine(CPU, 1), ("test",))
CONFIG = small.vgg()
OUTPUTS, INPUTS = 64, 392


def cut(weight: torch.Tensor, share: float = 1.0, block: int = 24) -> tuple[Puzzle, Answer]:
    """64 x 392 in blocks with edges on two sides."""
    model = small.network(CONFIG)
    dense_layers(model)["classifier.0"].weight.data = weight
    return make_puzzle(model, CONFIG, small.dataset(), ThreatModel(share=share), block, (0,))


def placed(puzzle: Puzzle, bits: int, start: int = 0, run: Run = HERE) -> Placed:
    (last,) = SeedSearch(bits=bits, start=start).run(puzzle, run)
    assert isinstance(last.reached, Placed)
    return last.reached


def test_it_draws_what_pytorch_draws_to_the_bit() -> None:
    torch.manual_seed(12345)
    assert torch.equal(draw_layer(12345, 7, 300), nn.Linear(300, 7).weight.detach())


def test_pytorchs_generator_reads_32_bits_of_a_seed_alone() -> None:
    assert torch.equal(draw_layer(5, 3, 40), draw_layer(5 + 2**32, 3, 40))


def test_many_streams_at_once_are_those_of_the_generator() -> None:
    seeds = np.array([0, 1, 77, 2**31, 2**32 - 1], np.uint32)
    for place, numbers in zip((0, 24, 226), numbers_of(seeds, (0, 24, 226)), strict=True):
        by_numpy = [np.random.RandomState(int(seed)).randint(0, 2**32, place + 1, np.uint64)[place] for seed in seeds]
        assert [int(each) for each in numbers] == [int(each) for each in by_numpy]


@pytest.mark.parametrize(("share", "seed"), [(1.0, 3000), (1.0, 0), (0.5, 4095), (0.3, 1234)])
def test_a_layer_of_a_small_seed_is_found_whole(share: float, seed: int) -> None:
    puzzle, answer = cut(draw_layer(seed, OUTPUTS, INPUTS), share)
    reached = placed(puzzle, 12)
    assert torch.equal(reached.placement, answer.placement.positions)
    assert (reached.beliefs == 1).all()


def test_a_seed_beyond_the_space_is_not_found_and_one_in_it_is() -> None:
    puzzle, answer = cut(draw_layer(70_000, OUTPUTS, INPUTS))
    assert not torch.equal(placed(puzzle, 12).placement, answer.placement.positions)
    assert torch.equal(placed(puzzle, 12, start=68_000).placement, answer.placement.positions)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_of_a_layer_that_256_bits_drew(seed: int) -> None:
    weight = drawn_layer(bytes([seed]) * 32, "classifier.0", torch.Size((OUTPUTS, INPUTS)), 1 / (3 * INPUTS) ** 0.5)
    puzzle, answer = cut(weight)
    reached = placed(puzzle, 14)
    right, total = right_places(reached, puzzle, answer, alike=False)
    assert right < 0.15 * total and float(reached.beliefs.max()) == pytest.approx(1 / puzzle.layout.positions)


def test_its_controls_pass() -> None:
    config = AttacksConfig(control_shuffles=10, seed_search={"bits": 10}, grids=[{"attacks": ["seed_search"]}])
    controls = Controls(config, small.network(CONFIG), CONFIG, small.dataset(), 24, (0, "victim", 0), HERE.machine)
    rows = {row["control"]: row for row in controls.rows("seed_search", ThreatModel(images=12))}
    assert rows["planted"]["value"] == 1.0 and rows["planted"]["passed"]
    assert rows["random"]["passed"]


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_search, "PART", 1 << 10)
    puzzle, answer = cut(draw_layer(3500, OUTPUTS, INPUTS))
    tried: list[int] = []
    plain = seed_search.Filter.drawing

    def noted(self: seed_search.Filter, first: int, last: int) -> Iterator[int]:
        if first == 2048 and not tried.count(2048):
            tried.append(first)
            raise KeyboardInterrupt
        tried.append(first)
        return plain(self, first, last)

    monkeypatch.setattr(seed_search.Filter, "drawing", noted)
    run = Run(Machine(CPU, 1), ("test",), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        placed(puzzle, 12, run=run)
    assert torch.equal(placed(puzzle, 12, run=run).placement, answer.placement.positions)
    assert tried == [0, 1024, 2048, 2048, 3072]


def test_spaces_beyond_the_generator_are_refused() -> None:
    with pytest.raises(ValidationError, match="reach beyond 2\\^32 seeds"):
        SeedSearchSettings(bits=32, start=1)
    assert SeedSearchSettings(bits=32).start == 0
