"""Matching the blocks to a public base model: a pretrained start, or a random one whose seed can be guessed.

Training moves weights by little, so that a block still resembles the base's at its place. First each block goes where
its normalised inner product with the base's is largest, all of them together by linear assignment, as ArrowMatch does
(Game of Arrows, USENIX Security 2025). Then the fingerprint goes on with the base as its prior weight: the base says
where a block was before training, the fingerprint where what training added fits. Under a base so far from the victim
that it places half of the blocks by itself, this places nearly all.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch.nn import functional as F

from scatterproof.attacks.base import KEPT_CANDIDATES, Attack, AttackError, Placed, Run
from scatterproof.attacks.fingerprint.assignment import Candidates, beliefs, best_assignment
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import find_surroundings
from scatterproof.blocks import shape_numbers
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.blocks import PriorSettings
from scatterproof.puzzle import Puzzle

CANDIDATES = 6_000_000  # blocks times positions held: all, up to a few thousand blocks
CHUNK = 512


class Prior(Attack[PriorSettings]):
    """Assignment to the base, then the guided fingerprint. Needs no images: without them it makes some up."""

    name: ClassVar[str] = "prior"
    Settings = PriorSettings
    calls = (Fingerprint,)
    reads: ClassVar[tuple[Known, ...]] = ("none",)

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Placed]:
        """By the base alone, then after each round of the fingerprint."""
        (name,) = puzzle.layout.grids
        if puzzle.base is None:
            raise AttackError("prior needs a public base model, and the puzzle holds none")
        device = run.machine.device
        blocks, shapes = puzzle.blocks.to(device), puzzle.shapes.to(device)
        base = puzzle.layout.grids[name].cut(puzzle.base[name].to(device)).flatten(1)
        first = matched(blocks.flatten(1), base, shapes, puzzle.layout.shapes().to(device))
        yield first
        there = base[first.placement.to(device)]
        share = float((blocks.flatten(1) * there).sum(dtype=torch.float64) / there.square().sum(dtype=torch.float64))
        around = find_surroundings(puzzle, name, device)
        yield from self.calling(Fingerprint).placements(blocks, shapes, around, max(share, 0.0) * base)


def matched(flat: torch.Tensor, base: torch.Tensor, shapes: torch.Tensor, places: torch.Tensor) -> Placed:
    """Blocks [held, n] at positions with weights [positions, n], by their cosines; int64 shapes of both.

    The beliefs take a cosine as a normal deviate with the spread that blocks without any relation have.
    """
    shape_of, shape_at = shape_numbers(shapes, places)
    count = max(1, min(len(base), CANDIDATES // len(flat)))
    directions = F.normalize(base, dim=1)
    positions, scores = [], []
    for part in torch.arange(len(flat), device=flat.device).split(CHUNK):
        cosines = F.normalize(flat[part], dim=1) @ directions.T
        cosines.masked_fill_(shape_of[part][:, None] != shape_at, -2.0)
        best, place = cosines.topk(count, dim=1)
        positions.append(place)
        scores.append(best)
    candidates = Candidates(torch.cat(positions), torch.cat(scores))
    placement = best_assignment(candidates, shape_of, shape_at)
    own = (F.normalize(flat, dim=1) * directions[placement.to(flat.device)]).sum(1).mean().clamp(min=0)
    likelihood = candidates.scores * own * flat.shape[1] / (1 - own.square()).clamp(min=1e-6)
    belief = beliefs(Candidates(candidates.positions, likelihood), len(base))
    best, at = belief.topk(min(KEPT_CANDIDATES, count), dim=1)
    return Placed(placement, candidates.positions.gather(1, at).cpu(), best.cpu())
