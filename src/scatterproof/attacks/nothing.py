"""The pirate that does nothing: the layer withheld and left zero. What every copy must beat."""

from collections.abc import Iterator
from typing import ClassVar

from scatterproof.attacks.base import Attack, Copy, Reached, Run
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.training import NothingSettings
from scatterproof.puzzle import Puzzle


class Nothing(Attack[NothingSettings]):
    """The network as the puzzle gives it, every scattered weight zero."""

    name: ClassVar[str] = "nothing"
    Settings = NothingSettings
    reads: ClassVar[tuple[Known, ...]] = ()

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Reached]:
        """The one step."""
        yield Copy({})
