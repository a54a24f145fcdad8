"""Attacks that compute a copy of the model rather than search for one: what each must know, what it reaches and when.

An attack is a frozen dataclass of hyperparameters. It is given the puzzle and the machine, draws nothing at random, and
yields what it has reached as it goes. It takes seconds to minutes: a run that was killed starts again and, on a CPU,
ends the same to the bit.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from scatterproof.attacks.base import AttackError, Machine
from scatterproof.interrupt import stop_if_asked
from scatterproof.puzzle import Puzzle
from scatterproof.threat import ThreatModel

KEPT_CANDIDATES = 16  # positions of each block whose beliefs are kept, the likeliest


@dataclass(frozen=True)
class Knowledge:
    """What a threat must grant for an attack to run.

    scatter: what may be scattered; images: how many at least; knows: what must be known of the images, any of these.
    """

    scatter: tuple[str, ...] = ("layer",)
    images: int = 0
    knows: tuple[str, ...] = ("none", "labels", "logits")

    def missing(self, threat: ThreatModel) -> str:
        """What the threat doesn't grant, in words; empty where it grants all."""
        if threat.scatter not in self.scatter:
            return f"what is scattered to be {' or '.join(self.scatter)}, the threat scatters {threat.scatter}"
        if threat.images < self.images:
            return f"at least {self.images} images, the threat grants {threat.images}"
        if threat.knows not in self.knows:
            return f"{' or '.join(self.knows)} of its images, the threat grants {threat.knows}"
        return ""


@dataclass(frozen=True)
class Reached:
    """Where an attack puts the blocks, and how sure it is by its own account.

    placement int64 [blocks]; candidates int64 and beliefs float32 [blocks, k]: the likeliest positions of each block
    and their probabilities; what they leave to one is spread over all other positions. Nothing calibrates them.
    """

    placement: torch.Tensor
    candidates: torch.Tensor
    beliefs: torch.Tensor


@dataclass(frozen=True)
class Snapshot:
    """What had been reached after so many minutes."""

    minutes: float
    reached: Reached


@dataclass(frozen=True)
class DirectAttack(ABC):
    """An attack without evaluations of the network."""

    name: ClassVar[str]
    knowledge: ClassVar[Knowledge]
    reads: ClassVar[Literal["none", "labels", "logits"]]  # what it makes use of, whatever is granted

    @abstractmethod
    def steps(self, puzzle: Puzzle, machine: Machine) -> Iterator[Reached]:
        """What is reached, step after step; the last counts."""

    def check(self, threat: ThreatModel) -> None:
        """Raises: AttackError where the threat grants less than the attack needs."""
        missing = self.knowledge.missing(threat)
        if missing:
            raise AttackError(f"{self.name} needs {missing}")

    def run(self, puzzle: Puzzle, machine: Machine) -> list[Snapshot]:
        """Every step with the minutes until then, all that the attack does included. Raises: AttackError."""
        self.check(puzzle.threat)
        found: list[Snapshot] = []
        started = time.perf_counter()
        for reached in self.steps(puzzle, machine):
            minutes = (time.perf_counter() - started) / 60
            found.append(Snapshot(minutes, reached))
            print(f"{self.name}: step {len(found)}, {minutes * 60:.1f} s, certainty {_certainty(reached):.3f}")
            stop_if_asked(f"in step {len(found)}")
        return found


def _certainty(reached: Reached) -> float:
    """The share of the blocks that the attack itself expects to have placed rightly; too high without a leak."""
    own = reached.candidates == reached.placement[:, None]
    return float((reached.beliefs * own).sum(1).mean())
