"""What every direct attack keeps: its bits, its knowledge, shapes and places, and whether it sees the blocks."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

import small
from scatterproof.attacks import DIRECT
from scatterproof.attacks.base import AttackError, Copy, DirectAttack, Machine, Placed, Reached, Run, Snapshot
from scatterproof.config.attacks import NEEDS, AttacksConfig, hyperparameters
from scatterproof.config.threat import ThreatModel
from scatterproof.judging.judge import copied
from scatterproof.puzzle import Answer, Puzzle, make_puzzle

HERE = Run(Machine(torch.device("cpu"), 1), ("test",))
IMAGES = max(24, *(knowledge.images for knowledge in NEEDS.values()))
# Smaller than their defaults, so that a tiny puzzle takes no longer than it must.
TINY: dict[str, dict[str, Any]] = {
    "refine": {"sweeps": 2, "proposals": 8, "steps_trained": 5, "rates": (0.01,)},
    "relax": {"steps_taken": 3},
    "probe": {"updates": 8},
    "layer": {"updates": 8},
    "blocks": {"updates": 8},
    "finetune": {"updates": 8},
    "surrogate": {"updates": 2},
}
each_attack = pytest.mark.parametrize("name", DIRECT)


def threat(name: str, share: float = 1.0) -> ThreatModel:
    """What grants the attack all that it needs."""
    knowledge = NEEDS[name]
    return ThreatModel(
        share=share, scatter=knowledge.scatter[0], images=IMAGES, knows=knowledge.knows[-1], base_model=True
    )  # fmt: skip


@cache
def puzzle(name: str, share: float = 1.0) -> tuple[Puzzle, Answer]:
    """64 x 392 in blocks of 24, with edges on two sides."""
    config = small.vgg()
    model, base = small.network(config), small.network(config, seed=1)
    return make_puzzle(model, config, small.dataset(pirate=IMAGES), threat(name, share), 24, (0,), base)


def make(name: str) -> DirectAttack:
    return DIRECT[name](**(hyperparameters(AttacksConfig(), name) | TINY.get(name, {})))


@cache
def ran(name: str, share: float = 1.0) -> list[Snapshot]:
    return make(name).run(puzzle(name, share)[0], HERE)


def tensors(reached: Reached) -> dict[str, torch.Tensor]:
    if isinstance(reached, Copy):
        return reached.tensors
    return {"placement": reached.placement, "candidates": reached.candidates, "beliefs": reached.beliefs}


def test_every_attack_says_what_it_needs() -> None:
    assert set(DIRECT) == set(NEEDS)
    assert all(name == kind.name for name, kind in DIRECT.items())


@each_attack
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_what_is_reached_fits_the_puzzle(name: str, share: float) -> None:
    held = puzzle(name, share)[0]
    found = ran(name, share)
    assert found
    assert [each.minutes for each in found] == sorted(each.minutes for each in found)
    for each in found:
        if isinstance(each.reached, Placed):
            check_placed(each.reached, held)
        else:
            assert copied(each.reached, held)(held.inputs(held.images)).isfinite().all()


def check_placed(reached: Placed, held: Puzzle) -> None:
    assert len(reached.placement.unique()) == len(held.blocks) == len(reached.placement)
    assert torch.equal(held.layout.shapes()[reached.placement], held.shapes), "a block at a place of another shape"
    assert reached.candidates.shape == reached.beliefs.shape
    assert len(reached.candidates) == len(held.blocks)
    assert bool((reached.candidates >= 0).all() and (reached.candidates < held.layout.positions).all())
    assert bool((reached.beliefs >= 0).all() and (reached.beliefs.sum(1) <= 1 + 1e-4).all())
    first = reached.candidates.sort(1).values
    assert bool((first[:, 1:] > first[:, :-1]).all()), "a candidate stands twice"


@each_attack
def test_the_same_puzzle_gives_the_same_bits(name: str) -> None:
    again = make(name).run(puzzle(name)[0], HERE)
    assert len(again) == len(ran(name))
    for one, other in zip(again, ran(name), strict=True):
        for key, value in tensors(one.reached).items():
            assert torch.equal(value, tensors(other.reached)[key]), key


def lacking(name: str) -> Iterator[ThreatModel]:
    """For each thing that the attack needs a threat that grants all but that."""
    knowledge, full = NEEDS[name], threat(name)
    if knowledge.images:
        yield full.model_copy(update={"images": knowledge.images - 1})
    if "none" not in knowledge.knows:
        yield full.model_copy(update={"knows": "none"})
    if knowledge.base_model:
        yield full.model_copy(update={"base_model": False})
    if "dense" not in knowledge.scatter:
        yield full.model_copy(update={"scatter": "dense"})


@each_attack
def test_too_little_knowledge_is_refused(name: str) -> None:
    for less in lacking(name):
        with pytest.raises(AttackError, match=f"{name} needs"):
            make(name).run(replace(puzzle(name)[0], threat=less), HERE)


@each_attack
def test_withheld_attacks_never_see_the_blocks(name: str) -> None:
    """Other blocks change what an attack on the blocks finds, and nothing for one that has them withheld."""
    held = puzzle(name)[0]
    generator = torch.Generator().manual_seed(0)
    other = replace(held, blocks=held.blocks[torch.randperm(len(held.blocks), generator=generator)] * 0.5)
    last, before = make(name).run(other, HERE)[-1].reached, ran(name)[-1].reached
    same = all(torch.equal(value, tensors(before)[key]) for key, value in tensors(last).items())
    assert same == (NEEDS[name].role != "blocks")


@each_attack
def test_it_says_what_it_uses_of_its_images(name: str) -> None:
    used = DIRECT[name].used(threat(name))
    assert used is None or used in ("none", threat(name).knows)
