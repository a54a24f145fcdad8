"""The missing layer trained on the pirate's images from where its blocks seem to lie."""

from collections.abc import Iterator

from scatterproof.attacks.base import Copy, Run
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.training.base import Training, assembled, named
from scatterproof.attacks.training.cached import cache
from scatterproof.config.settings.training import BlocksSettings
from scatterproof.puzzle import Puzzle


class Blocks(Training[BlocksSettings]):
    """As `layer`, but from the fingerprint's placement, the sums rescaled where blocks are missing.

    Of the images held out none was trained on, and training that makes them worse is not made: the start stays.
    """

    name = "blocks"
    Settings = BlocksSettings
    calls = (Fingerprint,)

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """The start, then what training made of it."""
        task = cache(puzzle, run.machine.device)
        placed = self.calling(Fingerprint).placed(puzzle, run.machine.device)
        start = {name: weight.to(task.targets.device) for name, weight in assembled(puzzle, placed.placement).items()}
        yield Copy(named(start))
        yield self.continued(task, start, puzzle, run)
