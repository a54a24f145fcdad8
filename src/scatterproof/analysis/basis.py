"""What a verdict rests on: victim seeds, then it holds for their recipe; or draws of one model, then for that model.

Draws differ in shuffle, key and the pirate's images. They share the model and the test images, whose luck is therefore
counted apart: the difference of two accuracies on n of them has the variance (p - d^2) / n, where d is the difference
and p the share of images on which exactly one of the two is right. Tables hold no p, so its largest value stands for
it, and intervals are rather too wide. Imports no torch.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from scatterproof.analysis.gains import Gains
from scatterproof.config.threat import WITH_STREAM

RECIPE, MODEL = "recipe", "model"
LEAST = {RECIPE: 5, MODEL: 10}


class Basis(NamedTuple):
    """name: `recipe` or `model`; images: of a test set whose luck all units share, None where it is not counted."""

    name: str = RECIPE
    images: int | None = None

    @property
    def least(self) -> int:
        """So many victim seeds or draws decide."""
        return LEAST[self.name]

    def less(self, more: "pd.Series[float]", less: "pd.Series[float]") -> Gains:
        """The differences of two accuracies, by the units of the second that the first has too."""
        gains = (more - less).dropna()
        values = np.asarray(gains, dtype=np.float64)
        return self._widened(values, float(more[gains.index].mean()), float(less[gains.index].mean()))

    def over(self, part: "pd.Series[float]", whole: "pd.Series[float]") -> Gains:
        """The ratios of two accuracies, likewise."""
        ratios = np.asarray((part / whole).dropna(), dtype=np.float64)
        return self._widened(ratios, part.mean(), whole.mean(), whole.mean())

    def _widened(self, values: Gains, one: float, other: float, scale: float = 1.0) -> Gains:
        """Values of the same mean, whose spread also holds the luck of the test images."""
        if self.images is None or len(values) < 2:
            return values
        discordant = min(1.0, one + other, 2.0 - one - other)
        shared = max(0.0, discordant - (one - other) ** 2) / self.images / scale**2
        apart = values - values.mean()
        own = float(apart.var(ddof=1))
        if own == 0:  # nothing to widen: any spread of the right size
            apart = np.resize([1.0, -1.0], len(values)) - np.resize([1.0, -1.0], len(values)).mean()
        wanted = own + len(values) * shared
        return np.asarray(values.mean() + apart * np.sqrt(wanted / apart.var(ddof=1)))


def with_units(threat: pd.DataFrame) -> tuple[pd.DataFrame, Basis]:
    """One threat's rows with the units in `victim_seed`: of a victim of one seed its draws, else its seeds."""
    victims, draws = (len(threat[column].unique()) for column in ("victim_seed", "seed"))
    drawn = victims == 1 and draws > 1
    if not drawn or WITH_STREAM in str(threat["threat"].iloc[0]):
        return threat, Basis()
    counted = threat[threat["last"].astype(bool)]["test_images"]
    return threat.assign(victim_seed=threat["seed"]), Basis(MODEL, int(counted.min()))
