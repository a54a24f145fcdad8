"""What all searches share: their budget, their cost, what they had reached when, and their checkpoints.

A search is an attack with two methods: `start` fills an empty state, `step` goes one generation on. All that it
remembers lies in `search.state` (tensors, numbers, and lists and dicts of them), so that it can stop after any
generation and go on bit-identically.
"""

import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from tqdm import tqdm

from scatterproof.attacks.base import Attack, Machine, Placed, Run
from scatterproof.attacks.search.space import PlacementSpace
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.search import SearchSettings
from scatterproof.evaluation.evaluator import PlacementEvaluator, correction_of
from scatterproof.evaluation.targets import Scores
from scatterproof.puzzle import Puzzle
from scatterproof.running.files import atomic
from scatterproof.running.interrupt import asked, stop_if_asked
from scatterproof.running.seeds import torch_generator

CHECKPOINT_SECONDS = 1.0  # at most one a second: a generation may take milliseconds, its checkpoint's fsync as much
SNAPSHOTS_PER_DECADE = 4

S = TypeVar("S", bound=SearchSettings)


@dataclass
class Progress:
    """A search under way: the means that it may use, and what it has reached.

    best [positions] is the best filling so far and best_fitness its fitness, higher is better; reached: what it had
    reached at log-spaced costs.
    """

    evaluator: PlacementEvaluator
    space: PlacementSpace
    generator: torch.Generator
    fitness: Literal["accuracy", "loss"]
    budget: int
    given: torch.Tensor | None = None
    state: dict[str, Any] = field(default_factory=dict)
    generation: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    best: torch.Tensor | None = None
    best_fitness: float = -float("inf")
    reached: list[dict[str, Any]] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Evaluations that the budget still allows."""
        return self.budget - self.evaluations

    def first_filling(self) -> torch.Tensor:
        """Where a walk starts [positions]: the start given, or a random filling."""
        return self.given if self.given is not None else self.space.random(1, self.generator)[0]

    def score(self, fillings: torch.Tensor) -> torch.Tensor:
        """Fitness float64 [n] of fillings [n, positions]; counts the evaluations and keeps the best."""
        return self.offer(self.evaluator.score_population(self.space.placements(fillings)), fillings)

    def offer(self, scores: Scores, fillings: torch.Tensor) -> torch.Tensor:
        """Fitness [n] of scores taken elsewhere (of moves, say) for the fillings [n, positions]; counts and keeps."""
        fitness = self.fitness_of(scores).nan_to_num(nan=-torch.inf)
        self.evaluations += len(fitness)
        top = int(fitness.argmax())
        if self.best is None or float(fitness[top]) > self.best_fitness:
            self.best, self.best_fitness = fillings[top].clone(), float(fitness[top])
        return fitness

    def fitness_of(self, scores: Scores) -> torch.Tensor:
        """The share of images right, or the mean cross-entropy's negative."""
        return scores.accuracy if self.fitness == "accuracy" else -scores.loss

    def keep(self) -> None:
        """Note what is reached by now."""
        assert self.best is not None
        self.reached.append(
            {
                "placement": self.space.placements(self.best).to(torch.int32).cpu(),
                "generation": self.generation,
                "evaluations": self.evaluations,
                "fitness": self.best_fitness,
                "minutes": self.seconds / 60,
            }
        )

    def placed(self, number: int) -> Placed:
        """What had been reached by then. A search has no account of how sure it is: all places are as likely."""
        what = dict(self.reached[number])
        placement = what.pop("placement").long()
        even = torch.full((len(placement), 1), 1 / self.space.positions)
        return Placed(placement, placement[:, None], even, **what)


class SearchAttack(Attack[S]):
    """A search over placements, by the pirate's labelled images."""

    reads: ClassVar[tuple[Known, ...]] = ("labels",)

    @abstractmethod
    def start(self, search: Progress) -> None:
        """The first generation, into search.state."""

    @abstractmethod
    def step(self, search: Progress) -> None:
        """One generation more."""

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Placed]:
        """The best placement at log-spaced costs, going on from the checkpoint in the run's folder, if it has one."""
        search = Progress(
            evaluator=run.scorer or scorer_of(puzzle, run.machine, correction_of(puzzle)),
            space=PlacementSpace(puzzle, run.machine.device),
            generator=torch_generator("attack", self.name, *run.key),
            fitness=self.settings.fitness,
            budget=self.settings.evaluations,
        )
        search.seconds = search.evaluator.prepare()
        if run.start is not None:
            search.given = search.space.filling(run.start)
        checkpoint = None if run.work is None else run.work / f"{self.file_name(puzzle, run)}.pt"
        if checkpoint is not None:
            _restore(checkpoint, search)
        yield from (search.placed(number) for number in range(len(search.reached)))
        yield from self._generations(search, checkpoint)

    def _generations(self, search: Progress, checkpoint: Path | None) -> Iterator[Placed]:
        saved = time.perf_counter()
        total = self.settings.evaluations
        with tqdm(total=total, initial=search.evaluations, unit="evaluation", desc=self.name, mininterval=5) as bar:
            while search.left > 0:
                kept = len(search.reached)
                self._generation(search)
                bar.update(min(total, search.evaluations) - bar.n)
                bar.set_postfix(best=f"{search.best_fitness:.4g}", refresh=False)
                if checkpoint is not None and (asked() or time.perf_counter() - saved > CHECKPOINT_SECONDS):
                    _save(checkpoint, search)
                    saved = time.perf_counter()
                stop_if_asked(f"after {search.evaluations} evaluations")
                if len(search.reached) > kept:
                    yield search.placed(kept)

    def _generation(self, search: Progress) -> None:
        started = time.perf_counter()
        before = search.evaluations
        self.step(search) if search.generation else self.start(search)
        assert search.evaluations > before and search.best is not None
        search.seconds += time.perf_counter() - started
        search.generation += 1
        if search.left <= 0 or before == 0 or _decade(search.evaluations) > _decade(before):
            search.keep()


def scorer_of(puzzle: Puzzle, machine: Machine, correction: str = "none") -> PlacementEvaluator:
    """Scores placements on the puzzle's images by their labels; searches of one puzzle may share it.

    correction: of missing blocks; what `search.grids` reaches is scored without.
    """
    return PlacementEvaluator(
        puzzle,
        puzzle.images,
        puzzle.labels,
        machine.device,
        precision=machine.precision,
        memory_mb=machine.memory_mb,
        correction=correction,
    )


def _decade(evaluations: int) -> int:
    """Number of the log-spaced cost that so many evaluations have passed."""
    return int(torch.tensor(float(evaluations)).log10().mul(SNAPSHOTS_PER_DECADE).floor()) if evaluations else -1


KEPT = ("state", "generation", "evaluations", "seconds", "best", "best_fitness", "reached")


def _save(path: Path, search: Progress) -> None:
    state = {name: getattr(search, name) for name in KEPT}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        torch.save({"random": search.generator.get_state(), **state}, temporary)


def _restore(path: Path, search: Progress) -> None:
    """What had been saved, if anything was: the file's name tells the run."""
    if not path.exists():
        return
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name in KEPT:
        setattr(search, name, state[name])
    if search.best is not None:
        search.best = search.best.to(search.space.device)
    search.generator.set_state(state["random"])
