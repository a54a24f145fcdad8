"""The pirate that does nothing: the layer withheld and left zero. What every copy must beat."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from scatterproof.attacks.base import Copy, DirectAttack, Reached, Run
from scatterproof.config.attacks import Known
from scatterproof.puzzle import Puzzle


@dataclass(frozen=True)
class Nothing(DirectAttack):
    """The network as the puzzle gives it, every scattered weight zero."""

    name: ClassVar[str] = "nothing"
    reads: ClassVar[tuple[Known, ...]] = ()

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Reached]:
        """The one step."""
        yield Copy({})
