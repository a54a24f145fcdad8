"""The pirate that puts the public base model's layer where the victim's was withheld: what `prior` must beat."""

from collections.abc import Iterator
from typing import ClassVar

from scatterproof.attacks.base import Attack, AttackError, Copy, Reached, Run
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.training import BorrowSettings
from scatterproof.puzzle import Puzzle


class Borrow(Attack[BorrowSettings]):
    """The network as the puzzle gives it, every scattered weight the base model's."""

    name: ClassVar[str] = "borrow"
    Settings = BorrowSettings
    reads: ClassVar[tuple[Known, ...]] = ()

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Reached]:
        """The one step."""
        if puzzle.base is None:
            raise AttackError("borrow needs a public base model, and the puzzle holds none")
        yield Copy({f"{name}.weight": weight for name, weight in puzzle.base.items()})
