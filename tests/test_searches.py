"""From a study's grids to runs, jobs, threats, attacks, their results' file and tables."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

import small
from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.tables import search_table, trajectory_table
from scatterproof.attacks import ATTACKS, SEARCHES
from scatterproof.attacks.base import Attack, AttackError, Placed, Run, Snapshot
from scatterproof.attacks.runner import attack, search
from scatterproof.attacks.search import base
from scatterproof.attacks.search.genetic import Genetic
from scatterproof.attacks.store import load_found, save_found
from scatterproof.config.attacks import AttackSettings
from scatterproof.config.search import (
    SETTINGS,
    PlateauConfig,
    SearchConfig,
    SearchName,
    SearchRun,
    plateau_threat,
    runs_from_json,
    runs_json,
    search_jobs,
    search_runs,
    settings_of,
    threats,
)
from scatterproof.cutting import logits_on
from scatterproof.evaluation import predictions
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.search_scores import search_rows
from scatterproof.puzzle import Puzzle
from scatterproof.report.sections.searches import ATTACKS as LABELS
from scatterproof.running import interrupt
from scatterproof.running.files import read_table, write_csv
from scatterproof.victims.data import Split
from searching import MACHINE

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


def test_runs_have_names_of_their_own() -> None:
    grids = [
        {"attacks": ["genetic", "random"], "fitness": ["accuracy", "loss"], "populations": [10, 20], "images": [5, 6],
         "keep": [0.5, 1.0], "seeds": 2, "evaluations": count}
        for count in (7, 8)
    ]  # fmt: skip
    runs = search_runs(config(*grids))
    assert len({run.name for run in runs}) == len(runs)


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


NAMES = [kind.name for kind in SEARCHES]


def test_the_searches_are_those_that_a_study_may_name() -> None:
    assert set(NAMES) == set(get_args(SearchName)) == set(LABELS) == set(SETTINGS)
    assert all(SETTINGS[kind.name] is kind.Settings for kind in SEARCHES)


@pytest.mark.parametrize("name", NAMES)
def test_a_studys_settings_make_the_search(name: str) -> None:
    study = config(
        {"attacks": [name]},
        genetic={"crossover": "order", "tournament": 3, "elite": 0.25, "mutation_rate": 0.5},
        hill_climbing={"batch": 7, "proposals": "gradient"},
        annealing={"hot": 2.0, "cold": 0.1},
        reinforce={"steps": 32, "walks": 4, "minibatch": 8, "learning_rate": 0.0, "restart": "start"},
    )
    run = SearchRun(name, "accuracy", 10 if name == "genetic" else 0, 17, 1.0, 0, 100)
    made = ATTACKS[name](settings_of(study, run))
    assert made.name == name
    expected = {"fitness": "accuracy", "evaluations": 100}
    expected |= {"population": 10} if name == "genetic" else {}
    expected |= getattr(study, name).model_dump() if name != "random" else {}
    assert made.settings.model_dump() == ATTACKS[name]().settings.model_dump() | expected


@pytest.mark.parametrize("name", NAMES)
def test_but_for_what_a_grid_varies_a_studys_defaults_are_the_attacks_own(name: str) -> None:
    run = SearchRun(name, "accuracy", 12 if name == "genetic" else 0, 17, 1.0, 0, 123)
    varied = {"fitness": "accuracy", "evaluations": 123} | ({"population": 12} if name == "genetic" else {})
    own = ATTACKS[name]().settings
    assert settings_of(SearchConfig(), run) == own.model_copy(update=varied)
    assert settings_of(SearchConfig(), run) != own


def test_every_search_makes_its_section_of_a_study_its_settings() -> None:
    assert set(NAMES) - {"random"} <= set(SearchConfig.model_fields)
    for name in set(NAMES) - {"random"}:
        moves = SearchConfig.model_fields[name].annotation
        assert moves is not None and issubclass(ATTACKS[name].Settings, moves)


# Results


def found(*shape: int, start: int = 0) -> list[Snapshot]:
    placements = torch.arange(start, start + shape[0] * shape[1]).view(shape)
    return [snapshot(placement, i) for i, placement in enumerate(placements)]


def snapshot(placement: torch.Tensor, i: int) -> Snapshot:
    even = torch.full((len(placement), 1), 1 / 9)
    return Snapshot(0.1 + i / 3, Placed(placement, placement[:, None], even, 10 * i + 1, -1.0 / (i + 1), 3 * i + 1))


def test_results_survive_their_file(tmp_path: Path) -> None:
    runs = [RUN, replace(RUN, attack="random", population=0, keep=1 / 3)]
    written = dict(zip([run.name for run in runs], [found(3, 4), found(1, 9, start=7)], strict=True))
    save_found(tmp_path / "new" / "found.safetensors", written)
    read = load_found(tmp_path / "new" / "found.safetensors")
    assert list(read) == list(written)
    for name, snapshots in read.items():
        assert len(snapshots) == len(written[name])
        for one, other in zip(snapshots, written[name], strict=True):
            assert one.minutes == other.minutes
            assert isinstance(one.reached, Placed) and isinstance(other.reached, Placed)
            assert one.reached.placement.dtype == torch.int64
            assert same(one.reached, other.reached)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["found.safetensors"]
    save_found(tmp_path / "none.safetensors", {})
    assert load_found(tmp_path / "none.safetensors") == {}


def same(one: Placed, other: Placed) -> bool:
    """All but the minutes, to the bit."""
    numbers = [(each.evaluations, each.fitness, each.generation) for each in (one, other)]
    tensors = zip(
        (one.placement, one.candidates, one.beliefs), (other.placement, other.candidates, other.beliefs), strict=True
    )
    return numbers[0] == numbers[1] and all(torch.equal(*pair) for pair in tensors)


def all_same(one: list[Snapshot], other: list[Snapshot]) -> bool:
    assert all(isinstance(each.reached, Placed) for each in (*one, *other))
    return len(one) == len(other) and all(same(a.reached, b.reached) for a, b in zip(one, other, strict=True))  # type: ignore[arg-type]


def test_what_was_reached_is_scored_on_other_images() -> None:
    victim, data = small.vgg(), small.dataset()
    puzzle, answer = small.puzzle(small.network(victim), victim, data, images=12, knows="labels")
    test = PlacementEvaluator(puzzle, data.test.images, data.test.labels, MACHINE.device)
    true = answer.placement.positions
    placements = torch.stack([true.flip(0), true, true.flip(0)])
    reached = [snapshot(placement, i) for i, placement in enumerate(placements)]
    rows = search_rows(puzzle, data.test, MACHINE.device, 2000, [RUN], {RUN.name: reached})
    expected = test.score(placements[:2]).accuracy
    assert [row["accuracy"] for row in rows] == pytest.approx([*expected.tolist(), float(expected[0])])
    assert [row["evaluations"] for row in rows] == [1, 11, 21] and [row["generation"] for row in rows] == [1, 4, 7]
    assert [row["best_fitness"] for row in rows] == [-1.0, -1 / 2, -1 / 3]
    assert [row["minutes"] for row in rows] == [each.minutes for each in reached]
    assert {row["population"] for row in rows} == {8} and {row["seed"] for row in rows} == {0}
    assert {row["budget"] for row in rows} == {RUN.evaluations} and {row["attack"] for row in rows} == {"genetic"}
    without = replace(RUN, population=0)
    (other, *_) = search_rows(puzzle, data.test, MACHINE.device, 2000, [without], {without.name: [snapshot(true, 0)]})
    assert other["population"] is None


def test_a_runs_ends_are_scored_on_all_test_images_and_what_lies_between_on_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predictions, "SAMPLE", 8)
    victim, data = small.WIDE, small.dataset()
    model = small.network(victim)
    puzzle, answer = small.puzzle(model, victim, data, images=12, knows="labels")
    own = logits_on(model, victim, data, data.test.images).argmax(1)
    test = Split(data.test.images, (own + torch.arange(30) % 3) % 5)
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randperm(128, generator=generator) for _ in range(2)]
    true = answer.placement.positions
    placements = [drawn[0], true, drawn[1], drawn[0], true]
    reached = [snapshot(placement, number) for number, placement in enumerate(placements)]
    rows = search_rows(puzzle, test, MACHINE.device, 2000, [RUN], {RUN.name: reached})
    assert [row["test_images"] for row in rows] == [30, 8, 8, 8, 30]
    order = predictions.in_fixed_order(test.images).order
    assert order is not None
    for row, placement in zip(rows, placements, strict=True):
        some = order[: row["test_images"]]
        scorer = PlacementEvaluator(puzzle, test.images[some], test.labels[some], MACHINE.device)
        assert row["accuracy"] == pytest.approx(float(scorer.score(placement[None]).accuracy))
    assert rows[4]["accuracy"] == pytest.approx(1 / 3) and len({row["accuracy"] for row in rows}) > 3


# The searches of a job


def held() -> Puzzle:
    victim = small.vgg()
    return small.puzzle(small.network(victim), victim, small.dataset(), images=12, knows="labels", share=0.3)[0]


def searched(
    study: SearchConfig,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int = 99,
    spent: dict[str, Any] | None = None,
) -> tuple[dict[str, list[Snapshot]], list[str]]:
    """The results of a job and the attacks that ran in it; it is killed before the attack numbered `stop`."""
    ran: list[str] = []
    run = Attack.run

    def count(self: Attack[Any], *args: Any) -> list[Snapshot]:
        if len(ran) == stop:
            raise KeyboardInterrupt
        ran.append(self.name)
        return run(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Attack, "run", count)
        try:
            minutes = {} if spent is None else spent
            return search(study, search_runs(study), held(), Run(MACHINE, (0, "victim", 0), folder), minutes), ran
        except KeyboardInterrupt:
            return {}, ran


def test_a_killed_job_repeats_no_search_that_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = config({"attacks": ["random", "genetic"], "populations": [4], "images": [12], "seeds": 2, "evaluations": 9})
    whole, ran = searched(study, tmp_path / "whole", monkeypatch)
    assert ran == ["random", "random", "genetic", "genetic"]
    assert list(whole) == [run.name for run in search_runs(study)]
    first, second, *_ = whole.values()
    assert not torch.equal(last(first), last(second))  # seeds differ
    assert searched(study, tmp_path / "killed", monkeypatch, stop=3)[1] == ["random", "random", "genetic"]
    spent: dict[str, Any] = {}
    again, ran = searched(study, tmp_path / "killed", monkeypatch, spent=spent)
    assert ran == ["genetic"]
    assert spent["random"] == 0 and spent["genetic"] > 0  # the minutes of this attempt, not of an earlier one
    assert list(again) == list(whole) and all(all_same(again[name], whole[name]) for name in whole)
    assert not list((tmp_path / "killed").glob("*.pt"))


def last(snapshots: list[Snapshot]) -> torch.Tensor:
    reached = snapshots[-1].reached
    assert isinstance(reached, Placed)
    return reached.placement


def test_what_lies_in_the_folder_serves_only_the_search_that_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"attacks": ["genetic"], "populations": [4], "images": [12], "seeds": 1, "evaluations": 9}
    fewer = {"images": [11]}
    for study in (
        config(grid), config(grid, genetic={"elite": 0.5}), config(grid | {"evaluations": 10}), config(grid | fewer),
    ):  # fmt: skip
        assert searched(study, tmp_path, monkeypatch)[1] == ["genetic"]
        assert searched(study, tmp_path, monkeypatch)[1] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_job_with_more_images_than_its_puzzle_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AttackError, match=rf"^{name} wants 13 images, the pirate holds 12$"):
        searched(config({"attacks": [name], "images": [13], "seeds": 1}), tmp_path, monkeypatch)


def test_a_search_climbs_on_as_many_images_as_its_run_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"attacks": ["random"], "fitness": ["loss"], "images": [5, 12], "seeds": 1, "evaluations": 9}
    reached, _ = searched(config(grid), tmp_path, monkeypatch)
    puzzle = held()
    assert puzzle.labels is not None
    for run in search_runs(config(grid)):
        own = PlacementEvaluator(puzzle, puzzle.images[: run.images], puzzle.labels[: run.images], MACHINE.device)
        best = reached[run.name][-1].reached
        assert isinstance(best, Placed) and best.fitness is not None
        assert best.fitness == pytest.approx(-float(own.score_population(best.placement[None]).loss), abs=1e-5)


# A search among the attacks of a job

TINY = AttackSettings.model_validate({"genetic": {"population": 4, "evaluations": 30, "elite": 0.5}})


def attacked(folder: Path, spent: dict[str, Any] | None = None) -> list[Snapshot]:
    return attack(TINY, ["genetic"], held(), Run(MACHINE, (0, "victim", 0), folder), {} if spent is None else spent)[
        "genetic"
    ]


@pytest.fixture
def generations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of the generations that are computed."""
    made: list[int] = []
    generation = Genetic._generation

    def noted(self: Genetic, progress: base.Progress) -> None:
        made.append(progress.generation)
        generation(self, progress)

    monkeypatch.setattr(Genetic, "_generation", noted)
    return made


def test_a_search_among_the_attacks_does_its_work_once(tmp_path: Path, generations: list[int]) -> None:
    spent: dict[str, Any] = {}
    whole = attacked(tmp_path, spent)
    assert generations == list(range(8)) and spent["genetic"] > 0
    before, spent = list(generations), {}
    again = attacked(tmp_path, spent)
    assert generations == before and spent == {"genetic": 0.0}
    assert all_same(again, whole) and [each.minutes for each in again] == [each.minutes for each in whole]
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("killed_after", [1, 3, 6])
def test_a_killed_search_among_the_attacks_goes_on_to_the_bit(
    killed_after: int, tmp_path: Path, generations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to stop in the middle, as a job is before its time is up: what it had reached before stays as it was."""
    whole = attacked(tmp_path / "whole")
    generations.clear()

    def asked() -> bool:
        if len(generations) == killed_after:
            interrupt._asked.append("SIGTERM")
        return interrupt.asked()

    with monkeypatch.context() as patch, pytest.raises(interrupt.Interrupted):
        patch.setattr(interrupt, "_asked", [])
        patch.setattr(base, "asked", asked)
        attacked(tmp_path / "killed")
    assert generations == list(range(killed_after))
    (checkpoint,) = (tmp_path / "killed").iterdir()
    state = torch.load(checkpoint, weights_only=True)
    assert state["generation"] == killed_after
    found = attacked(tmp_path / "killed")
    assert generations == list(range(8)), "no generation is computed twice"
    assert all_same(found, whole)
    kept = len(state["reached"])
    assert [each.minutes for each in found[:kept]] == [each["minutes"] for each in state["reached"]]
    assert [path.suffix for path in (tmp_path / "killed").iterdir()] == [".safetensors"]


def test_a_searchs_result_is_not_another_kinds(tmp_path: Path) -> None:
    """The same search in `search` and in `attacks`: each draws by its own key and keeps its own result."""
    study = config({"attacks": ["genetic"], "fitness": ["loss"], "populations": [4], "images": [12], "seeds": 1,
                    "evaluations": 30}, genetic={"elite": 0.5})  # fmt: skip
    (run,) = search_runs(study)
    assert settings_of(study, run) == TINY.genetic
    attacked(tmp_path)
    search(study, [run], held(), Run(MACHINE, (0, "victim", 0), tmp_path), {})
    assert len(list(tmp_path.iterdir())) == 2


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
    "test_images": 500,
    "accuracy": 0.4,
}


@pytest.mark.parametrize("cuda", [False, True])
def test_the_search_table_has_the_documented_columns(cuda: bool, tmp_path: Path) -> None:
    table = search_table([ROW, ROW | {"attack": "random", "population": None}], ABOUT, "cpu: x", cuda)
    assert list(table) == COLUMNS["search"]
    write_csv(tmp_path / "search.csv", table)
    assert (tmp_path / "search.csv").read_text().splitlines()[1:] == [
        "s,3,fc,16,0.3,copy_free,t,genetic,loss,8,12,500,1,2,16,-1.5,500,0.4,cpu: x,0.25," + ("0.25" if cuda else ""),
        "s,3,fc,16,0.3,copy_free,t,random,loss,,12,500,1,2,16,-1.5,500,0.4,cpu: x,0.25," + ("0.25" if cuda else ""),
    ]
    read = read_table(str(tmp_path / "search.csv"))
    assert read["gpu_minutes"].isna().all() == (not cuda)


def test_the_trajectory_table_has_the_documented_columns() -> None:
    search_rows = search_table([ROW], ABOUT, "cpu: x", False)
    table = trajectory_table(search_rows, None)
    assert list(table) == COLUMNS["trajectory"]
    expected = search_rows.rename(columns={"device_minutes": "minutes"})[list(table)]
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
