"""Frozen layers: drawn from a key that the owner keeps, never trained, the same after a kill, never called bounded."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import small
from scatterproof.analysis.verdict import BOUNDED, NOT_YET, Evidence, judged, verdict_table
from scatterproof.attacks.base import Machine, Placed, Run
from scatterproof.attacks.prior import Prior
from scatterproof.check import check_study
from scatterproof.config.settings.ceilings import FORMS
from scatterproof.config.study import parse_study
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.judging.controls import right_places
from scatterproof.puzzle import Puzzle
from scatterproof.running.files import atomic
from scatterproof.victims import training
from scatterproof.victims.checkpoints import ModelError
from scatterproof.victims.models import dense_layers
from scatterproof.victims.networks.frozen import KEY_FILE, FrozenKeyError, drawn_layer
from scatterproof.victims.training import Trained, train_victim
from test_recommendation import HOME, tables

CPU = torch.device("cpu")
CONFIG = VictimConfig(
    model="small:perceptron",
    input_size=8,
    layer="3",
    frozen_layers=["3"],
    train={"epochs": 2, "batch_size": 8, "augment": "none", "weight_decay": 0.1},
)


def trained(folder: Path, config: VictimConfig = CONFIG) -> Trained:
    return train_victim(config, 0, small.dataset(), CPU, 1, folder / "checkpoint.pt")


def layer(victim: Trained) -> torch.Tensor:
    return dense_layers(victim.model)["3"].weight.detach()


def test_a_key_draws_one_layer_of_the_asked_spread() -> None:
    one = drawn_layer(b"\1" * 32, "fc", torch.Size((40, 300)), 0.1)
    assert torch.equal(one, drawn_layer(b"\1" * 32, "fc", torch.Size((40, 300)), 0.1))
    assert float(one.std()) == pytest.approx(0.1, rel=0.03) and abs(float(one.mean())) < 0.004
    assert float(one.abs().max()) <= 0.1 * math.sqrt(3) + 1e-6
    for key, name in ((b"\2" * 32, "fc"), (b"\1" * 32, "other")):
        other = drawn_layer(key, name, torch.Size((40, 300)), 0.1)
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.05


def test_it_is_never_trained_and_the_rest_is(tmp_path: Path) -> None:
    victim = trained(tmp_path)
    key = (tmp_path / KEY_FILE).read_bytes()
    drawn = layer(victim)
    again = drawn_layer(key, "3", drawn.shape, 1.0)
    assert float(torch.corrcoef(torch.stack([drawn.flatten(), again.flatten()]))[0, 1]) == pytest.approx(1.0, abs=1e-5)
    assert len(key) == 32 and (tmp_path / KEY_FILE).stat().st_mode & 0o077 == 0
    start = training.start_of(CONFIG, 0, 5)
    for name, other in dense_layers(victim.model).items():
        assert torch.equal(other.weight, dense_layers(start)[name].weight) is False, name
    assert not any(parameter.requires_grad for parameter in dense_layers(victim.model)["3"].parameters())


def test_two_victims_of_one_seed_have_different_layers(tmp_path: Path) -> None:
    assert not torch.equal(layer(trained(tmp_path / "one")), layer(trained(tmp_path / "other")))


def test_a_killed_training_goes_on_with_the_same_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as before_the_first_checkpoint:
        before_the_first_checkpoint.setattr(training, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path)
    key = (tmp_path / KEY_FILE).read_bytes()
    assert not (tmp_path / "checkpoint.pt").exists()
    victim = trained(tmp_path)
    assert (tmp_path / KEY_FILE).read_bytes() == key
    (tmp_path / "checkpoint.pt").unlink()
    assert torch.equal(layer(victim), layer(trained(tmp_path))), "a victim that is made again"


def test_a_damaged_key_is_refused_in_one_line(tmp_path: Path) -> None:
    with atomic(tmp_path / KEY_FILE) as temporary:
        temporary.write_bytes(b"short")
    with pytest.raises(FrozenKeyError, match=r"frozen.key: 5 bytes, expected the 32 .*") as error:
        trained(tmp_path)
    assert "\n" not in str(error.value)


def test_names_of_no_layer_are_refused_with_the_nearest(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"frozen_layers": ["33"]})
    with pytest.raises(ModelError, match=r"victim\.frozen_layers '33': names no dense layer \(nearest: 3\)"):
        trained(tmp_path, config)
    assert not list(tmp_path.iterdir())
    study = {"study": "x", "victim": {"width": 1 / 64, "frozen_layers": ["classifer.0"]}, "dataset": {"kind": "digits"}}
    with pytest.raises(ModelError, match=r"'classifer\.0': names no dense layer \(nearest: classifier\.0\)"):
        check_study(parse_study(study, "x.yaml"), small.dataset(victim=400, pirate=400))
    with pytest.raises(ValidationError, match=r"frozen_layers .* expected victim.kind 'train'"):
        VictimConfig(kind="checkpoint", checkpoint="a.pt", frozen_layers=["3"])


def test_studies_without_it_stay_what_they_were() -> None:
    assert "frozen_layers" not in VictimConfig().model_dump()
    study = parse_study({"study": "x", "victim": {"frozen_layers": ["classifier.*"]}}, "x.yaml")
    config = study.victim_config("victim")
    assert VictimConfig.model_validate_json(config.model_dump_json()).frozen_layers == ["classifier.*"]
    assert config.frozen_among(["classifier.0", "features.0", "classifier.3"]) == "classifier.0+classifier.3"


def test_the_pirate_is_told_that_the_layer_is_frozen_and_never_the_key(tmp_path: Path) -> None:
    victim = trained(tmp_path)
    puzzle, _ = make_puzzle(victim.model, CONFIG, small.dataset(), ThreatModel(), 8, (0,))
    puzzle.save(tmp_path / "puzzle.safetensors")
    assert Puzzle.load(tmp_path / "puzzle.safetensors").config.frozen_among(puzzle.layout.grids) == "3"
    key = (tmp_path / KEY_FILE).read_bytes()
    for held in (tmp_path / "puzzle.safetensors", tmp_path / "checkpoint.pt"):
        assert key not in held.read_bytes() and key.hex().encode() not in held.read_bytes(), held


def test_a_layer_left_at_a_public_start_is_given_away() -> None:
    """What the key is for: the attack `prior` places every block of a layer that lies in a base model."""
    config = small.vgg()
    model = small.network(config)
    threat = ThreatModel(images=12, base_model=True)
    puzzle, answer = make_puzzle(model, config, small.dataset(), threat, 16, (0,), base=model)
    reached = Prior().run(puzzle, Run(Machine(CPU, 1), ("test",)))[0].reached
    assert isinstance(reached, Placed)
    right, total = right_places(reached, puzzle, answer)
    assert right == total > 50


def gains(value: float) -> np.ndarray:
    return value + np.array([0.001, -0.001, 0.0, 0.001, -0.001])


def test_no_ceiling_bounds_a_frozen_layer() -> None:
    low, headroom = gains(0.0), gains(0.4)
    told = dict.fromkeys(FORMS, low)
    evidence = Evidence(low, {"fingerprint": low}, told, None, headroom, gains(0.5), gains(0.1))
    assert judged(evidence) == BOUNDED
    assert judged(evidence._replace(frozen=True)) == NOT_YET


def test_the_tables_say_it() -> None:
    attacked, checked, _ = tables(5, one=(HOME[0.2], 0.25, 0.0, 0.0))
    (plain,) = verdict_table(attacked, checked).itertuples()
    (frozen,) = verdict_table(attacked.assign(frozen="0"), checked).itertuples()
    assert (plain.verdict, frozen.verdict) == (BOUNDED, NOT_YET)
    assert frozen.told == f"bounds no frozen layer: {plain.told}"
