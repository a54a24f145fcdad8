"""The missing layer trained on the pirate's images from where its blocks seem to lie."""

from collections.abc import Iterator
from pathlib import Path

from scatterproof.attacks.base import Copy, Run
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.training.base import Training, assembled, named
from scatterproof.attacks.training.cached import Cached, cache
from scatterproof.attacks.training.fitting import Fit, Start, Tensors
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
        fit = self.fit(task, start, run, self.finished(puzzle, run))
        choice, trained = fit.run()
        print(f"{self.name}: {choice.updates} updates at {choice.rate:g}, decay {choice.decay:g}; held-out loss "
              f"{choice.start_loss:.3f} -> {choice.loss:.3f}")  # fmt: skip
        change = task.unfolded({name: value - fit.starts["placed"].anchor[name] for name, value in trained.items()})
        yield Copy(named({name: weight + change[name] for name, weight in start.items()}), earlier=fit.minutes)

    def fit(self, task: Cached, start: Tensors, run: Run, finished: Path | None) -> Fit:
        """Its trainings, from these weights of the layers' own."""
        return Fit(task, {"placed": Start.at(task.folded(start))}, self.recipe, self.key(run), finished)
