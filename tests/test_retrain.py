"""Training from nothing, by other recipes and on the pirate's images: on what, and that kills change nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import scatterproof.victims.training as victim_module
from scatterproof.config.retraining import RetrainingRun, retraining_from_json, retraining_jobs, retraining_json
from scatterproof.config.study import Study
from scatterproof.config.victim import VictimConfig
from scatterproof.victims.retraining import RetrainingError, Trainer
from scatterproof.victims.training import DivergenceError, train_victim
from small import dataset

CPU = torch.device("cpu")
DATA = dataset()
RECIPE, PIRATE = RetrainingRun("recipe", "short", None), RetrainingRun("pirate", "longer", 8)
STUDY = Study.model_validate(
    {
        "study": "x",
        "victim": {
            "model": "small:tiny",
            "seeds": [3, 4, 5],
            "train": {"optimizer": "adamw", "lr": 3e-3, "epochs": 5, "batch_size": 16, "schedule": "cosine"},
        },
        "further_victims": {"other": {"train": {"lr": 1e-3}}},
        "retraining": {
            "recipes": {"short": {"epochs": 3}, "wild": {"lr": 1e8, "optimizer": "sgd"}},
            "pirate_images": [4, 8],
            "pirate_recipes": {"longer": {"epochs": 4}},
            "victims": ["victim", "other"],
            "victim_seeds": 2,
            "runs_per_job": 3,
        },
    }
)


def trainer(work: Path, **keys: Any) -> Trainer:
    return Trainer(**{"dataset": DATA, "device": CPU, "device_name": "cpu: x", "threads": 1, "work": work} | keys)


def train(work: Path, run: RetrainingRun = RECIPE, key: tuple[int | str, ...] = (0,), **keys: Any) -> pd.DataFrame:
    return trainer(work, **keys).train(run, STUDY.retraining_config("victim", run), key)


def reached(curve: pd.DataFrame) -> list[list[float]]:
    return curve[["epoch", "train_loss", "accuracy"]].to_numpy().tolist()


def test_a_study_says_what_is_trained_again() -> None:
    jobs = retraining_jobs(STUDY.retraining)
    assert jobs == [
        [RECIPE, RetrainingRun("recipe", "wild", None), RetrainingRun("pirate", "longer", 4)],
        [PIRATE],
    ]
    assert [retraining_from_json(retraining_json(runs)) for runs in jobs] == jobs
    assert STUDY.retrained == [("victim", 3), ("victim", 4), ("other", 3), ("other", 4)]
    assert STUDY.images_needed["retraining.pirate_images"] == 8
    config = STUDY.retraining_config("other", RECIPE)
    assert (config.train.epochs, config.train.lr, config.train.optimizer) == (3, 1e-3, "adamw")
    assert retraining_jobs(Study(study="x").retraining) == []


def test_without_recipes_of_their_own_the_pirates_images_are_trained_on_by_the_victims() -> None:
    retraining = {"pirate_images": [4]}
    study = Study.model_validate({"study": "x", "victim": {"train": {"epochs": 7}}, "retraining": retraining})
    ((run,),) = retraining_jobs(study.retraining)
    assert run == RetrainingRun("pirate", "own", 4) and run.key == "victim.train"
    assert study.retraining_config("victim", run).train.epochs == 7


def test_a_victim_read_from_a_checkpoint_is_trained_from_nothing() -> None:
    victim = {"kind": "checkpoint", "checkpoint": "mine.pt"}
    study = Study.model_validate({"study": "x", "victim": victim, "retraining": {"recipes": {"short": {"epochs": 1}}}})
    config = study.retraining_config("victim", RECIPE)
    assert (config.kind, config.checkpoint) == ("train", None)
    assert VictimConfig.model_validate_json(config.model_dump_json()) == config


def test_a_curve_names_what_was_trained_on(tmp_path: Path) -> None:
    curve, pirate = train(tmp_path), train(tmp_path, PIRATE)
    assert curve["epoch"].tolist() == [1, 2, 3] and pirate["epoch"].tolist() == [1, 2, 3, 4]
    about = ["recipe", "source", "images"]
    assert curve[about].drop_duplicates().to_numpy().tolist() == [["short", "recipe", 40]]
    assert pirate[about].drop_duplicates().to_numpy().tolist() == [["longer", "pirate", 8]]
    assert curve["minutes"].is_monotonic_increasing and (curve["minutes"] > 0).all()
    assert not list(tmp_path.glob("*.pt"))


def test_the_pirates_first_images_are_all_that_is_trained_on(tmp_path: Path) -> None:
    victim, pirate = (replace(part, images=part.images.clone()) for part in (DATA.victim, DATA.pirate))
    victim.images.zero_()
    pirate.images[8:] = 0
    blind = replace(DATA, victim=victim, pirate=pirate)
    assert reached(train(tmp_path / "a", PIRATE, dataset=blind)) == reached(train(tmp_path / "b", PIRATE))
    pirate.images[7] = 0
    assert reached(train(tmp_path / "c", PIRATE, dataset=blind)) != reached(train(tmp_path / "b", PIRATE))


def test_recipes_share_their_draws_but_neither_seeds_nor_the_victim_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def noted(config: VictimConfig, seed: int, *rest: Any) -> Any:
        seeds.append(seed)
        return train_victim(config, seed, *rest)

    monkeypatch.setattr("scatterproof.victims.retraining.train_victim", noted)
    train(tmp_path)
    train(tmp_path, PIRATE)
    train(tmp_path, key=(1,))
    assert seeds[0] == seeds[1] != seeds[2] and 0 not in seeds


def test_a_killed_training_goes_on_and_a_finished_one_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole")
    save = victim_module._save

    def saved(*args: Any) -> None:
        save(*args)
        if len(args[-1]) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(victim_module, "_save", saved)
        train(tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == 1 and not list(tmp_path.glob("*.csv"))
    resumed = train(tmp_path)
    assert reached(resumed) == reached(whole)
    monkeypatch.setattr(victim_module, "_train_epoch", None)
    pd.testing.assert_frame_equal(train(tmp_path), resumed)


def test_minutes_of_another_device_are_never_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path)
    monkeypatch.setattr(victim_module, "_train_epoch", None)
    with pytest.raises(TypeError):
        train(tmp_path, device_name="cpu: y")


def test_a_recipe_that_diverges_is_named(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match=r"lower retraining.recipes.wild.lr, now 100000000.0$"):
        train(tmp_path, RetrainingRun("recipe", "wild", None))


def test_images_that_a_study_checked_earlier_did_not_ask_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RetrainingError, match=r"^retraining.pirate_images is 13, but the pirate has 12 images"):
        train(tmp_path, RetrainingRun("pirate", "longer", 13))
