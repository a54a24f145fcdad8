"""Retraining what is missing, on the pirate's images: `probe`, `layer` and `finetune` without the blocks, and `blocks`,
which starts from where they seem to lie.

The first three are what any attack on the blocks has to beat: they succeed as well where the layer was never handed
out, even encrypted. Each is taught by labels, or by the victim's logits where the threat grants those.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.func import functional_call
from torch.nn import functional as F

from scatterproof.attacks.base import Copy, DirectAttack, Run
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.training.cached import Cached, cache, fresh_weights, targets
from scatterproof.attacks.training.fitting import Fit, Recipe, Start, Tensors
from scatterproof.attacks.training.probing import probe_config, probe_tensors
from scatterproof.blocks import factors, input_shares, invert, lines_of
from scatterproof.config.attacks import Known
from scatterproof.puzzle import Puzzle
from scatterproof.running.seeds import torch_generator
from scatterproof.victims.augment import augment


@dataclass(frozen=True)
class Training(DirectAttack):
    """What the attacks here share: how they train. See `fitting.Recipe`."""

    reads: ClassVar[tuple[Known, ...]] = ("labels", "logits")

    updates: int = 300
    batch: int = 64
    rates: tuple[float, ...] = (0.03, 0.1)
    decays: tuple[float, ...] = (0.0,)
    held_out: float = 0.2

    @property
    def recipe(self) -> Recipe:
        """How each training goes."""
        return Recipe(self.updates, self.batch, self.rates, self.decays, self.held_out)

    def key(self, run: Run) -> tuple[int | str, ...]:
        """Of all draws."""
        return ("attack", self.name, *run.key)

    def finished(self, puzzle: Puzzle, run: Run) -> Path | None:
        """The file that keeps what the finished trainings came to."""
        if run.work is None:
            return None
        digest = hashlib.blake2b(self.identity(puzzle, run).encode(), digest_size=8).hexdigest()
        return run.work / f"{self.name}.{digest}.json"


@dataclass(frozen=True)
class Probe(Training):
    """A linear probe: one new dense layer from the withheld layer's inputs to the classes, nothing after it used.

    Alain & Bengio 2016, https://arxiv.org/abs/1610.01644.
    """

    name: ClassVar[str] = "probe"

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """The one step. Raises: AttackError where the network can't be cut before the layer."""
        task = cache(puzzle, run.machine.device)
        inputs = task.seen[0].flatten(1)
        spread = inputs.shape[1] ** -0.5
        weight = spread * torch.randn(puzzle.classes, inputs.shape[1], generator=torch_generator(*self.key(run)))
        starts = {"fresh": Start.fresh({"weight": weight.to(inputs), "bias": inputs.new_zeros(puzzle.classes)})}
        task_of_it = _Linear(inputs, task.targets)
        fit = Fit(task_of_it, starts, self.recipe, self.key(run), self.finished(puzzle, run))
        _, found = fit.run()
        own = found["weight"].repeat_interleave(task.copies, 1) / task.copies
        tensors = probe_tensors(puzzle, own.cpu(), found["bias"].cpu())
        yield Copy(tensors, probe_config(puzzle, own.shape[1]), fit.minutes)


@dataclass(frozen=True)
class _Linear:
    """A `fitting.Task`: one dense layer."""

    seen: torch.Tensor
    targets: torch.Tensor

    def inputs(self, index: torch.Tensor, train: bool) -> tuple[torch.Tensor, ...]:
        return (self.seen[index.to(self.seen.device)],)

    def logits(self, parameters: Tensors, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return F.linear(inputs[0], parameters["weight"], parameters["bias"])


@dataclass(frozen=True)
class Layer(Training):
    """The missing layers alone are trained, all others frozen; their biases are known.

    No Privacy Left Outside (Zhang et al., S&P 2024, https://arxiv.org/abs/2310.07152) measures the same.
    """

    name: ClassVar[str] = "layer"

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """The one step."""
        task = cache(puzzle, run.machine.device)
        starts = {"fresh": fresh_start(puzzle, task, self.key(run))}
        fit = Fit(task, starts, self.recipe, self.key(run), self.finished(puzzle, run))
        _, found = fit.run()
        yield Copy(named(task.unfolded(found)), earlier=fit.minutes)


@dataclass(frozen=True)
class Blocks(Training):
    """As `layer`, but from the fingerprint's placement, the sums rescaled where blocks are missing.

    Of the images held out none was trained on, and training that makes them worse is not made: the start stays.
    """

    name: ClassVar[str] = "blocks"

    rates: tuple[float, ...] = (0.01, 0.05)
    decays: tuple[float, ...] = (0.0, 3.0)

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """The start, then what training made of it."""
        task = cache(puzzle, run.machine.device)
        found = Fingerprint().placed(puzzle, run.machine.device)
        start = {name: weight.to(task.targets.device) for name, weight in assembled(puzzle, found.placement).items()}
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


@dataclass(frozen=True)
class Finetune(Training):
    """Everything is trained, first the missing layers alone, then all from there: so the known ones are not spoilt by a
    layer that is still wrong (Kumar et al. 2022, https://arxiv.org/abs/2202.10054).

    Images are augmented as the victim's were where labels teach; the victim's logits are of the images as they are.
    Batch norms keep their statistics. layer: hyperparameters of `layer`.
    """

    name: ClassVar[str] = "finetune"

    updates: int = 60
    rates: tuple[float, ...] = (0.003,)
    layer: Mapping[str, Any] = field(default_factory=dict)

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Copy]:
        """The one step. While choosing, neither stage has seen the images held out."""
        task = cache(puzzle, run.machine.device)
        first = self.layer_fit(puzzle, task, run)
        choice, network = first.choose(), _Whole.of(puzzle, run.machine.device)
        train, _ = first.split()
        begun = [task.unfolded(first.trained(choice, part)) for part in (train, torch.arange(len(puzzle.images)))]
        choosing, everything = (
            Fit(network, {"layer": Start.at(network.known | named(part))}, self.recipe, self.key(run), finished)
            for part, finished in zip(begun, (self.finished(puzzle, run), None), strict=True)
        )
        found = everything.trained(choosing.choose(), torch.arange(len(puzzle.images)))
        yield Copy({name: value.cpu() for name, value in found.items()}, earlier=choosing.minutes)

    def layer_fit(self, puzzle: Puzzle, task: Cached, run: Run) -> Fit:
        """The first stage: `layer`'s trainings with this attack's images held out."""
        layer = Layer(**{**self.layer, "held_out": self.held_out})
        return Fit(task, {"fresh": fresh_start(puzzle, task, self.key(run))}, layer.recipe, self.key(run))


@dataclass(frozen=True)
class _Whole:
    """A `fitting.Task` over all parameters of the network; known: those that the pirate holds."""

    puzzle: Puzzle
    model: torch.nn.Module
    targets: torch.Tensor
    known: dict[str, torch.Tensor]

    @classmethod
    def of(cls, puzzle: Puzzle, device: torch.device) -> "_Whole":
        model = puzzle.model().to(device).requires_grad_(False)
        known = {name: value.detach() for name, value in model.named_parameters()}
        return cls(puzzle, model, targets(puzzle).to(device), known)

    def inputs(self, index: torch.Tensor, train: bool) -> tuple[torch.Tensor, ...]:
        kind = self.puzzle.config.train.augment if train and self.puzzle.labels is not None else "none"
        images = augment(self.puzzle.images[index].to(self.targets.device), kind)
        return (self.puzzle.inputs(images),)

    def logits(self, parameters: Tensors, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        found: torch.Tensor = functional_call(self.model, dict(parameters), inputs)
        return found


def fresh_start(puzzle: Puzzle, task: Cached, key: tuple[int | str, ...]) -> Start:
    """The missing layers as a new network begins with them."""
    fresh = {name: weight.to(task.targets.device) for name, weight in fresh_weights(puzzle, key).items()}
    return Start.fresh(task.folded(fresh))


def assembled(puzzle: Puzzle, placement: torch.Tensor) -> dict[str, torch.Tensor]:
    """The scattered layers' weights with block b at placement[b], int64 [blocks]; each row's sum is divided by the
    share of its inputs that is held."""
    block_at = invert(placement.cpu(), puzzle.layout.positions)
    weights = puzzle.layout.assemble(lines_of(puzzle.blocks), block_at)
    shares = input_shares(puzzle.layout, block_at)
    return {name: weight * factors(shares[name])[:, None] for name, weight in weights.items()}


def named(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by their layers' paths as the network's tensors."""
    return {f"{name}.weight": weight.cpu() for name, weight in weights.items()}
