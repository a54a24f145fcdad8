"""What every search keeps: its budget, its count, its snapshots, the shapes, and every bit."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import small
from planted import planted_puzzle, swapped
from scatterproof.attacks import ATTACKS, SEARCHES
from scatterproof.attacks.base import AttackError, Run
from scatterproof.attacks.search import base
from scatterproof.attacks.search.annealing import Annealing
from scatterproof.attacks.search.base import Progress, SearchAttack, scorer_of
from scatterproof.attacks.search.hill_climbing import HillClimbing
from scatterproof.attacks.search.space import PlacementSpace
from scatterproof.blocks import Placement
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Answer, Puzzle, with_images
from searching import MACHINE, SearchResult, checkpoint_of, searched, without_times

BUDGET = 60
TINY: dict[str, dict[str, Any]] = {
    "random": {"batch": 7},
    "hill_climbing": {"batch": 9, "at_once": 4},
    "hill_climbing by gradient": {"batch": 9, "at_once": 4, "proposals": "gradient"},
    "annealing": {"batch": 9, "at_once": 4},
    "genetic": {"population": 8, "elite": 3 / 8},
    "reinforce": {"steps": 16, "walks": 2, "episode": 6, "minibatch": 8, "epochs": 1, "hidden": [8]},
}
each_attack = pytest.mark.parametrize("kind", TINY)


def attack(kind: str, **keys: Any) -> SearchAttack[Any]:
    made = ATTACKS[kind.split()[0]](**TINY[kind] | keys)
    assert isinstance(made, SearchAttack)
    return made


@cache
def held(share: float = 1.0, size: int = 16, knows: str = "labels") -> tuple[Puzzle, Answer]:
    """64 x 392 in blocks of 16 with an edge column, or of 60 with edges on two sides."""
    config = small.vgg()
    data = small.dataset()
    return small.puzzle(small.network(config), config, data, size, images=12, knows=knows, share=share)


@cache
def scorer(share: float = 1.0, size: int = 16) -> PlacementEvaluator:
    return scorer_of(held(share, size)[0], MACHINE)


def run(kind: str, share: float = 1.0, seed: int = 0, budget: int = BUDGET, **keys: Any) -> SearchResult:
    own = {key: keys.pop(key) for key in ("work", "start") if key in keys}
    return searched(attack(kind, **keys), held(share)[0], budget, seed, scorer=scorer(share), **own)


@cache
def ran(kind: str, share: float, fitness: str) -> SearchResult:
    return run(kind, share, fitness=fitness)


def fitness_of(evaluator: PlacementEvaluator, placements: torch.Tensor, fitness: str) -> list[float]:
    scores = evaluator.score_population(placements)
    return (scores.accuracy if fitness == "accuracy" else -scores.loss).tolist()


def searching(kind: str, share: float = 1.0, size: int = 16, **keys: Any) -> tuple[SearchAttack[Any], Progress]:
    made = attack(kind, **keys)
    space = PlacementSpace(held(share, size)[0], MACHINE.device)
    generator = torch.Generator().manual_seed(0)
    return made, Progress(scorer(share, size), space, generator, made.settings.fitness, 10**6)


def test_every_search_is_tried_here() -> None:
    assert {kind.split()[0] for kind in TINY} == {kind.name for kind in SEARCHES}
    assert {name for name, kind in ATTACKS.items() if issubclass(kind, SearchAttack)} == {
        kind.name for kind in SEARCHES
    }


@each_attack
@pytest.mark.parametrize("fitness", ["accuracy", "loss"])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_it_keeps_budget_count_snapshots_and_shapes(kind: str, fitness: str, share: float) -> None:
    result, puzzle = ran(kind, share, fitness), held(share)[0]
    history = result.history
    assert [row["generation"] for row in history] == list(range(1, len(history) + 1))
    assert history[-1]["evaluations"] == BUDGET
    for row, later in pairwise(history):
        assert row["evaluations"] < later["evaluations"]
        assert row["best_fitness"] <= later["best_fitness"]
        assert row["minutes"] <= later["minutes"]
    assert result.rows[0] == history[0] and result.rows[-1] == history[-1]
    assert len(result.placements) == len(result.rows)
    shapes = puzzle.layout.shapes()
    for placement in result.placements:
        assert len(placement.unique()) == len(puzzle.blocks) and placement.min() >= 0
        assert torch.equal(shapes[placement], puzzle.shapes)
    expected = [row["best_fitness"] for row in result.rows]
    assert fitness_of(scorer(share), result.placements, fitness) == pytest.approx(expected, abs=1e-5)


@each_attack
def test_snapshots_are_at_the_first_generations_past_log_spaced_costs(kind: str) -> None:
    result = ran(kind, 1.0, "loss")
    costs = [int(row["evaluations"]) for row in result.history]
    expected = {costs[0], costs[-1]}
    for quarter in range(10):  # whole numbers: evaluations ** 4 against 10 ** quarter
        expected |= set([cost for cost in costs if cost**4 >= 10**quarter][:1])
    assert [row["evaluations"] for row in result.rows] == sorted(expected)


def test_a_power_of_ten_is_a_cost_of_its_own() -> None:
    for power in range(1, 7):
        assert base._decade(10**power) == base._decade(10**power - 1) + 1 == 4 * power


@each_attack
@pytest.mark.parametrize("budget", [1, 2, 10])
@pytest.mark.parametrize("given", [False, True])
def test_small_budgets_are_kept(kind: str, budget: int, given: bool) -> None:
    start = held()[1].placement if given else None
    assert run(kind, budget=budget, start=start).history[-1]["evaluations"] == budget


@each_attack
def test_the_seed_decides(kind: str) -> None:
    result, again, other = ran(kind, 0.3, "loss"), run(kind, 0.3), run(kind, 0.3, seed=1)
    assert torch.equal(again.placements, result.placements)
    assert without_times(again.history) == without_times(result.history)
    assert not torch.equal(other.placements[-1], result.placements[-1])
    assert without_times(other.history) != without_times(result.history)


class Killed(Exception):
    """What stops a run here."""


def kill(kind: str, generation: int, work: Path, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> None:
    """Run with a checkpoint after every generation until `generation` are done."""
    monkeypatch.setattr(base, "CHECKPOINT_SECONDS", 0)
    step: Callable[[SearchAttack[Any], Progress], None] = type(attack(kind)).step

    def killed(self: SearchAttack[Any], search: Progress) -> None:
        if search.generation == generation:
            raise Killed
        step(self, search)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(type(attack(kind)), "step", killed)
        run(kind, work=work, **keys)


@each_attack
@pytest.mark.parametrize("generation", [1, 3])
def test_an_interrupted_run_repeats_every_bit(
    kind: str, generation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(kind, generation, tmp_path, monkeypatch, share=0.3)
    resumed, whole = run(kind, 0.3, work=tmp_path), ran(kind, 0.3, "loss")
    assert torch.equal(resumed.placements, whole.placements)
    assert without_times(resumed.rows) == without_times(whole.rows)
    assert without_times(resumed.history) == without_times(whole.history)[generation:], "goes on, not from the start"


@each_attack
def test_minutes_before_a_kill_count_and_are_those_of_then(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(kind, 3, tmp_path, monkeypatch)
    state = torch.load(checkpoint_of(attack(kind), held()[0], BUDGET, tmp_path), weights_only=True)
    found = run(kind, work=tmp_path)
    assert [row["minutes"] for row in found.rows[: len(state["reached"])]] == [
        each["minutes"] for each in state["reached"]
    ]
    assert found.history[0]["minutes"] > state["seconds"] / 60


@pytest.mark.parametrize(
    "keys",
    [{"seed": 1}, {"budget": 70}, {"fitness": "accuracy"}, {"batch": 8}, {"share": 0.3}, {"start": True}],
    ids=lambda keys: next(iter(keys)),
)
def test_another_run_starts_afresh_and_leaves_the_checkpoint_alone(
    keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill("random", 2, tmp_path, monkeypatch)
    (checkpoint,) = tmp_path.iterdir()
    assert checkpoint == checkpoint_of(attack("random"), held()[0], BUDGET, tmp_path)
    before = checkpoint.read_bytes()
    keys = keys | ({"start": held()[1].placement} if "start" in keys else {})
    expected = run("random", **keys)
    found = run("random", work=tmp_path, **keys)
    assert found.history[0]["generation"] == 1
    assert without_times(found.history) == without_times(expected.history)
    assert torch.equal(found.placements, expected.placements)
    assert checkpoint.read_bytes() == before


@each_attack
@pytest.mark.parametrize("knows", ["none", "logits"])
def test_without_labels_it_is_refused(kind: str, knows: str) -> None:
    with pytest.raises(AttackError, match=f"^{kind.split()[0]} needs labels of its images, the threat grants {knows}$"):
        attack(kind).run(held(knows=knows)[0], Run(MACHINE))


@each_attack
def test_without_images_it_is_refused(kind: str) -> None:
    puzzle = with_images(held()[0], 0)
    puzzle = replace(puzzle, threat=puzzle.threat.model_copy(update={"images": 0}))
    with pytest.raises(AttackError, match=f"^{kind.split()[0]} needs at least 1 images, the threat grants 0$"):
        attack(kind).run(puzzle, Run(MACHINE))


@pytest.mark.parametrize("images", [1, 7])
def test_it_climbs_on_all_images_that_its_puzzle_has(images: int) -> None:
    puzzle = with_images(held()[0], images)
    assert puzzle.labels is not None and len(puzzle.images) == len(puzzle.labels) == images
    result = searched(attack("random"), puzzle, 20)
    own = PlacementEvaluator(puzzle, held()[0].images[:images], puzzle.labels, MACHINE.device)
    expected = [row["best_fitness"] for row in result.rows]
    assert fitness_of(own, result.placements, "loss") == pytest.approx(expected, abs=1e-5)


@each_attack
def test_it_may_begin_at_a_start_given(kind: str) -> None:
    start = held()[1].placement
    made, search = searching(kind)
    search.given = search.space.filling(start)
    made.start(search)
    (expected,) = fitness_of(scorer(), start.positions[None], "loss")
    assert search.best_fitness >= expected - 1e-6
    if "filling" in search.state:
        assert torch.equal(search.space.placements(search.state["filling"]), start.positions)
        assert search.state["fitness"] == pytest.approx(expected, abs=1e-6)
    assert run(kind, start=start).history[0]["best_fitness"] >= expected - 1e-6


@each_attack
def test_how_blocks_are_numbered_changes_nothing_that_can_be_reached(kind: str) -> None:
    puzzle = held(0.3)[0]
    order = torch.randperm(len(puzzle.blocks), generator=torch.Generator().manual_seed(1))
    renumbered = replace(puzzle, blocks=puzzle.blocks[order], shapes=puzzle.shapes[order])
    result = searched(attack(kind), renumbered, 30)
    back = torch.empty_like(result.placements)
    back[:, order] = result.placements  # block i is the other's block order[i]
    expected = [row["best_fitness"] for row in result.rows]
    scaled = scorer_of(puzzle, MACHINE, "scale")  # as the judge corrects for missing blocks
    assert fitness_of(scaled, back, "loss") == pytest.approx(expected, abs=1e-5)
    for part, other in zip(
        PlacementSpace(puzzle, MACHINE.device).classes, PlacementSpace(renumbered, MACHINE.device).classes, strict=True
    ):
        assert torch.equal(part.positions, other.positions)
        assert set(part.numbers.tolist()) == {
            int(order[number]) if number < len(order) else number for number in other.numbers.tolist()
        }


# The space


def chi_squared(counts: torch.Tensor) -> float:
    counts = counts.double()
    return float(((counts - counts.mean()) ** 2).sum() / counts.mean())


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_random_fillings_are_uniform_over_each_shapes_places(share: float) -> None:
    space = PlacementSpace(held(share, 60)[0], MACHINE.device)  # shapes with 6, 1, 6 and 1 places
    assert sorted(len(part.positions) for part in space.classes) == [1, 1, 6, 6]
    fillings = space.random(36_000, torch.Generator().manual_seed(0))
    assert (fillings.sort(1).values == torch.arange(space.positions)).all()
    for part in space.classes:
        here = fillings[:, part.positions]
        assert (here.sort(1).values == part.numbers.sort().values).all()
        if len(part.positions) > 1:
            counts = here.unique(dim=0, return_counts=True)[1]
            assert len(counts) == 720 and chi_squared(counts) < 910  # 719 degrees: 719 + 5 standard deviations


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_random_swaps_are_uniform_and_stay_within_a_shape(share: float) -> None:
    puzzle = held(share, 60)[0]
    space, generator = PlacementSpace(puzzle, MACHINE.device), torch.Generator().manual_seed(0)
    filling = space.random(1, generator)[0]
    moves = space.random_swaps(filling, 20_000, generator)
    shapes = puzzle.layout.shape_classes()
    assert (moves[:, 0] != moves[:, 1]).all()
    assert torch.equal(shapes[moves[:, 0]], shapes[moves[:, 1]])
    assert (filling[moves[:, 0]] < space.held).all()
    found, counts = moves.unique(dim=0, return_counts=True)
    sizes = shapes.bincount()
    assert len(found) == sum(
        int(sizes[shapes[at]]) - 1 for at in range(space.positions) if int(filling[at]) < space.held
    )
    assert chi_squared(counts) < len(found) + 5 * (2 * len(found)) ** 0.5


def test_blocks_with_nowhere_else_to_go_are_said_so() -> None:
    puzzle = held(1.0, 60)[0]
    corner = (puzzle.shapes == torch.tensor([4, 32])).all(1)
    alone = replace(puzzle, blocks=puzzle.blocks[corner], shapes=puzzle.shapes[corner])
    space, generator = PlacementSpace(alone, MACHINE.device), torch.Generator()
    with pytest.raises(ValueError, match="no block has another position of its own shape"):
        space.random_swaps(space.random(1, generator)[0], 1, generator)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_fillings_and_placements_are_each_others_inverse(share: float) -> None:
    puzzle, answer = held(share)
    space = PlacementSpace(puzzle, MACHINE.device)
    fillings = space.random(20, torch.Generator().manual_seed(0))
    for placement in [answer.placement.positions, *space.placements(fillings)]:
        filling = space.filling(Placement(placement, space.positions))
        assert torch.equal(filling.sort().values, torch.arange(space.positions))
        assert torch.equal(space.placements(filling), placement)
        assert all(torch.isin(filling[part.positions], part.numbers).all() for part in space.classes)
        empty = filling >= space.held
        for part in space.classes:  # rising, so that a placement has one filling
            assert (filling[part.positions][empty[part.positions]].diff() > 0).all()


def test_a_start_that_no_attack_may_reach_is_refused() -> None:
    puzzle, answer = held()
    space = PlacementSpace(puzzle, MACHINE.device)
    shapes = puzzle.layout.shape_classes()
    true = answer.placement.blocks()
    edge, whole = (int(true[(shapes == number).nonzero()[0, 0]]) for number in (0, 1))
    for bad in (swapped(answer.placement, edge, whole), answer.placement.only(torch.arange(len(puzzle.blocks)) > 0)):
        with pytest.raises(ValueError, match="every block held at a position of its own shape"):
            space.filling(bad)


# Walks


def fitness_walked(hot: float, cold: float) -> list[float]:
    made, search = searching("annealing", hot=hot, cold=cold)
    made.start(search)
    walked = [search.state["fitness"]]
    for _ in range(12):
        made.step(search)
        walked.append(search.state["fitness"])
    return walked


def test_annealing_accepts_worse_while_hot_and_never_when_cold() -> None:
    assert any(later < now for now, later in pairwise(fitness_walked(1e6, 1e6)))
    cold = fitness_walked(1e-9, 1e-9)
    assert cold == sorted(cold) and cold[-1] > cold[0]


def test_annealing_cools_geometrically_over_the_budget() -> None:
    made, search = searching("annealing", hot=2.0, cold=0.02)
    assert isinstance(made, Annealing)
    search.state = {"spread": 3.0}
    found = []
    for spent in (0, search.budget // 2, search.budget):
        search.evaluations = spent
        found.append(made._temperature(search))
    assert found == pytest.approx([6.0, 0.6, 0.06])


@pytest.mark.parametrize("proposals", ["random", "gradient"])
def test_hill_climbing_never_goes_down(proposals: str) -> None:
    made, search = searching("hill_climbing", proposals=proposals)
    made.start(search)
    for _ in range(8):
        before = search.state["fitness"]
        made.step(search)
        assert search.state["fitness"] >= before
        filling = search.state["filling"]
        (scratch,) = fitness_of(scorer(), search.space.placements(filling)[None], "loss")
        assert search.state["fitness"] == pytest.approx(scratch, abs=1e-5)


@pytest.mark.parametrize(("share", "size", "batch"), [(1.0, 16, 2000), (0.3, 16, 600), (1.0, 60, 100), (0.5, 60, 100)])
def test_the_gradient_proposes_only_exchanges_that_are_allowed(share: float, size: int, batch: int) -> None:
    """Also where fewer exchanges are allowed than a generation tries, or most promise to do harm."""
    made, search = searching("hill_climbing", share, size, proposals="gradient", batch=batch)
    assert isinstance(made, HillClimbing)
    search.given = search.space.filling(held(share, size)[1].placement)
    filling = search.first_filling()
    moves = made._proposals(search, filling)
    shapes = held(share, size)[0].layout.shape_classes()
    assert 0 < len(moves) <= batch
    assert (moves[:, 0] != moves[:, 1]).all()
    assert torch.equal(shapes[moves[:, 0]], shapes[moves[:, 1]])
    assert len(moves.sort(1).values.unique(dim=0)) == len(moves)
    assert (filling[moves] < search.space.held).any(1).all(), "two empty places"


def test_the_gradient_climbs_at_least_as_fast_as_chance_from_near_the_top() -> None:
    puzzle, answer, _ = planted_puzzle(0)
    start = swapped(swapped(answer.placement, 0, 5), 2, 9)
    puzzle = with_images(puzzle, 100)
    evaluator = scorer_of(puzzle, MACHINE)
    found = {
        proposals: [
            searched(
                HillClimbing(batch=10, at_once=5, proposals=proposals), puzzle, 41, seed, None, start, evaluator
            ).history[-1]["best_fitness"]
            for seed in range(5)
        ]
        for proposals in ("random", "gradient")
    }
    (began,) = fitness_of(evaluator, start.positions[None], "loss")
    assert min(found["gradient"]) > began
    assert sum(found["gradient"]) >= sum(found["random"])
