"""What every attack keeps: its bits, its needs, shapes and places, its settings, and whether it sees the blocks."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError

import small
from scatterproof.attacks import ATTACKS
from scatterproof.attacks.base import Attack, AttackError, Copy, Machine, Placed, Reached, Run, Snapshot
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.mean_field import MeanField, Round
from scatterproof.attacks.refine import Refine
from scatterproof.attacks.runner import make_attack
from scatterproof.attacks.training.layer import Layer
from scatterproof.config.attacks import NEEDS, AttackName, AttackSettings
from scatterproof.config.settings.blocks import FingerprintSettings
from scatterproof.config.study import parse_study
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import make_puzzle
from scatterproof.defences.network import seen_under
from scatterproof.judging.judge import copied
from scatterproof.puzzle import Answer, Puzzle

HERE = Run(Machine(torch.device("cpu"), 1), ("test",))
IMAGES = max(24, *(needs.images for needs in NEEDS.values()))
REQUESTS = 20
# Smaller than their defaults, so that a tiny puzzle takes no longer than it must.
TINY: dict[str, dict[str, Any]] = {
    "refine": {"sweeps": 2, "proposals": 8, "steps_trained": 5, "rates": [0.01]},
    "relax": {"steps_taken": 3},
    "seed_search": {"bits": 8},
    "probe": {"updates": 8},
    "layer": {"updates": 8},
    "blocks": {"updates": 8},
    "regress": {"updates": 8, "rounds": 20},
    "finetune": {"updates": 8},
    "surrogate": {"updates": 2},
    **{name: {"evaluations": 120} for name in ("random", "hill_climbing", "annealing", "genetic")},
    "reinforce": {"evaluations": 33, "steps": 16, "walks": 2, "minibatch": 8, "epochs": 1},
}
each_attack = pytest.mark.parametrize("name", ATTACKS)


def threat(name: str, share: float = 1.0) -> ThreatModel:
    """What grants the attack all that it needs."""
    needs = NEEDS[name]
    about = {
        "share": share,
        "scatter": needs.scatter[0],
        "images": IMAGES,
        "knows": needs.knows[-1],
        "base_model": True,
    }
    seen = {} if "none" in needs.activations else {"activations": needs.activations[-1], "requests": REQUESTS}
    return ThreatModel.model_validate(about | seen)


@cache
def puzzle(name: str, share: float = 1.0) -> tuple[Puzzle, Answer]:
    """64 x 392 in blocks of 24, with edges on two sides."""
    config = small.vgg()
    model, base, data = small.network(config), small.network(config, seed=1), small.dataset(pirate=IMAGES + REQUESTS)
    granted = threat(name, share)
    seen = seen_under(granted, model, config, data, None)
    return make_puzzle(model, config, data, granted, 24, (0,), base, seen=seen)


def make(name: str, **changes: dict[str, Any]) -> Attack[Any]:
    """The attack as a study makes it; changes: other settings, by the name of the attack that they are of."""
    settings = {each: TINY.get(each, {}) | changes.get(each, {}) for each in TINY | changes}
    return make_attack(AttackSettings.model_validate(settings), name)


@cache
def ran(name: str, share: float = 1.0) -> list[Snapshot]:
    return make(name).run(puzzle(name, share)[0], HERE)


def tensors(reached: Reached) -> dict[str, torch.Tensor]:
    if isinstance(reached, Copy):
        return reached.tensors
    return {"placement": reached.placement, "candidates": reached.candidates, "beliefs": reached.beliefs}


def test_every_attack_says_what_it_needs() -> None:
    assert set(ATTACKS) == set(NEEDS)
    assert all(name == kind.name for name, kind in ATTACKS.items())
    assert all(make(name).needs == needs for name, needs in NEEDS.items())


def test_the_registry_has_the_attacks_that_a_study_may_name_and_set() -> None:
    assert set(ATTACKS) == set(AttackSettings.model_fields) == set(get_args(AttackName))


@each_attack
def test_each_default_stands_once(name: str) -> None:
    assert ATTACKS[name]().settings == AttackSettings().of(name) == ATTACKS[name].Settings()
    own = [kind for kind in ATTACKS.values() if kind.Settings is ATTACKS[name].Settings]
    assert own == [ATTACKS[name]], "no two attacks share a class of settings"


def another(name: str) -> dict[str, dict[str, Any]]:
    """One setting of the attack changed, if it has any."""
    settings = make(name).settings
    for key, value in settings.model_dump().items():
        if type(value) in (int, float):
            for other in (value + 1, value / 2):
                changed = settings.model_dump() | {key: other}
                try:
                    type(settings).model_validate(changed)
                except ValidationError:
                    continue
                return {name: {key: other}}
    return {}


CALLED = {"fingerprint": {"prior", "relax", "refine", "blocks"}, "layer": {"finetune"}}


@each_attack
def test_a_setting_changes_the_identity_of_its_attack_and_of_those_that_call_it(name: str) -> None:
    changes, held = another(name), puzzle("refine")[0]
    assert changes or not ATTACKS[name].Settings.model_fields
    for each in ATTACKS:
        before, after = (made.identity(held, HERE) for made in (make(each), make(each, **changes)))
        assert (before != after) == (bool(changes) and each in {name} | CALLED.get(name, set())), each
        same = make(each).file_name(held, HERE) == make(each, **changes).file_name(held, HERE)
        assert same == (before == after), each


def test_called_attacks_have_the_studys_settings() -> None:
    study = parse_study({"study": "x", "attacks": {"fingerprint": {"rounds": 3}, "layer": {"updates": 9}}}, "x.yaml")
    for name in CALLED["fingerprint"]:
        settings = make_attack(study.attacks, name).calling(Fingerprint).settings
        assert (settings.rounds, settings.sweeps) == (3, FingerprintSettings().sweeps), name
    assert make_attack(study.attacks, "fingerprint").settings.rounds == 3
    assert make_attack(study.attacks, "finetune").calling(Layer).settings.updates == 9
    assert Refine().calling(Fingerprint).settings == FingerprintSettings()


def test_the_called_fingerprint_runs_with_the_studys_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []
    rounds = MeanField.rounds

    def noted(self: MeanField, limit: int, *more: Any) -> Iterator[Round]:
        most.append(limit)
        return rounds(self, limit, *more)

    monkeypatch.setattr(MeanField, "rounds", noted)
    for name in CALLED["fingerprint"]:
        most.clear()
        make(name, fingerprint={"rounds": 3, "tempered_rounds": 0}).run(puzzle(name)[0], HERE)
        assert most and set(most) == {3}, name


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
    needs, full = NEEDS[name], threat(name)
    if needs.images:
        yield full.model_copy(update={"images": needs.images - 1})
    if "none" not in needs.knows:
        yield full.model_copy(update={"knows": "none"})
    if needs.base_model:
        yield full.model_copy(update={"base_model": False})
    if "none" not in needs.activations:
        yield full.model_copy(update={"activations": "inputs"})
    if "dense" not in needs.scatter:
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
    used = ATTACKS[name].used(threat(name))
    assert used is None or used in ("none", threat(name).knows)
