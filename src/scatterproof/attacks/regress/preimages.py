"""Where an elementwise function may have been, for what it gave: ReLU's zeros leave a half-line, GELU two places.

The function is tabulated and cut into the stretches on which it rises or falls, so that any will do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

STEPS = 2**16  # of the table; the places at which piecewise functions bend are among them
LEAST_REACH, MOST_REACH = 16.0, 2.0**24  # the table's ends
ROUNDING = 1e-6  # of what was given in fp32, as a share of the largest
LEVEL = 1e-12  # of the table likewise, in fp64

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Preimages:
    """Intervals low to high, float64 [stretches, ...], of which each value lies in one; infinite where open, and both
    infinite, of one sign, on a stretch that can't have given the value."""

    low: torch.Tensor
    high: torch.Tensor

    def nearest(self, guess: torch.Tensor) -> torch.Tensor:
        """Of the values that are possible, those nearest to these [...]."""
        at = torch.minimum(torch.maximum(guess, self.low), self.high)
        if len(at) == 1:
            return at[0]
        return at.gather(0, (at - guess).abs().argmin(0, keepdim=True))[0]

    def hull(self) -> "Preimages":
        """The least single intervals that hold all."""
        never = self.low == self.high.where(self.high.isinf(), torch.nan)
        low, high = self.low.masked_fill(never, torch.inf), self.high.masked_fill(never, -torch.inf)
        return Preimages(low.amin(0, keepdim=True), high.amax(0, keepdim=True))


def preimages(function: Function, given: torch.Tensor) -> Preimages:
    """Of what an elementwise function of fp64 gave, [rows, n], rounded to fp32 in units of each row's largest value."""
    given = given.double().contiguous()
    places, values = _table(function, given)
    given = given.clamp(float(values.min()), float(values.max()))
    allowed = ROUNDING * given.abs().amax(1, keepdim=True)
    bounds = [_interval(*stretch, given - allowed, given + allowed) for stretch in _stretches(places, values)]
    low, high = zip(*bounds, strict=True)
    return Preimages(torch.stack(low), torch.stack(high))


def _table(function: Function, given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places and values, wide enough to have given all of these, if it can give them."""
    reach = LEAST_REACH
    while True:
        places = torch.linspace(-reach, reach, STEPS + 1, dtype=torch.float64, device=given.device)
        with torch.no_grad():
            values = function(places.clone())  # some write into what they read
        least, most = float(values.min()), float(values.max())
        spare = ROUNDING * (most - least)
        held = least - spare <= float(given.min()) and float(given.max()) <= most + spare
        if held or reach >= MOST_REACH:
            return places, values
        reach *= 2


def _stretches(places: torch.Tensor, values: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The table cut where the function turns; level parts, and turns within the rounding, go to what is before them."""
    change = values.diff()
    change = torch.where(change.abs() < LEVEL * float(values.abs().max()), 0.0, change).sign()
    at = change.nonzero().flatten()
    turns = at[1:][change[at[1:]] != change[at[:-1]]]
    for first, last in zip([0, *turns.tolist()], [*turns.tolist(), len(change)], strict=True):
        yield places[first : last + 1], values[first : last + 1]


def _interval(
    places: torch.Tensor, values: torch.Tensor, least: torch.Tensor, most: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a stretch's values are between least and most. Where it ends the table, an end of it is open."""
    if values[-1] < values[0]:
        low, high = _interval(-places.flip(0), values.flip(0), least, most)
        return -high, -low
    values = values.cummax(0).values
    low = _crossing(places, values, least, right=False)
    high = _crossing(places, values, most, right=True)
    never = (least > values[-1]) | (most < values[0])
    return low.masked_fill(never, torch.inf), high.masked_fill(never, torch.inf)


def _crossing(places: torch.Tensor, values: torch.Tensor, level: torch.Tensor, right: bool) -> torch.Tensor:
    """Where a rising stretch first reaches the level, or where, on the right, it first leaves it; linear between two
    places of the table."""
    after = torch.searchsorted(values, level, right=right)
    inner = after.clamp(1, len(values) - 1)
    before, rise = values[inner - 1], values[inner] - values[inner - 1]
    share = ((level - before) / rise.clamp(min=torch.finfo(torch.float64).tiny)).clamp(0, 1)
    at = places[inner - 1] + share * (places[inner] - places[inner - 1])
    reach = STEPS / 2 * (places[1] - places[0])
    at = at.masked_fill(after == 0, -torch.inf if places[0] <= -reach else float(places[0]))
    return at.masked_fill(after == len(values), torch.inf if places[-1] >= reach else float(places[-1]))
