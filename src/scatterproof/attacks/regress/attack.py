"""The layer fitted to what its neighbours are given: who sees its inputs and those of the layer that reads it needs no
block, and no defence that leaves the layer's neighbours as they are stands in the way.

The layer that reads it is given `f(W x + b)` for inputs x, where the bias b and the elementwise f are known: a
regression for each row of W. Where f is not invertible, as ReLU, it says for some values only where they lie. With
fewer requests than inputs the least weight that fits acts on the span of the inputs seen, in which those of other
requests largely lie as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import fx

from scatterproof.attacks.base import AttackError, Copy, Run
from scatterproof.attacks.regress.preimages import Function, preimages
from scatterproof.attacks.regress.regression import Ridge, regressed
from scatterproof.attacks.training.base import Training, named
from scatterproof.attacks.training.cached import cache
from scatterproof.attacks.training.fitting import split
from scatterproof.config.settings.base import TAUGHT
from scatterproof.config.settings.training import TRAINED, RegressSettings
from scatterproof.evaluation.split import following_layer, split_at
from scatterproof.evaluation.trainable import copies
from scatterproof.puzzle import Puzzle
from scatterproof.running.seeds import torch_generator

MOST_ROWS = 4096  # of inputs regressed on: a layer that reads tokens has many for each request
HELD_NUMBERS = 16  # arrays of a part's size that a regression holds


class Regress(Training[RegressSettings]):
    """Ridge regression of the layer on the requests seen; where something is known of enough images, the layer is then
    trained on them from there."""

    name: ClassVar[str] = "regress"
    Settings = RegressSettings

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """What the requests give, and what training made of it. Raises: AttackError."""
        requests = _Requests.of(puzzle, run.machine.device)
        ridge = self.chosen(requests, puzzle, run)
        weight = requests.spread(self.fitted(requests, ridge, run)).float()
        yield Copy(named({requests.layer: weight}))
        if puzzle.threat.knows in TAUGHT and len(puzzle.images) >= TRAINED.images:
            task = cache(puzzle, run.machine.device)
            yield self.continued(task, {requests.layer: weight}, puzzle, run)

    def chosen(self, requests: "_Requests", puzzle: Puzzle, run: Run) -> float:
        """The ridge that tells best what the requests held out gave; of one request alone the least."""
        ridges, asked = sorted(self.settings.ridges), puzzle.threat.requests
        if len(ridges) == 1 or asked < 2:
            return ridges[0]
        own, held = split(asked, self.settings.held_out, (*self.key(run), "requests"))
        train, other = requests.only(own, asked), requests.only(held, asked)
        return min(ridges, key=lambda ridge: other.error(self.fitted(train, ridge, run)))

    def fitted(self, requests: "_Requests", ridge: float, run: Run) -> torch.Tensor:
        """The layer's weight [outputs, inputs but for copies], in parts of its rows that memory holds."""
        inputs, following = requests.drawn(MOST_ROWS, self.key(run))
        onto, most = Ridge.of(inputs), run.machine.memory_mb * 2**20 // (8 * HELD_NUMBERS * len(inputs))
        parts = zip(following.T.split(max(1, most)), requests.bias.split(max(1, most)), strict=True)
        rounds = self.settings.rounds
        return torch.cat(
            [regressed(preimages(requests.function, part), onto, bias, ridge, rounds) for part, bias in parts]
        )


@dataclass(frozen=True)
class _Requests:
    """What was seen, and what is known of the layer and what reads it.

    inputs float64 [n, inputs but for copies]; following float64 [n, outputs]; bias float64 [outputs]; function: what
    lies between; reader float64 [m, outputs]; copies: how often each input stands in the layer's, side by side.
    """

    layer: str
    inputs: torch.Tensor
    following: torch.Tensor
    bias: torch.Tensor
    function: Function
    reader: torch.Tensor
    copies: int

    @classmethod
    def of(cls, puzzle: Puzzle, device: torch.device) -> "_Requests":
        """Raises: AttackError where no dense layer alone reads the layer's outputs, or nothing of it was seen."""
        (layer,) = puzzle.layout.grids
        if "following" not in puzzle.seen:
            raise AttackError("regress needs what the layer after the scattered one is given, and the puzzle lacks it")
        function, reader = _what_follows(puzzle, layer, device)
        inputs, following = (puzzle.seen[name].to(device).double() for name in ("inputs", "following"))
        bias = puzzle.state.get(f"{layer}.bias", torch.zeros(following.shape[1])).to(device).double()
        count = copies(inputs)
        folded = inputs[:, ::count].contiguous()
        weight = puzzle.state[f"{reader}.weight"].to(device).double()
        return cls(layer, folded, following, bias, function, weight, count)

    def only(self, chosen: torch.Tensor, requests: int) -> "_Requests":
        """The rows of these of the requests, int64 [k]; a layer that reads tokens has several for each."""
        each = len(self.inputs) // requests
        rows = (chosen[:, None] * each + torch.arange(each)).flatten().to(self.inputs.device)
        return replace(self, inputs=self.inputs[rows], following=self.following[rows])

    def drawn(self, most: int, key: tuple[int | str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs, and what followed: of so many rows at most, at random."""
        rows = torch.randperm(len(self.inputs), generator=torch_generator("rows", *key))[:most].sort().values
        rows = rows.to(self.inputs.device)
        return self.inputs[rows], self.following[rows]

    def error(self, weight: torch.Tensor) -> float:
        """The squared error of what the next layer makes of it: that of no output counts for its mere size."""
        given = self.function(self.inputs @ weight.T + self.bias)
        return float(((given - self.following) @ self.reader.T).square().sum().nan_to_num(nan=torch.inf))

    def spread(self, weight: torch.Tensor) -> torch.Tensor:
        """The least of the layer's own weights that do what these do, [outputs, inputs]."""
        return weight.repeat_interleave(self.copies, 1) / self.copies


def _what_follows(puzzle: Puzzle, layer: str, device: torch.device) -> tuple[Function, str]:
    """What lies between the layer and the one that reads it, and that one's path. Raises: AttackError."""
    tail = split_at(puzzle.model().to(device), [layer]).tail
    reader = following_layer(tail)
    head = None if reader is None else split_at(tail, [reader]).head
    if reader is None or not isinstance(head, fx.GraphModule):
        raise AttackError("regress needs a dense layer that alone reads the scattered one's outputs, value by value")
    around = [None] * (sum(node.op == "placeholder" for node in head.graph.nodes) - 1)  # what passes by plays no part

    def function(sums: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            given: torch.Tensor = head(sums, *around)[0]
        return given

    head.double()
    return function, reader
