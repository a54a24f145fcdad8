"""Training on few images without being wrecked by them: a held-out part says from which start, how fast, and when to
stop; then all images are trained on just so.

The parameters are those of a start plus a change, and weight decay draws the change to nothing: towards the start, not
towards zero (L2-SP: Li et al. 2018, https://arxiv.org/abs/1802.01483). Rates are shares of a tensor's own size, so that
one set serves layers of any scale (Adafactor: Shazeer & Stern 2018, https://arxiv.org/abs/1804.04235, section 8).
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Protocol

import torch
from torch.nn import functional as F

from scatterproof.running.files import write_text
from scatterproof.running.interrupt import stop_if_asked
from scatterproof.running.seeds import seed_of, torch_generator

Tensors = Mapping[str, torch.Tensor]

TEMPERATURES = (0.25, 0.5, 1.0, 2.0)  # the ranking of classes is to count, not how sure a network is of it
CHECKS = 8  # times that the held-out part is looked at, at equal distances
CHUNK = 500  # images of it at once
SMALLEST = 1e-3  # the size of a tensor that is zero, such as a bias


class Task(Protocol):
    """What is trained: targets int64 [n] or probabilities [n, classes], inputs for some of the n images, logits."""

    @property
    def targets(self) -> torch.Tensor:
        """On the CPU or where the logits are."""

    def inputs(self, index: torch.Tensor, train: bool) -> tuple[torch.Tensor, ...]:
        """For the images at index int64 [k]; where `train` it may draw from torch's global generator."""

    def logits(self, parameters: Tensors, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Logits [k, classes]."""


@dataclass(frozen=True)
class Start:
    """Where training begins: parameters = anchor + change; decay draws the change to nothing."""

    anchor: Tensors
    change: Tensors

    @classmethod
    def at(cls, parameters: Tensors) -> "Start":
        """With these as the anchor."""
        return cls(parameters, {name: torch.zeros_like(value) for name, value in parameters.items()})

    @classmethod
    def fresh(cls, parameters: Tensors) -> "Start":
        """With these as a change of zero, as for weights drawn at random."""
        return cls({name: torch.zeros_like(value) for name, value in parameters.items()}, parameters)

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """The sum."""
        return {name: anchor + self.change[name] for name, anchor in self.anchor.items()}


@dataclass(frozen=True)
class Recipe:
    """How a training goes: `updates` of `batch` images; the learning rate falls linearly to zero.

    rates: first steps as shares of each tensor's root mean square; decays: of the change, per step of rate 1;
    held_out: share of the images that chooses.
    """

    updates: int
    batch: int
    rates: Sequence[float]
    decays: Sequence[float]
    held_out: float


@dataclass(frozen=True)
class Choice:
    """What the held-out part chose, its loss there, and its loss at the first start before any update."""

    start: str
    rate: float
    decay: float
    updates: int
    loss: float
    start_loss: float


@dataclass
class Fit:
    """The trainings of a task from several starts. Each start is itself a candidate; of equals the first counts.

    key: of all draws; finished: a file that keeps what finished trainings came to, so that a killed run goes on after
    them; earlier: seconds that killed runs had spent.
    """

    task: Task
    starts: Mapping[str, Start]
    recipe: Recipe
    key: tuple[int | str, ...]
    finished: Path | None = None
    earlier: float = 0.0
    _began: float = field(default_factory=time.perf_counter)

    @property
    def minutes(self) -> float:
        """That killed runs had spent."""
        return self.earlier / 60

    def choose(self) -> Choice:
        """Start, rate, decay and updates of the lowest held-out loss; no updates where none lowers it."""
        done = self._restore()
        choices: list[tuple[str, float, float, int, float]] = []
        for start, rate, decay in product(self.starts, self.recipe.rates, self.recipe.decays):
            name = f"{start} {rate:g} {decay:g}"
            if name not in done:
                done[name] = list(self._losses(start, rate, decay))
                self._keep(done)
            choices += [(start, rate, decay, updates, loss) for updates, loss in done[name]]
        best = min(choices, key=lambda each: each[4])
        return Choice(*best, start_loss=choices[0][4])

    def trained(self, choice: Choice, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters after training as chosen on the images at index int64 [k]."""
        *_, (_, parameters) = self._train(choice.start, choice.rate, choice.decay, index, choice.updates)
        return parameters

    def run(self) -> tuple[Choice, dict[str, torch.Tensor]]:
        """The choice, and the parameters trained on all images as it says."""
        choice = self.choose()
        return choice, self.trained(choice, torch.arange(len(self.task.targets)))

    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The images trained on while choosing, and those held out."""
        return split(len(self.task.targets), self.recipe.held_out, self.key)

    def loss(self, parameters: Tensors, inputs: tuple[torch.Tensor, ...], index: torch.Tensor) -> torch.Tensor:
        """What a step lowers, on the images at index int64 [k]."""
        return F.cross_entropy(self.task.logits(parameters, inputs).float(), self.task.targets[index])

    def held_out_loss(self, parameters: Tensors, held: torch.Tensor) -> float:
        """What chooses, on the images at held int64 [k]."""
        parts = [self.task.logits(parameters, self.task.inputs(part, False)) for part in held.split(CHUNK)]
        return held_out_loss(torch.cat(parts), self.task.targets[held])

    def _losses(self, start: str, rate: float, decay: float) -> Iterator[tuple[int, float]]:
        """(updates, held-out loss) at each look."""
        train, held = self.split()
        for updates, parameters in self._train(start, rate, decay, train, self.recipe.updates):
            with torch.no_grad():
                loss = self.held_out_loss(parameters, held)
            yield updates, loss

    def _train(
        self, start: str, rate: float, decay: float, index: torch.Tensor, until: int
    ) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        """(updates done, parameters) at each look, the start's own first."""
        anchor, recipe = self.starts[start].anchor, self.recipe
        change = {name: value.clone().requires_grad_() for name, value in self.starts[start].change.items()}
        sizes = [size(anchor[name] + value) for name, value in change.items()]
        optimizer = torch.optim.Adam([{"params": [value]} for value in change.values()])
        every = max(1, recipe.updates // CHECKS)
        for update in range(until + 1):
            if update % every == 0 or update == until:
                yield update, {name: anchor[name] + value.detach() for name, value in change.items()}
            if update == until:
                return
            stop_if_asked(f"in update {update}")
            chosen = drawn(index, update, recipe.batch, self.key)
            with torch.random.fork_rng(devices=[]):
                _seed_inputs(seed_of("inputs", *self.key, update))
                inputs = self.task.inputs(chosen, True)
            parameters = {name: anchor[name] + value for name, value in change.items()}
            optimizer.zero_grad(set_to_none=True)
            self.loss(parameters, inputs, chosen).backward()
            speed = rate * (1 - update / recipe.updates)
            for group, scale in zip(optimizer.param_groups, sizes, strict=True):
                group["lr"] = speed * scale
            optimizer.step()
            if decay:
                with torch.no_grad():
                    torch._foreach_mul_(list(change.values()), max(0.0, 1 - speed * decay))

    def _restore(self) -> dict[str, list[tuple[int, float]]]:
        if self.finished is None or not self.finished.exists():
            return {}
        kept = json.loads(self.finished.read_text())
        self.earlier = kept["seconds"]
        return {name: [(updates, loss) for updates, loss in losses] for name, losses in kept["losses"].items()}

    def _keep(self, done: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        if self.finished is not None:
            seconds = self.earlier + time.perf_counter() - self._began
            write_text(self.finished, json.dumps({"seconds": seconds, "losses": done}))


def _seed_inputs(seed: int) -> None:
    """Of torch's global generators; before CUDA is used, `torch.manual_seed` keeps a call stack for it each time."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def split(count: int, share: float, key: tuple[int | str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of `count` images those to train on and those held out, at least one, at random: int64 [count - held], [held]."""
    order = torch.randperm(count, generator=torch_generator("held out", *key))
    held = max(1, round(share * count))
    return order[held:], order[:held]


def drawn(index: torch.Tensor, update: int, batch: int, key: tuple[int | str, ...]) -> torch.Tensor:
    """The images of one update: passes over them all in random orders, cut into batches."""
    batch = min(batch, len(index))
    a_pass = len(index) // batch
    order = torch.randperm(len(index), generator=torch_generator("order", *key, update // a_pass))
    at = update % a_pass * batch
    return index[order[at : at + batch]]


def size(tensor: torch.Tensor) -> float:
    """Root mean square, at least SMALLEST."""
    return max(SMALLEST, float(tensor.detach().square().mean().sqrt()))


def held_out_loss(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean cross-entropy at the best of a few temperatures; infinite where the logits aren't finite."""
    losses = torch.stack([F.cross_entropy(logits.float() * factor, targets) for factor in TEMPERATURES])
    return float(losses.nan_to_num(nan=torch.inf).min())
