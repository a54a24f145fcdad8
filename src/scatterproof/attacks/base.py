"""Attacks that compute a copy of the model rather than search for one: what each must know, what it reaches and when.

An attack is a frozen dataclass of hyperparameters. It is given the puzzle and where it runs, and yields what it has
reached as it goes. A finished attack is kept in the run's folder; what takes longer than minutes keeps checkpoints
there of its own. A run that was killed ends, on a CPU, the same to the bit.
"""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from scatterproof.attacks.search.base import AttackError, Machine
from scatterproof.config.attacks import KNOWLEDGE, Knowledge, Known
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.puzzle import Puzzle
from scatterproof.running.interrupt import stop_if_asked

KEPT_CANDIDATES = 16  # positions of each block whose beliefs are kept, the likeliest


@dataclass(frozen=True)
class Placed:
    """Where an attack puts the blocks, and how sure it is by its own account.

    placement int64 [blocks]; candidates int64 and beliefs float32 [blocks, k]: the likeliest positions of each block
    and their probabilities; what they leave to one is spread over all other positions. Nothing calibrates them.
    evaluations: placements scored on the pirate's images so far.
    """

    placement: torch.Tensor
    candidates: torch.Tensor
    beliefs: torch.Tensor
    evaluations: int = 0


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
    """Where and on which draws an attack runs; work: a folder for its checkpoints, None for none."""

    machine: Machine
    key: tuple[int | str, ...] = ()
    work: Path | None = None


@dataclass(frozen=True)
class DirectAttack(ABC):
    """An attack that computes. What it needs stands in `config.attacks.KNOWLEDGE` under its name."""

    name: ClassVar[str]
    reads: ClassVar[tuple[Known, ...]]  # what of its images it makes use of: `none` stands for the images alone

    @property
    def knowledge(self) -> Knowledge:
        """What a threat must grant."""
        return KNOWLEDGE[self.name]

    @abstractmethod
    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Reached]:
        """What is reached, step after step; the last counts."""

    def check(self, threat: ThreatModel) -> None:
        """Raises: AttackError where the threat grants less than the attack needs."""
        missing = self.knowledge.missing(threat)
        if missing:
            raise AttackError(f"{self.name} needs {missing}")

    def run(self, puzzle: Puzzle, run: Run) -> list[Snapshot]:
        """Every step with the minutes until then, all that the attack does included. Raises: AttackError."""
        self.check(puzzle.threat)
        if self.knowledge.role == "withheld":
            puzzle = without_blocks(puzzle)
        found: list[Snapshot] = []
        started = time.perf_counter()
        for reached in self.steps(puzzle, run):
            minutes = (time.perf_counter() - started) / 60
            if isinstance(reached, Copy):
                minutes, reached = minutes + reached.earlier, replace(reached, earlier=0.0)
            found.append(Snapshot(minutes, reached))
            print(f"{self.name}: step {len(found)}, {minutes * 60:.1f} s{_certainty(reached)}")
            stop_if_asked(f"in step {len(found)}")
        return found

    @classmethod
    def used(cls, threat: ThreatModel) -> Known | None:
        """What the attack makes use of about its images under this threat; None where not even of them."""
        if threat.knows in cls.reads:
            return threat.knows
        return "none" if "none" in cls.reads else None

    def identity(self, puzzle: Puzzle, run: Run) -> str:
        """What must be equal for a finished run to be that of the same attack on the same puzzle."""
        digest = hashlib.blake2b(digest_size=16)
        for tensor in (puzzle.blocks, puzzle.shapes, puzzle.images, puzzle.labels, puzzle.logits):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        for name in sorted(puzzle.state):
            digest.update(puzzle.state[name].cpu().contiguous().numpy().tobytes())
        for name in sorted(puzzle.base or {}):
            digest.update((puzzle.base or {})[name].cpu().contiguous().numpy().tobytes())
        what = {
            "attack": self.name,
            **asdict(self),
            "threat": puzzle.threat.name,
            "key": list(run.key),
            "device": run.machine.device.type,
            "threads": run.machine.threads,
            "memory_mb": run.machine.memory_mb,
            "torch": torch.__version__,
            "puzzle": digest.hexdigest(),
        }
        return json.dumps(what, sort_keys=True)


def without_blocks(puzzle: Puzzle) -> Puzzle:
    """What the same pirate holds where the layer is withheld: no blocks, the layout kept for its sizes."""
    return replace(puzzle, blocks=puzzle.blocks[:0], shapes=puzzle.shapes[:0])


def _certainty(reached: Reached) -> str:
    """The share of the blocks that the attack itself expects to have placed rightly; too high without a leak."""
    if isinstance(reached, Copy):
        return ""
    own = reached.candidates == reached.placement[:, None]
    return f", certainty {float((reached.beliefs * own).sum(1).mean()):.3f}"
