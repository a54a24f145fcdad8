"""Paired gains over victim seeds: intervals, one-sided bounds, and how many seeds would decide. Imports no torch.

By Student's t, as a mean of a few paired differences has it; from scipy.special, as scipy.stats delays each job.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Gains = NDArray[np.float64]

MOST_SEEDS = 1000  # beyond that nobody trains victims


def interval(gains: Gains) -> tuple[float, float, float]:
    """Mean and its 95 % interval; NaN ends for a single value."""
    mean = float(gains.mean())
    if len(gains) < 2:
        return mean, math.nan, math.nan
    half = float(stdtrit(len(gains) - 1, 0.975)) * _error(gains)
    return mean, mean - half, mean + half


def upper(gains: Gains) -> float:
    """The one-sided 95 % upper bound of the mean; NaN for a single value."""
    if len(gains) < 2:
        return math.nan
    return float(gains.mean()) + float(stdtrit(len(gains) - 1, 0.95)) * _error(gains)


def seeds_to_decide(gains: Gains, margin: float, least: int) -> float:
    """How many seeds of the same mean and spread would show the gain to be above the margin, or below it.

    At least `least`; infinite beyond a thousand; NaN for a single value, whose spread nobody knows.
    """
    if len(gains) < 2:
        return math.nan
    mean, spread = float(gains.mean()), float(gains.std(ddof=1))
    counts = np.arange(least, MOST_SEEDS + 1)
    errors = spread / np.sqrt(counts)
    above = mean - stdtrit(counts - 1, 0.975) * errors > margin
    below = mean + stdtrit(counts - 1, 0.95) * errors < margin
    (enough,) = np.nonzero(above | below)
    return float(counts[enough[0]]) if len(enough) else math.inf


def _error(gains: Gains) -> float:
    return float(gains.std(ddof=1)) / math.sqrt(len(gains))
