"""Gumbel-Sinkhorn over the placement: every place holds a mixture of blocks, and the mixtures learn.

Logits, a number for each block and each place that it may have, are scaled by Sinkhorn to mixtures in which every
block is used once. Adam lowers the loss of the network with the layer so mixed on the pirate's images, under Gumbel
noise and a falling temperature; a linear assignment rounds. Mena et al. 2018, https://arxiv.org/abs/1802.08665.

The first logits are the fingerprint's beliefs, or zero. A part of the images takes no part: of the start and the
placements rounded on the way, the one that does best on it, by more than chance and as `refine` decides it, is kept.
Rows are corrected for missing blocks by the share that the mixtures fill.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch

from scatterproof.attacks.base import KEPT_CANDIDATES, Attack, AttackError, Placed, Run
from scatterproof.attacks.fingerprint.assignment import IMPOSSIBLE, Candidates, beliefs, best_assignment
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.held_out import image_losses, scorers, supported
from scatterproof.attacks.search.space import PlacementSpace
from scatterproof.blocks import shape_numbers
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.blocks import RelaxSettings
from scatterproof.puzzle import Puzzle
from scatterproof.running.interrupt import stop_if_asked
from scatterproof.running.seeds import torch_generator

SINKHORN_ROUNDS = 10
ROUND_EVERY = 10  # steps between two roundings
UNLIKELY = 1e-4  # the least belief that a logit starts from
MOST = 10**7  # blocks times positions held


class Relax(Attack[RelaxSettings]):
    """held_out: the share of the images that the choice is made on; steps_taken: of Adam at most; samples: of Gumbel
    noise in a step, and noise: its size; rate: of Adam; hot, cold: the first and the last temperature; start: of the
    logits."""

    name: ClassVar[str] = "relax"
    Settings = RelaxSettings
    calls = (Fingerprint,)
    reads: ClassVar[tuple[Known, ...]] = ("labels", "logits")

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Placed]:
        """The start, then the best so far at each rounding."""
        if len(puzzle.blocks) * puzzle.layout.positions > MOST:
            raise AttackError(
                f"relax holds a number for each block and position, at most {MOST}: {len(puzzle.blocks)} x "
                f"{puzzle.layout.positions} are more; expected larger blocks"
            )
        settings = self.settings
        generator = torch_generator("attack", self.name, *run.key)
        best = self._start(puzzle, run, generator)
        yield best
        learn, held = scorers(puzzle, run, self.name, settings.held_out)
        if learn.engine is None:
            print("relax: the network can't be cut at the layer, the start stays")
            return
        first = least = image_losses(held, best.placement)
        logits = self._logits(best, puzzle.layout.positions).to(run.machine.device).requires_grad_()
        numbered = shape_numbers(puzzle.shapes, puzzle.layout.shapes())
        shape_of, shape_at = (numbers.to(run.machine.device) for numbers in numbered)
        possible = shape_of[:, None] == shape_at
        optimizer = torch.optim.Adam([logits], lr=settings.rate)
        for step in range(1, settings.steps_taken + 1):
            temperature = settings.hot * (settings.cold / settings.hot) ** (step / settings.steps_taken)
            mixtures = sinkhorn((logits + settings.noise * self._gumbel(logits, generator)) / temperature, possible)
            _, gradient = learn.engine.mixed(mixtures.detach())
            optimizer.zero_grad()
            mixtures.backward(gradient / settings.samples)
            optimizer.step()
            if step % ROUND_EVERY == 0 or step == settings.steps_taken:
                rounded = _rounded(logits.detach() / temperature, shape_of, shape_at)
                losses = image_losses(held, rounded.placement)
                if supported(held, losses, least, first):
                    least, best = losses, rounded
                yield replace(best, evaluations=step * settings.samples)
            stop_if_asked(f"in step {step}")

    def _start(self, puzzle: Puzzle, run: Run, generator: torch.Generator) -> Placed:
        if self.settings.start == "fingerprint":
            return self.calling(Fingerprint).placed(puzzle, run.machine.device)
        space = PlacementSpace(puzzle, torch.device("cpu"))
        placement = space.placements(space.random(1, generator)[0])
        even = torch.full((len(placement), 1), 1 / puzzle.layout.positions)
        return Placed(placement, placement[:, None], even)

    def _logits(self, start: Placed, positions: int) -> torch.Tensor:
        """The start's beliefs as logits [blocks, positions]."""
        if self.settings.start == "nothing":
            return torch.zeros(len(start.placement), positions)
        belief = torch.full((len(start.placement), positions), UNLIKELY)
        return belief.scatter_(1, start.candidates, start.beliefs.clamp(min=UNLIKELY)).log()

    def _gumbel(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Gumbel noise [samples, blocks, positions], drawn on the CPU: the same on every device."""
        uniform = torch.rand(self.settings.samples, *logits.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
        return -(-uniform.log()).log().to(logits.device)


def sinkhorn(logits: torch.Tensor, possible: torch.Tensor) -> torch.Tensor:
    """Mixtures [samples, blocks, positions]: each block used once in all, each position filled at most once.

    possible bool [blocks, positions]. Where there are as many blocks as positions each is filled once, as nearly as so
    many rounds make it.
    """
    kernel = (logits - logits.amax(2, keepdim=True).detach()).clamp(min=-60).exp() * possible
    full = kernel.shape[1] == kernel.shape[2]
    columns = kernel.new_ones(len(kernel), kernel.shape[2], 1)
    for _ in range(SINKHORN_ROUNDS):
        rows = 1 / (kernel @ columns).clamp(min=1e-30)
        columns = 1 / (kernel.transpose(1, 2) @ rows).clamp(min=1e-30)
        if not full:
            columns = columns.clamp(max=1.0)
    return kernel * rows * columns.transpose(1, 2)


def _rounded(logits: torch.Tensor, shape_of: torch.Tensor, shape_at: torch.Tensor) -> Placed:
    """The best placement by these logits, every block at a place of its shape, and beliefs from them."""
    ordered, places = logits.masked_fill(shape_of[:, None] != shape_at, IMPOSSIBLE).sort(
        dim=1, descending=True, stable=True
    )
    candidates = Candidates(places, ordered)
    placement = best_assignment(candidates, shape_of, shape_at)
    best, at = beliefs(candidates, logits.shape[1]).topk(min(KEPT_CANDIDATES, logits.shape[1]), dim=1)
    return Placed(placement, places.gather(1, at).cpu(), best.cpu())
