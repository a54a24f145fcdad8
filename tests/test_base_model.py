"""The public base model: where a victim starts from it, who is granted it, and what is said where it does not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch

import small
from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.tables import attack_table
from scatterproof.config.attacks import AttackGrid, AttacksConfig, attacks_on
from scatterproof.config.study import StudyError, parse_study
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import TrainConfig, VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.puzzle import Puzzle
from scatterproof.report.threat_words import granted
from scatterproof.running.seeds import seed_of
from scatterproof.victims.models import ModelError, dense_layers
from scatterproof.victims.training import start_of, train_victim

CPU = torch.device("cpu")


def config(**keys: Any) -> VictimConfig:
    return VictimConfig(**({"model": "small:tiny", "train": TrainConfig(epochs=1, lr=1e-6, augment="none")} | keys))


def saved(path: Path, classes: int = 5, **changed: torch.Tensor | None) -> str:
    """The path of a checkpoint of the tiny network, its last layer for so many classes."""
    torch.manual_seed(3)
    state = small.tiny().state_dict()
    state |= {"7.weight": torch.randn(classes, 16), "7.bias": torch.zeros(classes)}
    state |= {name.replace("_", "."): value for name, value in changed.items() if value is not None}
    torch.save(
        {name: value for name, value in state.items() if changed.get(name.replace(".", "_"), value) is not None}, path
    )
    return str(path)


def test_the_initialisation_is_the_one_that_training_starts_from(tmp_path: Path) -> None:
    trained = train_victim(config(), 7, small.dataset(), CPU, 1, tmp_path / "checkpoint.pt").model
    start = start_of(config(base="initialisation"), 7, 5)
    torch.manual_seed(seed_of("weights", 7))
    assert torch.equal(dense_layers(start)["4"].weight, dense_layers(small.tiny())["4"].weight)
    moved = (dense_layers(trained)["4"].weight - dense_layers(start)["4"].weight).detach()
    assert 0 < float(moved.abs().max()) < 1e-3, "at so small a rate it has hardly moved"
    assert not torch.equal(dense_layers(start)["4"].weight, dense_layers(start_of(config(), 8, 5))["4"].weight)


@pytest.mark.parametrize("classes", [5, 9])
def test_a_victim_starts_from_a_checkpoint_whatever_its_classes(tmp_path: Path, classes: int) -> None:
    path = saved(tmp_path / "base.pt", classes)
    trained = train_victim(config(base=path), 0, small.dataset(), CPU, 1, tmp_path / "checkpoint.pt").model
    base = torch.load(path)
    assert float((dense_layers(trained)["4"].weight.detach() - base["4.weight"]).abs().max()) < 1e-3
    assert dense_layers(trained)["7"].weight.shape == (5, 16)
    if classes == 5:
        assert torch.allclose(dense_layers(trained)["7"].weight, base["7.weight"], atol=1e-3)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"4_weight": torch.zeros(16, 99)}, r"4\.weight is \[16, 99\], the model has \[16, 512\]"),
        ({"4_weight": None}, r"4\.weight is missing"),
        ({"9_weight": torch.zeros(1)}, r"9\.weight is not in the model"),
    ],
)
def test_a_base_of_another_architecture_is_one_clear_line(
    tmp_path: Path, changed: dict[str, torch.Tensor | None], expected: str
) -> None:
    path = saved(tmp_path / "base.pt", **changed)
    with pytest.raises(ModelError, match=f"^victim.base '{path}': [^\n]*{expected}[^\n]*$"):
        start_of(config(base=path), 0, 5)


def test_a_missing_base_is_named() -> None:
    with pytest.raises(ModelError, match=r"^victim\.base 'nowhere\.pt': no such file$"):
        start_of(config(base="nowhere.pt"), 0, 5)


def test_a_puzzle_carries_the_base_where_the_threat_grants_it_alone(tmp_path: Path) -> None:
    model, base = small.network(small.WIDE), small.network(small.WIDE, seed=2)
    made = {}
    for given in (False, True):
        threat = ThreatModel(images=3, base_model=given)
        puzzle, _ = make_puzzle(model, small.WIDE, small.dataset(), threat, 16, (0,), base)
        puzzle.save(tmp_path / f"{given}.safetensors")
        made[given] = Puzzle.load(tmp_path / f"{given}.safetensors")
    assert made[False].base is None
    assert made[True].base is not None
    assert list(made[True].base) == ["3"]
    assert torch.equal(made[True].base["3"], dense_layers(base)["3"].weight)
    assert made[True].config.base is None, "not where the base lies, which may tell more than its weights"
    with pytest.raises(ValueError, match="grants a base model, and none is given"):
        make_puzzle(model, small.WIDE, small.dataset(), threat, 16, (0,))


def test_threats_with_a_base_have_names_of_their_own_and_the_attacks_that_need_one() -> None:
    grid = AttackGrid(attacks=["fingerprint", "prior"], base_model=[False, True])
    found = {name: attacks for name, (_, attacks) in attacks_on(AttacksConfig(grids=[grid]), "layer").items()}
    assert found == {
        "layer-1-100-none": ["fingerprint", "nothing"],
        "layer-1-100-none-base": ["fingerprint", "prior", "nothing", "borrow"],
    }


def test_a_table_keeps_threats_with_a_base_apart() -> None:
    about = {"study": "x", "victim_seed": 0, "layer": "3", "block_size": 16, "victim": "victim", "frozen": ""}
    trained = {"device": "cpu", "device_minutes": 1.0}
    row = dict.fromkeys([*COLUMNS["attacks"], "minutes", "used"], 0.0)
    found = {
        attack_table([dict(row)], about, ThreatModel(images=20, base_model=base), trained, "cpu")["knows"].item()
        for base in (False, True)
    }
    assert {granted(20, knows) for knows in found} == {
        "20 unlabelled images",
        "20 unlabelled images and a public base model",
    }


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"attacks": {"grids": [{"attacks": ["prior"], "base_model": [True]}]}},
            "attacks.grids.base_model: true, but the victim 'victim' has no base: expected victim.base, "
            "'initialisation' or a checkpoint's path",
        ),
        ({"attacks": {"grids": [{"attacks": ["prior"]}]}}, "prior needs a public base model, the threat grants none"),
        (
            {"victim": {"kind": "checkpoint", "checkpoint": "a.pt", "base": "initialisation"}},
            "victim.base is 'initialisation', which needs victim.kind 'train'",
        ),
    ],
)
def test_a_study_that_lacks_its_base_is_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(StudyError, match=expected):
        parse_study({"study": "x"} | keys, "config/x.yaml")


def test_another_base_is_another_puzzle(tmp_path: Path) -> None:
    """The stamp that a changed file is known by covers the base."""
    path = saved(tmp_path / "base.pt")
    before = VictimConfig(base=path).stamp(0)
    saved(tmp_path / "base.pt", classes=50)
    assert before and VictimConfig(base=path).stamp(0) != before
    assert VictimConfig(base="initialisation").stamp(0) == VictimConfig().stamp(0)
