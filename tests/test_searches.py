"""From a study's grids to runs, jobs, threats, attacks, their results' file and tables."""

import subprocess
import sys
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from scatterproof.attacks.search.runner import make_attack, search
from scatterproof.attacks.search.store import load_results, save_results, score_results

import small
from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.tables import search_table, trajectory_table
from scatterproof.attacks import ATTACKS
from scatterproof.attacks.search.base import Attack, AttackError, AttackResult, Machine
from scatterproof.config.search import (
    AttackName,
    PlateauConfig,
    SearchConfig,
    SearchRun,
    hyperparameters,
    plateau_threat,
    runs_from_json,
    runs_json,
    search_jobs,
    search_runs,
    threats,
)
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.report.sections.searches import ATTACKS as LABELS
from scatterproof.running.files import read_table, write_csv

MACHINE = Machine(torch.device("cpu"), 1)
RUN = SearchRun("genetic", "loss", 8, 12, 0.3, 0, 20)
ABOUT = {"study": "s", "victim_seed": 3, "layer": "fc", "block_size": 16, "victim": "copy_free", "threat": "t"}


def config(*grids: dict[str, Any], **keys: Any) -> SearchConfig:
    return SearchConfig.model_validate({"grids": list(grids)} | keys)


# Runs


def test_runs_are_the_product_of_a_grid_with_populations_for_the_genetic_search_alone() -> None:
    found = search_runs(
        config(
            {
                "attacks": ["genetic", "random"],
                "fitness": ["accuracy", "loss"],
                "populations": [10, 20],
                "images": [5, 6],
                "keep": [0.5, 1.0],
                "seeds": 3,
                "evaluations": 7,
            }
        )
    )
    expected = {
        SearchRun(attack, fitness, population, images, keep, seed, 7)
        for attack, populations in (("genetic", [10, 20]), ("random", [0]))
        for fitness, population, images, keep, seed in product(
            ("accuracy", "loss"), populations, (5, 6), (0.5, 1.0), range(3)
        )
    }
    assert set(found) == expected and len(found) == len(expected)


def test_a_run_of_two_grids_is_made_once_and_another_budget_is_another_run() -> None:
    grid = {"attacks": ["random"], "seeds": 2, "evaluations": 10}
    assert len(search_runs(config(grid, grid | {"seeds": 3}))) == 3
    assert len(search_runs(config(grid, grid | {"evaluations": 11}))) == 4
    assert search_runs(config()) == []


def test_jobs_share_a_threat_and_hold_so_many_runs_at_most() -> None:
    grids = [
        {"attacks": ["random"], "images": [5, 9], "keep": [0.25, 1.0], "seeds": 3},
        {"attacks": ["annealing"], "images": [20], "keep": [1.0], "seeds": 1},
    ]
    study = config(*grids, runs_per_job=4)
    jobs = search_jobs(study, "layer")
    assert {key: len(runs) for key, runs in jobs.items()} == {
        ("layer-0.25-9-labels", 0): 4,
        ("layer-0.25-9-labels", 1): 2,
        ("layer-1-20-labels", 0): 4,
        ("layer-1-20-labels", 1): 3,
    }
    assert sorted((run for runs in jobs.values() for run in runs), key=repr) == sorted(search_runs(study), key=repr)
    for (name, _), runs in jobs.items():
        threat = threats(study, "layer")[name]
        assert all(run.keep == threat.share and run.images <= threat.images for run in runs)
        assert threat.knows == "labels" and not threat.base_model
    assert set(threats(study, "dense")) == {"dense-0.25-9-labels", "dense-1-20-labels"}
    assert search_jobs(config(), "layer") == {} and threats(config(), "layer") == {}


def test_images_needed_are_those_of_the_greediest() -> None:
    assert config({"images": [5, 9]}, {"images": [7]}).images_needed == 9
    assert config().images_needed == 0
    assert PlateauConfig(correct=[0.5], images=[30, 10]).images_needed == 30
    assert PlateauConfig(correct=[], images=[30]).images_needed == 0
    assert plateau_threat(PlateauConfig(correct=[0.5], images=[30, 10]), "layer").name == "layer-1-30-labels"


def test_runs_survive_json() -> None:
    runs = search_runs(config({"attacks": ["genetic", "reinforce"], "keep": [0.1, 1 / 3]}))
    assert runs_from_json(runs_json(runs)) == runs
    assert runs_from_json(runs_json([])) == []


def test_a_population_of_one_is_refused_only_where_it_would_breed() -> None:
    with pytest.raises(ValidationError, match=r"populations \[1, 10\]: a population needs at least 2"):
        config({"attacks": ["genetic"], "populations": [1, 10]})
    assert len(search_runs(config({"attacks": ["random"], "populations": [1], "seeds": 1}))) == 1


def test_a_study_is_parsed_without_torch() -> None:
    code = "import sys, scatterproof.config.search, scatterproof.config.study, scatterproof.analysis.tables;"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Attacks


def test_the_registry_has_the_attacks_that_a_study_may_name() -> None:
    assert set(ATTACKS) == set(get_args(AttackName)) == set(LABELS)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_studys_hyperparameters_make_the_attack(name: str) -> None:
    study = config(
        {"attacks": [name]},
        genetic={"crossover": "order", "tournament": 3, "elite": 0.25, "mutation_rate": 0.5},
        hill_climbing={"batch": 7, "proposals": "gradient"},
        annealing={"hot": 2.0, "cold": 0.1},
        reinforce={"steps": 32, "walks": 4, "minibatch": 8, "learning_rate": 0.0, "restart": "start"},
    )
    run = SearchRun(name, "accuracy", 10 if name == "genetic" else 0, 17, 1.0, 0, 100)
    attack = make_attack(study, run)
    assert (attack.name, attack.images, attack.fitness) == (name, 17, "accuracy")
    assert attack.per_generation >= 1
    if name != "random":
        given = getattr(study, name).model_dump()
        given |= {"elite": 2, "population": 10} if name == "genetic" else {}
        assert {key: getattr(attack, key) for key in given} == given
    assert set(hyperparameters(study, run)) <= {field.name for field in fields(attack)}


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "random"])
def test_a_studys_defaults_are_the_attacks_own(name: str) -> None:
    run = SearchRun(name, "loss", 100 if name == "genetic" else 0, 100, 1.0, 0, 100)
    assert make_attack(SearchConfig(), run) == ATTACKS[name]()


def test_every_attack_makes_its_section_of_a_study_a_keyword() -> None:
    assert set(ATTACKS) - {"random"} <= set(SearchConfig.model_fields)


# Results


def found(*shape: int, start: int = 0) -> AttackResult:
    placements = torch.arange(start, start + shape[0] * shape[1]).view(shape)
    rows = [
        {"generation": 3 * i + 1, "evaluations": 10 * i + 1, "minutes": 0.1 + i / 3, "best_fitness": -1.0 / (i + 1)}
        for i in range(shape[0])
    ]
    return AttackResult(placements, rows, [*rows, rows[-1] | {"generation": 99}])


def test_results_survive_their_file(tmp_path: Path) -> None:
    written = [(RUN, found(3, 4)), (replace(RUN, attack="random", population=0, keep=1 / 3), found(1, 9, start=7))]
    save_results(tmp_path / "new" / "found.safetensors", written)
    read = load_results(tmp_path / "new" / "found.safetensors")
    assert [run for run, _ in read] == [run for run, _ in written]
    for (_, result), (_, expected) in zip(read, written, strict=True):
        assert torch.equal(result.placements, expected.placements) and result.placements.dtype == torch.int64
        assert result.rows == expected.rows and result.history == expected.history
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["found.safetensors"]
    save_results(tmp_path / "none.safetensors", [])
    assert load_results(tmp_path / "none.safetensors") == []


def test_what_was_reached_is_scored_on_other_images() -> None:
    victim, data = small.vgg(), small.dataset()
    puzzle, answer = small.puzzle(small.network(victim), victim, data, images=12, knows="labels")
    test = PlacementEvaluator(puzzle, data.test.images, data.test.labels, MACHINE.device)
    true = answer.placement.positions
    placements = torch.stack([true.flip(0), true, true.flip(0)])
    rows = score_results(test, [(RUN, replace(found(3, 1), placements=placements))])
    expected = test.score(placements[:2]).accuracy
    assert [row["accuracy"] for row in rows] == pytest.approx([*expected.tolist(), float(expected[0])])
    assert [row["evaluations"] for row in rows] == [1, 11, 21]
    assert {row["population"] for row in rows} == {8} and {row["seed"] for row in rows} == {0}
    (other, *_) = score_results(test, [(replace(RUN, population=0), replace(found(1, 1), placements=true[None]))])
    assert other["population"] is None


# The searches of a job


def searched(
    study: SearchConfig,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int = 99,
    spent: dict[str, float] | None = None,
) -> tuple[list[tuple[SearchRun, AttackResult]], list[str]]:
    """The results of a job and the attacks that ran in it; it is killed before the attack numbered `stop`."""
    victim = small.vgg()
    puzzle, _ = small.puzzle(small.network(victim), victim, small.dataset(), images=12, knows="labels", share=0.3)
    ran: list[str] = []
    run = Attack.run

    def count(self: Attack, *args: Any, **keys: Any) -> AttackResult:
        if len(ran) == stop:
            raise KeyboardInterrupt
        ran.append(self.name)
        return run(self, *args, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(Attack, "run", count)
        try:
            minutes = {} if spent is None else spent
            return search(study, search_runs(study), puzzle, (0, "victim", 0), MACHINE, folder, minutes), ran
        except KeyboardInterrupt:
            return [], ran


def test_a_killed_job_repeats_no_search_that_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = config({"attacks": ["random", "genetic"], "populations": [4], "images": [12], "seeds": 2, "evaluations": 9})
    whole, ran = searched(study, tmp_path / "whole", monkeypatch)
    assert ran == ["random", "random", "genetic", "genetic"]
    assert [run for run, _ in whole] == search_runs(study)
    assert not torch.equal(whole[0][1].placements[-1], whole[1][1].placements[-1])  # seeds differ
    assert searched(study, tmp_path / "killed", monkeypatch, stop=3)[1] == ["random", "random", "genetic"]
    spent: dict[str, float] = {}
    again, ran = searched(study, tmp_path / "killed", monkeypatch, spent=spent)
    assert ran == ["genetic"]
    assert spent["random"] == 0 and spent["genetic"] > 0  # the minutes of this attempt, not of an earlier one
    assert all(torch.equal(one.placements, other.placements) for (_, one), (_, other) in zip(whole, again, strict=True))
    assert not list((tmp_path / "killed").glob("*.pt"))


def test_what_lies_in_the_folder_serves_only_the_search_that_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"attacks": ["genetic"], "populations": [4], "images": [12], "seeds": 1, "evaluations": 9}
    for study in (config(grid), config(grid, genetic={"elite": 0.5}), config(grid | {"evaluations": 10})):
        assert searched(study, tmp_path, monkeypatch)[1] == ["genetic"]
        assert searched(study, tmp_path, monkeypatch)[1] == []


def test_a_job_with_more_images_than_its_puzzle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttackError, match=r"random wants 13 images, the pirate holds 12$"):
        searched(config({"attacks": ["random"], "images": [13], "seeds": 1}), tmp_path, monkeypatch)


# Tables

ROW = {
    "attack": "genetic",
    "fitness": "loss",
    "population": 8,
    "images": 12,
    "budget": 500,
    "keep": 0.3,
    "seed": 1,
    "generation": 2,
    "evaluations": 16,
    "minutes": 0.25,
    "best_fitness": -1.5,
    "accuracy": 0.4,
}


@pytest.mark.parametrize("cuda", [False, True])
def test_the_search_table_has_the_documented_columns(cuda: bool, tmp_path: Path) -> None:
    table = search_table([ROW, ROW | {"attack": "random", "population": None}], ABOUT, "cpu: x", cuda)
    assert list(table) == COLUMNS["search"]
    write_csv(tmp_path / "search.csv", table)
    assert (tmp_path / "search.csv").read_text().splitlines()[1:] == [
        "s,3,fc,16,0.3,copy_free,t,genetic,loss,8,12,500,1,2,16,-1.5,0.4,cpu: x,0.25," + ("0.25" if cuda else ""),
        "s,3,fc,16,0.3,copy_free,t,random,loss,,12,500,1,2,16,-1.5,0.4,cpu: x,0.25," + ("0.25" if cuda else ""),
    ]
    read = read_table(str(tmp_path / "search.csv"))
    assert read["gpu_minutes"].isna().all() == (not cuda)


def test_the_trajectory_table_has_the_documented_columns() -> None:
    search_rows = search_table([ROW], ABOUT, "cpu: x", False)
    table = trajectory_table(search_rows, None)
    assert list(table) == COLUMNS["trajectory"]
    expected = search_rows.rename(columns={"device_minutes": "minutes"})[list(table)]
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
