"""What every attack shares: what it must know, its budget, its cost, what it had reached when, and its checkpoints.

An attack is a frozen dataclass of hyperparameters with two methods: `start` fills an empty state, `step` goes one
generation on. All that it remembers lies in `search.state` (tensors, numbers, and lists and dicts of them), so that
`run` can stop after any generation and go on bit-identically.
"""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from tqdm import tqdm

from scatterproof.attacks.search.space import PlacementSpace
from scatterproof.blocks import Placement
from scatterproof.errors import UserError
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.targets import Scores
from scatterproof.puzzle import Puzzle
from scatterproof.running.files import atomic
from scatterproof.running.identity import differing
from scatterproof.running.interrupt import asked, stop_if_asked
from scatterproof.running.seeds import torch_generator

CHECKPOINT_SECONDS = 1.0  # at most one a second: a generation may take milliseconds, its checkpoint's fsync as much
SNAPSHOTS_PER_DECADE = 4


class AttackError(UserError):
    """An attack that this puzzle does not allow, or a checkpoint of another run."""


@dataclass(frozen=True)
class Machine:
    """What may change the rounding: recorded, and a resume under another one is refused."""

    device: torch.device
    threads: int
    precision: str = "fp32"
    memory_mb: int = 2000


@dataclass
class Search:
    """One run under way: the means that an attack may use, and what it has reached.

    best [positions] is the best filling so far and best_fitness its fitness, higher is better.
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
    history: list[dict[str, float]] = field(default_factory=list)
    reached: list[torch.Tensor] = field(default_factory=list)

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


@dataclass(frozen=True)
class AttackResult:
    """What an attack had reached at log-spaced costs.

    placements int64 [snapshots, blocks]; rows: generation, evaluations, minutes, best_fitness of each; history: the
    same for every generation.
    """

    placements: torch.Tensor
    rows: list[dict[str, float]]
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Attack(ABC):
    """A search over placements on the first `images` of the pirate's images, with their labels."""

    name: ClassVar[str]
    images: int = 100
    fitness: Literal["accuracy", "loss"] = "loss"

    @abstractmethod
    def start(self, search: Search) -> None:
        """The first generation, into search.state."""

    @abstractmethod
    def step(self, search: Search) -> None:
        """One generation more."""

    @property
    @abstractmethod
    def per_generation(self) -> int:
        """Evaluations of a generation, as the table's `population`."""

    def check(self, puzzle: Puzzle) -> None:
        """Raises: AttackError where the puzzle grants less than the attack needs."""
        if puzzle.labels is None:
            raise AttackError(f"{self.name} needs labelled images, the threat grants {puzzle.threat.knows}")
        if not 1 <= self.images <= len(puzzle.labels):
            raise AttackError(f"{self.name} wants {self.images} images, the pirate holds {len(puzzle.labels)}")

    def run(
        self,
        puzzle: Puzzle,
        budget: int,
        seed: tuple[int | str, ...],
        machine: Machine,
        checkpoint: Path | None = None,
        start: Placement | None = None,
        evaluator: PlacementEvaluator | None = None,
    ) -> AttackResult:
        """Search for `budget` evaluations, going on from `checkpoint` where it exists.

        `start` is a placement leaked to the pirate; `evaluator` one made before by `make_evaluator`.
        Raises: AttackError.
        """
        self.check(puzzle)
        search = Search(
            evaluator=evaluator or self.make_evaluator(puzzle, machine, self.images),
            space=PlacementSpace(puzzle, machine.device),
            generator=torch_generator("attack", self.name, *seed),
            fitness=self.fitness,
            budget=budget,
        )
        search.seconds = search.evaluator.prepare()
        if start is not None:
            search.given = search.space.filling(start)
        identity = self.identity(puzzle, budget, seed, machine, search.given)
        if checkpoint is not None:
            _restore(checkpoint, identity, search)
        saved = time.perf_counter()
        with tqdm(total=budget, initial=search.evaluations, unit="evaluation", desc=self.name, mininterval=5) as bar:
            while search.left > 0:
                self._generation(search)
                bar.update(min(budget, search.evaluations) - bar.n)
                bar.set_postfix(best=f"{search.best_fitness:.4g}", refresh=False)
                if checkpoint is not None and (asked() or time.perf_counter() - saved > CHECKPOINT_SECONDS):
                    _save(checkpoint, identity, search)
                    saved = time.perf_counter()
                    stop_if_asked(f"after {search.evaluations} evaluations")
        return _result(search)

    @staticmethod
    def make_evaluator(puzzle: Puzzle, machine: Machine, images: int) -> PlacementEvaluator:
        """The evaluator on so many of the pirate's images; attacks on equally many may share it."""
        assert puzzle.labels is not None
        return PlacementEvaluator(
            puzzle,
            puzzle.images[:images],
            puzzle.labels[:images],
            machine.device,
            precision=machine.precision,
            memory_mb=machine.memory_mb,
        )

    def _generation(self, search: Search) -> None:
        started = time.perf_counter()
        before = search.evaluations
        self.step(search) if search.generation else self.start(search)
        assert search.evaluations > before and search.best is not None
        search.seconds += time.perf_counter() - started
        search.generation += 1
        row = {
            "generation": search.generation,
            "evaluations": search.evaluations,
            "minutes": search.seconds / 60,
            "best_fitness": search.best_fitness,
        }
        search.history.append(row)
        last = search.left <= 0
        if last or before == 0 or _decade(search.evaluations) > _decade(before):
            row["snapshot"] = len(search.reached)
            search.reached.append(search.space.placements(search.best).to(torch.int32).cpu())

    def identity(
        self,
        puzzle: Puzzle,
        budget: int,
        seed: tuple[int | str, ...],
        machine: Machine,
        given: torch.Tensor | None = None,
    ) -> str:
        """What must be equal for a resumed run to equal an uninterrupted one."""
        assert puzzle.labels is not None
        digest = hashlib.blake2b()
        for tensor in (puzzle.blocks, puzzle.images[: self.images], puzzle.labels[: self.images], given):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        what = {
            "attack": self.name,
            **asdict(self),
            "budget": budget,
            "seed": list(seed),
            "device": machine.device.type,
            "threads": machine.threads,
            "precision": machine.precision,
            "memory_mb": machine.memory_mb,
            "torch": torch.__version__,
            "puzzle": digest.hexdigest(),
        }
        return json.dumps(what, sort_keys=True)


def _decade(evaluations: int) -> int:
    """Number of the log-spaced cost that so many evaluations have passed."""
    return int(torch.tensor(float(evaluations)).log10().mul(SNAPSHOTS_PER_DECADE).floor()) if evaluations else -1


def _result(search: Search) -> AttackResult:
    rows = [{key: row[key] for key in row if key != "snapshot"} for row in search.history]
    kept = [row for row, full in zip(rows, search.history, strict=True) if "snapshot" in full]
    return AttackResult(torch.stack(search.reached).long(), kept, rows)


KEPT = ("state", "generation", "evaluations", "seconds", "best", "best_fitness", "history", "reached")


def _save(path: Path, identity: str, search: Search) -> None:
    state = {name: getattr(search, name) for name in KEPT}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        torch.save({"identity": identity, "random": search.generator.get_state(), **state}, temporary)


def _restore(path: Path, identity: str, search: Search) -> None:
    if not path.exists():
        return
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        what = differing(state["identity"], identity)
        raise AttackError(f"{path} belongs to another run: {what}; delete it to search afresh")
    for name in KEPT:
        setattr(search, name, state[name])
    if search.best is not None:
        search.best = search.best.to(search.space.device)
    search.generator.set_state(state["random"])
