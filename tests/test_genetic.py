"""The genetic attack on small puzzles: what it may try, what it counts, and that it resumes bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

import small
from planted import planted_puzzle
from scatterproof.attacks.search import base
from scatterproof.attacks.search.base import AttackError, AttackResult, Machine
from scatterproof.attacks.search.genetic import Genetic, best, tournaments
from scatterproof.attacks.search.random_search import RandomSearch
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Answer, Puzzle

MACHINE = Machine(torch.device("cpu"), 1)
CASES: dict[str, dict[str, Any]] = {"whole": {}, "edges": {"size": 60}, "share": {"share": 0.3}}


def puzzle(case: str = "whole") -> tuple[Puzzle, Answer]:
    config = small.vgg()
    return small.puzzle(small.network(config), config, small.dataset(), images=12, knows="labels", **CASES[case])


def attack(**keys: Any) -> Genetic:
    return Genetic(**({"images": 12, "population": 8, "elite": 3, "crossover": "order"} | keys))


def check(result: AttackResult, puzzle: Puzzle, budget: int) -> None:
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
    searched = attack(crossover=crossover, mutation=mutation)
    evaluator = searched.make_evaluator(held, MACHINE, searched.images)
    scored = evaluator.score_population

    def see(placements: torch.Tensor) -> Any:
        seen.append(placements)
        return scored(placements)

    evaluator.score_population = see  # type: ignore[method-assign]
    check(searched.run(held, 45, (0,), MACHINE, evaluator=evaluator), held, 45)
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
    searched = attack(population=7, elite=2)
    evaluator = searched.make_evaluator(held, MACHINE, searched.images)
    expected = searched.run(held, 40, (0,), MACHINE, evaluator=evaluator)
    steps, step = [], Genetic.step

    def interrupted(self: Genetic, search: base.Search) -> None:
        steps.append(search.generation)
        if len(steps) == generations:
            raise InterruptedError
        step(self, search)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(Genetic, "step", interrupted)
        searched.run(held, 40, (0,), MACHINE, tmp_path / "checkpoint", evaluator=evaluator)
    found = searched.run(held, 40, (0,), MACHINE, tmp_path / "checkpoint", evaluator=evaluator)
    assert torch.equal(found.placements, expected.placements)
    kept = ("generation", "evaluations", "best_fitness")
    assert [[row[key] for key in kept] for row in found.history] == [
        [row[key] for key in kept] for row in expected.history
    ]


def searching(held: Puzzle, searched: Genetic, budget: int) -> base.Search:
    space = base.PlacementSpace(held, MACHINE.device)
    evaluator = searched.make_evaluator(held, MACHINE, searched.images)
    return base.Search(evaluator, space, torch.Generator().manual_seed(0), "loss", budget)


@pytest.mark.parametrize("elite", [8, 3, 1])
def test_with_an_elite_the_populations_best_never_falls(elite: int) -> None:
    searched = attack(elite=elite)
    search = searching(puzzle()[0], searched, 200)
    searched.start(search)
    for _ in range(10):
        before = search.state["fitness"].sort(descending=True).values
        searched.step(search)
        after = search.state["fitness"]
        assert torch.equal(after, after.sort(descending=True).values) and len(after) == 8
        assert after[0] == search.best_fitness and (elite < 8 or (after >= before).all())


def test_without_an_elite_parents_do_not_survive() -> None:
    searched = attack(elite=0, crossover_rate=0.0, mutation_rate=1.0)
    search = searching(puzzle()[0], searched, 200)
    searched.start(search)
    before = search.state["fillings"]
    searched.step(search)
    assert not (search.state["fillings"][:, None] == before).all(2).any()


def test_without_operators_children_are_copies() -> None:
    searched = attack(crossover_rate=0.0, mutation_rate=0.0)
    search = searching(puzzle("edges")[0], searched, 200)
    searched.start(search)
    before = search.state["fillings"]
    searched.step(search)
    assert (search.state["fillings"][:, None] == before).all(2).any(1).all()


@pytest.mark.parametrize("case", CASES)
def test_a_start_given_is_spread_by_exchanges(case: str) -> None:
    held, answer = puzzle(case)
    searched = attack(spread=3)
    search = searching(held, searched, 200)
    search.given = search.space.filling(answer.placement)
    searched.start(search)
    differing = (search.state["fillings"] != search.given).sum(1)
    assert (differing == 0).any() and differing.max() <= 6 and (differing > 0).sum() > 4
    result = searched.run(held, 20, (0,), MACHINE, start=answer.placement)
    assert result.history[0]["best_fitness"] >= float(search.evaluator.score_population(
        answer.placement.positions[None]).loss.neg()[0])  # fmt: skip


@pytest.mark.parametrize("budget", [1, 3, 8, 9])
def test_small_budgets_are_kept(budget: int) -> None:
    held, _ = puzzle()
    check(attack().run(held, budget, (0,), MACHINE), held, budget)


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


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"population": 1}, "population 1: expected at least 2"),
        ({"elite": 9}, "elite 9: expected 0 to the population of 8"),
        ({"elite": -1}, "elite -1: expected 0 to"),
        ({"crossover": "uniform"}, "crossover 'uniform': expected one of order, partially_mapped, cycle"),
        ({"mutation": "flip"}, "mutation 'flip': expected one of swap, inversion, scramble"),
        ({"crossover_rate": 1.1}, "crossover_rate 1.1: expected 0 to 1"),
        ({"mutation_rate": float("nan")}, "mutation_rate nan: expected 0 to 1"),
        ({"tournament": 0}, "tournament 0: expected 1 to the population of 8"),
        ({"tournament": 9}, "tournament 9: expected 1 to"),
        ({"spread": -1}, "spread -1: expected at least 0"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(AttackError) as error:
        attack(**keys)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_solves_the_planted_puzzle_that_random_search_does_not() -> None:
    held, answer, dataset = planted_puzzle(0)
    again, _, _ = planted_puzzle(0)
    assert torch.equal(held.blocks, again.blocks)
    test = PlacementEvaluator(held, dataset.test.images, dataset.test.labels, MACHINE.device)
    victim = float(test.score(answer.placement.positions[None]).accuracy)
    found = Genetic(images=297).run(held, 3000, (0,), MACHINE).placements[-1]
    drawn = RandomSearch(images=297).run(held, 3000, (0,), MACHINE).placements[-1]
    reached, random = test.score(torch.stack([found, drawn])).accuracy.tolist()
    assert victim >= 0.9 and reached >= 0.95 * victim and random < 0.8 * victim
