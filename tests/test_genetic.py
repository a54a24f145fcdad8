"""The genetic attack on small puzzles: what it may try, what it counts, and that it resumes bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import small
from planted import planted_puzzle
from scatterproof.attacks.search import base, genetic
from scatterproof.attacks.search.base import Progress, scorer_of
from scatterproof.attacks.search.genetic import Genetic, best, tournaments
from scatterproof.attacks.search.random_search import RandomSearch
from scatterproof.config.study import StudyError, parse_study
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Answer, Puzzle
from searching import MACHINE, SearchResult, searched, without_times

POPULATION = 8
CASES: dict[str, dict[str, Any]] = {"whole": {}, "edges": {"size": 60}, "share": {"share": 0.3}}


def puzzle(case: str = "whole") -> tuple[Puzzle, Answer]:
    config = small.vgg()
    return small.puzzle(small.network(config), config, small.dataset(), images=12, knows="labels", **CASES[case])


def attack(**keys: Any) -> Genetic:
    return Genetic(**({"population": POPULATION, "elite": 3 / POPULATION, "crossover": "order"} | keys))


def check(result: SearchResult, puzzle: Puzzle, budget: int) -> None:
    """Every snapshot a placement of all blocks, each where its shape fits; history monotone, the budget exact."""
    shapes = puzzle.layout.shapes()
    for placement in result.placements:
        assert len(placement.unique()) == len(puzzle.blocks) and placement.min() >= 0
        assert torch.equal(shapes[placement], puzzle.shapes)
    fitness = [row["best_fitness"] for row in result.history]
    assert fitness == sorted(fitness)
    assert result.history[-1]["evaluations"] == budget


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("crossover", ["order", "partially_mapped", "cycle"])
@pytest.mark.parametrize("mutation", ["swap", "inversion", "scramble"])
def test_every_operator_keeps_blocks_where_they_fit(case: str, crossover: Any, mutation: Any) -> None:
    held, _ = puzzle(case)
    seen: list[torch.Tensor] = []
    evaluator = scorer_of(held, MACHINE)
    scored = evaluator.score_population

    def see(placements: torch.Tensor) -> Any:
        seen.append(placements)
        return scored(placements)

    evaluator.score_population = see  # type: ignore[method-assign]
    check(searched(attack(crossover=crossover, mutation=mutation), held, 45, scorer=evaluator), held, 45)
    tried = torch.cat(seen)
    shapes = held.layout.shapes()
    assert [len(part) for part in seen] == [8, 8, 8, 8, 8, 5]
    assert all(len(placement.unique()) == len(held.blocks) for placement in tried)
    assert (shapes[tried] == held.shapes).all()
    assert len(tried.unique(dim=0)) > 20  # it does move on


class InterruptedError(Exception):
    """What stops a run here."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("generations", [1, 2, 4])
def test_resumes_bit_for_bit(case: str, generations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CHECKPOINT_SECONDS", 0)
    held, _ = puzzle(case)
    made, evaluator = attack(population=7, elite=2 / 7), scorer_of(held, MACHINE)
    expected = searched(made, held, 40, scorer=evaluator)
    steps, step = [], Genetic.step

    def interrupted(self: Genetic, search: Progress) -> None:
        steps.append(search.generation)
        if len(steps) == generations:
            raise InterruptedError
        step(self, search)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(Genetic, "step", interrupted)
        searched(made, held, 40, work=tmp_path, scorer=evaluator)
    found = searched(made, held, 40, work=tmp_path, scorer=evaluator)
    assert torch.equal(found.placements, expected.placements)
    assert without_times(found.rows) == without_times(expected.rows)
    assert without_times(found.history) == without_times(expected.history)[generations:]


def searching(held: Puzzle, budget: int = 200) -> Progress:
    space = base.PlacementSpace(held, MACHINE.device)
    return Progress(scorer_of(held, MACHINE), space, torch.Generator().manual_seed(0), "loss", budget)


@pytest.mark.parametrize("elite", [8, 3, 1])
def test_with_an_elite_the_populations_best_never_falls(elite: int) -> None:
    made = attack(elite=elite / POPULATION)
    search = searching(puzzle()[0])
    made.start(search)
    for _ in range(10):
        before = search.state["fitness"].sort(descending=True).values
        made.step(search)
        after = search.state["fitness"]
        assert torch.equal(after, after.sort(descending=True).values) and len(after) == 8
        assert after[0] == search.best_fitness and (elite < 8 or (after >= before).all())


def test_without_an_elite_parents_do_not_survive() -> None:
    made = attack(elite=0.0, crossover_rate=0.0, mutation_rate=1.0)
    search = searching(puzzle()[0])
    made.start(search)
    before = search.state["fillings"]
    made.step(search)
    assert not (search.state["fillings"][:, None] == before).all(2).any()


def test_without_operators_children_are_copies() -> None:
    made = attack(crossover_rate=0.0, mutation_rate=0.0)
    search = searching(puzzle("edges")[0])
    made.start(search)
    before = search.state["fillings"]
    made.step(search)
    assert (search.state["fillings"][:, None] == before).all(2).any(1).all()


@pytest.mark.parametrize("case", CASES)
def test_a_start_given_is_spread_by_exchanges(case: str) -> None:
    held, answer = puzzle(case)
    made = attack(spread=3)
    search = searching(held)
    search.given = search.space.filling(answer.placement)
    made.start(search)
    differing = (search.state["fillings"] != search.given).sum(1)
    assert (differing == 0).any() and differing.max() <= 6 and (differing > 0).sum() > 4
    result = searched(made, held, 20, start=answer.placement)
    assert result.history[0]["best_fitness"] >= float(search.evaluator.score_population(
        answer.placement.positions[None]).loss.neg()[0])  # fmt: skip


@pytest.mark.parametrize("budget", [1, 3, 8, 9])
def test_small_budgets_are_kept(budget: int) -> None:
    held, _ = puzzle()
    check(searched(attack(), held, budget), held, budget)


def test_tournaments_are_fair_and_won_by_the_fittest() -> None:
    random = torch.Generator().manual_seed(0)
    everyone = tournaments(torch.arange(10.0), 5, 1, random)
    assert everyone.flatten().sort().values.tolist() == list(range(10))  # each competes once
    assert (tournaments(torch.arange(10.0), 50, 10, random) == 9).all()
    winners = tournaments(torch.arange(10.0), 500, 2, random).flatten().bincount(minlength=10)
    assert winners[0] == 0 and winners[9] == 200  # twice as often as it competes at random
    equal = tournaments(torch.zeros(10), 500, 2, random).flatten().bincount(minlength=10)
    assert equal.min() > 60
    assert tournaments(torch.arange(7.0), 4, 3, random).shape == (4, 2)
    assert best(torch.tensor([1.0, 3.0, 3.0, 2.0]), 3).tolist() == [1, 2, 3]


def test_the_elite_is_a_share_of_the_population(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    def noted(fitness: torch.Tensor, count: int) -> torch.Tensor:
        kept.append(count)
        return best(fitness, count)

    monkeypatch.setattr(genetic, "best", noted)
    for population, elite, expected in ((8, 3 / 8, 3), (7, 2 / 7, 2), (10, 0.25, 2), (8, 1.0, 8), (8, 0.0, 0)):
        kept.clear()
        searched(attack(population=population, elite=elite), puzzle()[0], 2 * population)
        assert kept == [population, expected, population]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"population": 1}, "population: Input should be greater than or equal to 2, got 1"),
        ({"elite": 9 / 8}, "elite: Input should be less than or equal to 1, got 1.125"),
        ({"elite": -0.1}, "elite: Input should be greater than or equal to 0, got -0.1"),
        ({"crossover": "uniform"}, "crossover: Input should be 'order', 'partially_mapped' or 'cycle', got 'uniform'"),
        ({"mutation": "flip"}, "mutation: Input should be 'swap', 'inversion' or 'scramble', got 'flip'"),
        ({"crossover_rate": 1.1}, "crossover_rate: Input should be less than or equal to 1, got 1.1"),
        ({"mutation_rate": float("nan")}, "mutation_rate: Input should be a finite number, got nan"),
        ({"tournament": 0}, "tournament: Input should be greater than or equal to 1, got 0"),
        ({"tournament": 9}, "tournament 9: expected 1 to the population of 8"),
        ({"spread": -1}, "spread: Input should be greater than or equal to 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError):
        attack(**keys)
    with pytest.raises(StudyError) as error:
        parse_study({"study": "x", "attacks": {"genetic": {"population": POPULATION} | keys}}, "x.yaml")
    assert str(error.value) == f"x.yaml: attacks.genetic.{line}"


def test_solves_the_planted_puzzle_that_random_search_does_not() -> None:
    held, answer, dataset = planted_puzzle(0)
    again, _, _ = planted_puzzle(0)
    assert torch.equal(held.blocks, again.blocks)
    test = PlacementEvaluator(held, dataset.test.images, dataset.test.labels, MACHINE.device)
    victim = float(test.score(answer.placement.positions[None]).accuracy)
    found = searched(Genetic(), held, 3000).placements[-1]
    drawn = searched(RandomSearch(), held, 3000).placements[-1]
    reached, random = test.score(torch.stack([found, drawn])).accuracy.tolist()
    assert victim >= 0.9 and reached >= 0.95 * victim and random < 0.8 * victim
