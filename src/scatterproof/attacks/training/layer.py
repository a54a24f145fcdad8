"""The missing layers alone retrained on the pirate's images. See base.py for what it is for."""

from collections.abc import Iterator

from scatterproof.attacks.base import Copy, Run
from scatterproof.attacks.training.base import Training, fresh_start, named
from scatterproof.attacks.training.cached import cache
from scatterproof.attacks.training.fitting import Fit
from scatterproof.config.settings.training import LayerSettings
from scatterproof.puzzle import Puzzle


class Layer(Training[LayerSettings]):
    """The missing layers alone are trained, all others frozen; their biases are known.

    No Privacy Left Outside (Zhang et al., S&P 2024, https://arxiv.org/abs/2310.07152) measures the same.
    """

    name = "layer"
    Settings = LayerSettings

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """The one step."""
        task = cache(puzzle, run.machine.device)
        starts = {"fresh": fresh_start(puzzle, task, self.key(run))}
        fit = Fit(task, starts, self.recipe, self.key(run), self.finished(puzzle, run))
        _, trained = fit.run()
        yield Copy(named(task.unfolded(trained)), earlier=fit.minutes)
