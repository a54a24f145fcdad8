"""What every attack shares: settings, what it is given, what it reaches and when, and what a finished run is known by.

An attack is made of its settings and of the attacks that it calls. It is given the puzzle and where it runs, and yields
what it has reached as it goes. A finished attack is kept in the run's folder; what takes longer than minutes keeps
checkpoints there of its own. A run that was killed ends, on a CPU, the same to the bit.
"""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch

from scatterproof.blocks import Placement
from scatterproof.config.settings.base import Known, Needs, Settings
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Puzzle
from scatterproof.running.interrupt import stop_if_asked

S = TypeVar("S", bound=Settings)
A = TypeVar("A", bound="Attack[Any]")

KEPT_CANDIDATES = 16  # positions of each block whose beliefs are kept, the likeliest


class AttackError(UserError):
    """An attack that this puzzle does not allow."""


@dataclass(frozen=True)
class Machine:
    """What may change the rounding: recorded, and a result of another one is not taken up."""

    device: torch.device
    threads: int
    precision: str = "fp32"
    memory_mb: int = 2000


@dataclass(frozen=True)
class Placed:
    """Where an attack puts the blocks, and how sure it is by its own account.

    placement int64 [blocks]; candidates int64 and beliefs float32 [blocks, k]: the likeliest positions of each block
    and their probabilities; what they leave to one is spread over all other positions. Nothing calibrates them.
    evaluations: placements scored on the pirate's images so far. Of a search also: fitness, the best one so far,
    higher is better; generation; and minutes of its own, those before a kill included.
    """

    placement: torch.Tensor
    candidates: torch.Tensor
    beliefs: torch.Tensor
    evaluations: int = 0
    fitness: float | None = None
    generation: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Copy:
    """A network that an attack has made.

    tensors are laid over those of the puzzle's network, the scattered weights zero; with a `config` they are those of
    another architecture, all of them. earlier: minutes that killed attempts had spent on it.
    """

    tensors: dict[str, torch.Tensor]
    config: VictimConfig | None = None
    earlier: float = 0.0


Reached = Placed | Copy


@dataclass(frozen=True)
class Snapshot:
    """What had been reached after so many minutes."""

    minutes: float
    reached: Reached


@dataclass(frozen=True)
class Run:
    """Where and on which draws an attack runs.

    work: a folder for its checkpoints, None for none; start: a placement that is leaked to it; scorer: of placements on
    the puzzle's images, made before; searches of one puzzle share it.
    """

    machine: Machine
    key: tuple[int | str, ...] = ()
    work: Path | None = None
    start: Placement | None = None
    scorer: PlacementEvaluator | None = None


class Attack(ABC, Generic[S]):
    """An attack of the name under which its settings stand in `config.attacks.AttackSettings`.

    Settings: the class of these; calls: the attacks that it calls; reads: what of its images it makes use of, `none`
    stands for the images alone; plants: what its control plants in the layer, what training leaves or a seed's draw.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Any]]
    calls: ClassVar[tuple[type["Attack[Any]"], ...]] = ()
    reads: ClassVar[tuple[Known, ...]]
    plants: ClassVar[Literal["leak", "seed"]] = "leak"

    def __init__(self, settings: S | None = None, called: Iterable["Attack[Any]"] = (), **changes: Any) -> None:
        """settings: or, in short, those that differ from the defaults; called: attacks with other settings than those.

        Raises: pydantic.ValidationError where a setting is out of range.
        """
        self.settings: S = self.Settings(**changes) if settings is None else settings
        given = {type(each): each for each in called}
        self.called = {kind: given[kind] if kind in given else kind() for kind in self.calls}

    def calling(self, kind: type[A]) -> A:
        """The attack of this kind that this one calls."""
        called: A = self.called[kind]  # type: ignore[assignment]
        return called

    @property
    def needs(self) -> Needs:
        """What a threat must grant."""
        return self.settings.needs

    @abstractmethod
    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Reached]:
        """What is reached, step after step; the last counts."""

    def check(self, threat: ThreatModel) -> None:
        """Raises: AttackError where the threat grants less than the attack needs."""
        missing = self.needs.missing(threat)
        if missing:
            raise AttackError(f"{self.name} needs {missing}")

    def run(self, puzzle: Puzzle, run: Run) -> list[Snapshot]:
        """Every step with the minutes until then, all that the attack does included. Raises: AttackError."""
        self.check(puzzle.threat)
        if self.needs.role == "withheld":
            puzzle = without_blocks(puzzle)
        snapshots: list[Snapshot] = []
        started = time.perf_counter()
        for reached in self.steps(puzzle, run):
            minutes = (time.perf_counter() - started) / 60
            if isinstance(reached, Copy):
                minutes, reached = minutes + reached.earlier, replace(reached, earlier=0.0)
            elif reached.minutes is not None:
                minutes, reached = reached.minutes, replace(reached, minutes=None)
            snapshots.append(Snapshot(minutes, reached))
            print(f"{self.name}: step {len(snapshots)}, {minutes * 60:.1f} s{_certainty(reached)}")
            stop_if_asked(f"in step {len(snapshots)}")
        return snapshots

    @classmethod
    def used(cls, threat: ThreatModel) -> Known | None:
        """What the attack makes use of about its images under this threat; None where not even of them."""
        if threat.knows in cls.reads:
            return threat.knows
        return "none" if "none" in cls.reads else None

    def described(self) -> dict[str, Any]:
        """The attack's settings, with those of every attack that it calls."""
        called = {each.name: each.described() for each in self.called.values()}
        return self.settings.model_dump(mode="json") | ({"calls": called} if called else {})

    def identity(self, puzzle: Puzzle, run: Run) -> str:
        """What must be equal for a finished run, or one under way, to be that of the same attack on the same puzzle."""
        start = run.start and hashlib.blake2b(run.start.positions.cpu().numpy().tobytes(), digest_size=16).hexdigest()
        what = {
            "attack": self.name,
            "settings": self.described(),
            "threat": puzzle.threat.name,
            "key": list(run.key),
            "start": start,
            "device": run.machine.device.type,
            "threads": run.machine.threads,
            "precision": run.machine.precision,
            "memory_mb": run.machine.memory_mb,
            "torch": torch.__version__,
            "puzzle": puzzle.digest,
        }
        return json.dumps(what, sort_keys=True)

    def file_name(self, puzzle: Puzzle, run: Run) -> str:
        """Of the run's files, without what they end on: the attack's name and its identity's digest."""
        digest = hashlib.blake2b(self.identity(puzzle, run).encode(), digest_size=8).hexdigest()
        return f"{self.name}.{digest}"


def without_blocks(puzzle: Puzzle) -> Puzzle:
    """What the same pirate holds where the layer is withheld: no blocks, the layout kept for its sizes."""
    return replace(puzzle, blocks=puzzle.blocks[:0], shapes=puzzle.shapes[:0])


def _certainty(reached: Reached) -> str:
    """The share of the blocks that the attack itself expects to have placed rightly; too high without a leak."""
    if isinstance(reached, Copy):
        return ""
    own = reached.candidates == reached.placement[:, None]
    return f", certainty {float((reached.beliefs * own).sum(1).mean()):.3f}"
