"""The genetic search beside pymoo's GA: the time of its operators, and what both reach on a planted puzzle.

operators    crossover and mutation of one generation, 100 individuals of 1,568 genes, both sides in turn; ours includes
             the way from placements to permutations and back. Times are medians.
equivalence  both sides search the planted puzzle with one evaluator and equal settings: order crossover, inversion,
             binary tournaments, (mu + lambda) survival, as many evaluations. Both start from the truth with half of its
             blocks exchanged in pairs and from copies of that with two more exchanges each. Compared is the best
             placement's accuracy on test images that no search saw, in points, over independent seeds: two one-sided
             Welch t-tests (Schuirmann 1987) against a margin of 2 points, p the larger of both.

pymoo's InversionMutation applies its `prob` twice, to the row and to the result: it gets the square root of the rate.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ox import OrderCrossover
from pymoo.operators.mutation.inversion import InversionMutation
from pymoo.optimize import minimize
from scipy import stats

from scatterproof.attacks.base import Machine, Placed, Run
from scatterproof.attacks.search.base import scorer_of
from scatterproof.attacks.search.genetic import Genetic
from scatterproof.attacks.search.permutations import swap_mutation
from scatterproof.attacks.search.space import PlacementSpace
from scatterproof.blocks import Placement
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Puzzle
from scatterproof.victims.data import read_dataset
from scatterproof.victims.models import build_model

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from planted import planted_puzzle, swapped

GENES, BLOCK, REPEATS = 1568, 4, 15  # a layer of 64 x 392
GENERATIONS, MARGIN, LEVEL = 40, 2.0, 0.05
TARGET = 0.1
SEARCH = Genetic(
    fitness="loss", population=100, crossover="order", crossover_rate=0.9, mutation="inversion", mutation_rate=0.9,
    tournament=2, elite=1.0, spread=2, evaluations=100 * GENERATIONS,
)  # fmt: skip
SETTINGS = SEARCH.settings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--seeds", type=int, default=40, help="runs of each side")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    show("threads", arguments.threads, "threads")
    reached = {"operators": operators(), "equivalence": equivalence(arguments.seeds, arguments.threads)}
    missed = [name for name, good in reached.items() if not good]
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return int(arguments.check and bool(missed))


def operators() -> bool:
    """Print both sides' time; whether ours reaches its target."""
    space, generator = large_space(), torch.Generator().manual_seed(0)
    fillings = space.random(SETTINGS.population, generator)
    random = np.random.default_rng(0)
    parents = random.integers(len(fillings), size=(2, len(fillings) // 2))
    chosen, population = torch.from_numpy(parents.flatten()), Population.new("X", fillings.numpy())
    problem = Problem(n_var=GENES, n_obj=1, xl=0, xu=GENES - 1, vtype=int)
    crossover, mutation = pymoo_operators()

    def ours() -> None:
        SEARCH.children(space, fillings.index_select(0, chosen), generator)

    def theirs() -> None:
        crossed = crossover.do(problem, population, parents.T, random_state=random)
        mutation.do(problem, crossed, random_state=random)

    times: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}
    for _ in range(REPEATS):  # in turn, so that a busy moment of the machine meets both
        for side, seconds in times.items():
            seconds.append(timed(side)[1])
    fast, slow = (statistics.median(seconds) for seconds in times.values())
    show("operators.ours", fast * 1e3, "ms per generation")
    show("operators.pymoo", slow * 1e3, "ms per generation")
    show("operators.ratio", fast / slow, f"of pymoo's time (target at most {TARGET:g})")
    return fast / slow <= TARGET


def large_space() -> PlacementSpace:
    """The placements of a layer of 1,568 blocks."""
    config = VictimConfig(width=1 / 64, layer="classifier.0")
    dataset = read_dataset(DatasetConfig(kind="digits"))
    puzzle, _ = make_puzzle(build_model(config, dataset.classes), config, dataset, ThreatModel(), BLOCK, (0,))
    assert puzzle.layout.positions == GENES
    return PlacementSpace(puzzle, torch.device("cpu"))


def pymoo_operators() -> tuple[OrderCrossover, InversionMutation]:
    return OrderCrossover(prob=SETTINGS.crossover_rate), InversionMutation(prob=SETTINGS.mutation_rate**0.5)


def equivalence(seeds: int, threads: int) -> bool:
    """Print what both sides reach; whether they are equivalent."""
    puzzle, answer, dataset = planted_puzzle(0)
    machine = Machine(torch.device("cpu"), threads)
    search = scorer_of(puzzle, machine)
    test = PlacementEvaluator(puzzle, dataset.test.images, dataset.test.labels, machine.device)
    start = half_exchanged(answer.placement)
    sides: dict[str, Callable[[int], torch.Tensor]] = {
        "ours": lambda seed: run_ours(puzzle, search, machine, start, seed),
        "pymoo": lambda seed: run_pymoo(puzzle, search, start, seed),
    }
    points: dict[str, list[float]] = {name: [] for name in sides}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for seed in range(seeds):
        for name, side in sides.items():
            placement, took = timed(lambda side=side, seed=seed: side(seed))
            points[name].append(100 * accuracy(test, placement))
            seconds[name].append(took)
    show("planted.victim", 100 * accuracy(test, answer.placement.positions), "% of the test images")
    show("planted.start", 100 * accuracy(test, start.positions), "% of the test images")
    show("planted.evaluations", SETTINGS.evaluations, "evaluations per run")
    show("planted.seeds", seeds, "runs of each side")
    for name in sides:
        show(f"planted.{name}", statistics.mean(points[name]), "% of the test images")
        show(f"planted.{name}.sd", statistics.stdev(points[name]), "points")
        show(f"planted.{name}.seconds", statistics.median(seconds[name]), "s per run")
    return equivalent(np.array(points["ours"]), np.array(points["pymoo"]))


def equivalent(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> bool:
    """Print the difference of the means, its 90 % interval and the p of equivalence; whether that is small enough."""
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(1 - 2 * LEVEL)
    above = stats.ttest_ind(ours + MARGIN, theirs, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(ours - MARGIN, theirs, equal_var=False, alternative="less").pvalue
    p = float(max(above, below))
    show("planted.difference", float(ours.mean() - theirs.mean()), "points, ours less pymoo's")
    show("planted.difference.low", float(interval.low), "points, of the 90 % interval")
    show("planted.difference.high", float(interval.high), "points, of the 90 % interval")
    show("planted.equivalence.p", p, f"(target below {LEVEL:g}, margin {MARGIN:g} points)")
    return p < LEVEL


def half_exchanged(placement: Placement) -> Placement:
    """Half of the blocks exchanged in pairs, drawn once and for all."""
    blocks = torch.randperm(len(placement), generator=torch.Generator().manual_seed(5))
    for one, other in blocks[: len(placement) // 2].view(-1, 2).tolist():
        placement = swapped(placement, one, other)
    return placement


def run_ours(
    puzzle: Puzzle, evaluator: PlacementEvaluator, machine: Machine, start: Placement, seed: int
) -> torch.Tensor:
    """The best placement [blocks] that our search finds."""
    reached = SEARCH.run(puzzle, Run(machine, (seed,), start=start, scorer=evaluator))[-1].reached
    assert isinstance(reached, Placed)
    return reached.placement


def run_pymoo(puzzle: Puzzle, evaluator: PlacementEvaluator, start: Placement, seed: int) -> torch.Tensor:
    """The best placement [blocks] that pymoo's finds."""
    space = PlacementSpace(puzzle, torch.device("cpu"))
    first = space.filling(start).repeat(SETTINGS.population, 1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(SETTINGS.spread):
        first[1:] = swap_mutation(first[1:], generator)
    crossover, mutation = pymoo_operators()
    algorithm = GA(
        pop_size=SETTINGS.population, sampling=first.numpy(), crossover=crossover, mutation=mutation,
        eliminate_duplicates=False,
    )  # fmt: skip
    ended = minimize(PlacementProblem(space, evaluator), algorithm, ("n_gen", GENERATIONS), seed=seed)
    assert ended.algorithm.evaluator.n_eval == SETTINGS.evaluations
    return space.placements(torch.from_numpy(ended.X.astype(np.int64)))


class PlacementProblem(Problem):
    """Cross-entropy by filling; the planted layer's positions all have one shape, so every permutation is a filling."""

    def __init__(self, space: PlacementSpace, evaluator: PlacementEvaluator) -> None:
        super().__init__(n_var=space.positions, n_obj=1, xl=0, xu=space.positions - 1, vtype=int)
        self._space, self._scored_by = space, evaluator

    def _evaluate(self, x: NDArray[Any], out: dict[str, Any], *_: Any, **__: Any) -> None:
        placements = self._space.placements(torch.from_numpy(x.astype(np.int64)))
        out["F"] = self._scored_by.score_population(placements).loss.numpy()[:, None]


def accuracy(evaluator: PlacementEvaluator, placement: torch.Tensor) -> float:
    return float(evaluator.score(placement[None]).accuracy[0])


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def show(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.4g} {unit}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
