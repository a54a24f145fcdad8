"""Refinement: the fingerprint guided by the pirate's own training, then moves that lower the loss on its images.

Where the fingerprint's placement does not clearly beat a layer that the pirate trains on its images, it is taken once
more, with what that training added to the layer as the weight expected (prior_weight.py), at the rate whose placement
does best; the better of the two is the start. Where the victim's training left little in the layer, it leads the
beliefs out of chance.

In each sweep one backward pass ranks every exchange of two places and the best moves of three around, to first order;
the most promising are scored truly, one by one; those that lower the loss and concern different places are made
together, or the best half of them, or of that, whichever ends lowest. A part of the images takes no part in this: a
placement that does better on it, by more than chance, is kept, and the sweeps end when it gains no more. A prototype
without it had overfitted 400 images after one sweep. Held-out labels must also outweigh the fingerprint (images.py): 30
of them had a move away from the right places pass as a gain in one run of ten.

The loss is the cross-entropy against the labels or, where the threat grants the victim's logits, against those. Missing
blocks are corrected for as the judge does, by each row's share held; a block may move to an empty place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import torch

from scatterproof.attacks.base import Attack, Placed, Run
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import find_surroundings
from scatterproof.attacks.held_out import clearly_lower, image_losses, scorers, supported
from scatterproof.attacks.prior_weight import trained_change, trained_losses
from scatterproof.attacks.proposals import best_cycles, best_swaps
from scatterproof.attacks.search.space import PlacementSpace
from scatterproof.blocks import invert, placements_of
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.blocks import RefineSettings
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.moves import moved
from scatterproof.puzzle import Puzzle
from scatterproof.running.interrupt import stop_if_asked
from scatterproof.running.seeds import torch_generator

FINGERPRINTED = 300  # images: more of them cost it time and tell it little
MOVED = 0.5  # of a moved block's belief goes to its new place


class Refine(Attack[RefineSettings]):
    """Swaps and cycles of three from a fingerprint.

    held_out: the share of the images that the stop is decided on; rates: of the prior weight's training, each tried;
    steps_trained: of that training; proposals: moves of each kind that a sweep scores; sweeps: at most so many;
    patience: sweeps without a gain on the held-out images after which it ends.
    """

    name: ClassVar[str] = "refine"
    Settings = RefineSettings
    calls = (Fingerprint,)
    reads: ClassVar[tuple[Known, ...]] = ("labels", "logits")

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Placed]:
        """The fingerprint's placement, where needed the guided one, then the best so far after 1, 2, 4, ... sweeps."""
        start = self.calling(Fingerprint).placed(_fewer(puzzle), run.machine.device)
        yield start
        learn, held = scorers(puzzle, run, self.name, self.settings.held_out)
        if learn.engine is None:
            print("refine: the network can't be cut at the layer, the fingerprint's placement stays")
            return
        losses = image_losses(held, start.placement)
        changes, trained = self._trained(puzzle, run, learn, held)
        if not clearly_lower(losses, trained):
            yield (guided := self._guided(_fewer(puzzle), run, held, [learn.cut(change) for change in changes]))
            if supported(held, image_losses(held, guided.placement), losses, losses):
                start = guided
        yield from self._refined(learn, held, start, losses)

    def _trained(
        self, puzzle: Puzzle, run: Run, learn: PlacementEvaluator, held: PlacementEvaluator
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What training adds to the layer, its blocks in any order, at each rate; the least held-out losses."""
        generator = torch_generator("attack", self.name, *run.key, "guide")
        space = PlacementSpace(puzzle, torch.device("cpu"))
        anywhere = space.placements(space.random(1, generator)[0])
        changes = [
            trained_change(learn, anywhere, self.settings.steps_trained, rate, generator)
            for rate in self.settings.rates
        ]
        losses = [trained_losses(held, anywhere, change) for change in changes]
        return changes, min(losses, key=lambda one: float(one.mean()))

    def _guided(
        self, puzzle: Puzzle, run: Run, held: PlacementEvaluator, prior_weights: Sequence[torch.Tensor]
    ) -> Placed:
        """The fingerprint with the prior weight whose first placement does best."""
        (name,) = puzzle.layout.grids
        device = run.machine.device
        around = find_surroundings(puzzle, name, device)
        blocks, shapes = puzzle.blocks.to(device), puzzle.shapes.to(device)
        options = []
        for prior_weight in prior_weights:
            steps = self.calling(Fingerprint).placements(blocks, shapes, around, prior_weight)
            options.append((float(image_losses(held, next(steps).placement).mean()), steps))
        *_, last = min(options, key=lambda one: one[0])[1]
        return last

    def _refined(
        self, learn: PlacementEvaluator, held: PlacementEvaluator, start: Placed, first: torch.Tensor
    ) -> Iterator[Placed]:
        """Moves from a placement of every block. first: the fingerprint's held-out losses."""
        placement = best = start.placement
        least = image_losses(held, placement)
        evaluations, waited = len(self.settings.rates) + 3, 0
        for sweep in range(1, self.settings.sweeps + 1):
            placement, scored = self._sweep(learn, placement)
            losses = image_losses(held, placement)
            evaluations += scored + 1
            waited += 1
            if supported(held, losses, least, first):
                best, least, waited = placement, losses, 0
            over = waited >= self.settings.patience or scored == 0 or sweep == self.settings.sweeps
            if over or sweep & (sweep - 1) == 0:
                yield _placed(best, start, evaluations)
            if over:
                break
            stop_if_asked(f"in sweep {sweep}")

    def _sweep(self, learn: PlacementEvaluator, placement: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The placement after the moves of one sweep, and how many placements were scored; none where nothing gains."""
        at = learn.at(placement)
        block_at = invert(placement.to(learn.device), learn.layout.positions)
        swaps, cycles = (
            best_swaps(learn, placement, self.settings.proposals),
            best_cycles(learn, placement, self.settings.proposals),
        )
        losses = torch.cat([at.score(moves).loss for moves in (swaps, cycles) if len(moves)])
        now = learn.score_population(placement[None]).loss
        good = (losses < now).nonzero().flatten()
        moves = [*swaps.tolist(), *cycles.tolist()]
        chosen = _disjoint([moves[i] for i in good[losses[good].argsort(stable=True)].tolist()])
        if not chosen:
            return placement, 0
        fillings = []
        for count in dict.fromkeys(max(1, len(chosen) >> halving) for halving in range(len(chosen).bit_length())):
            filling = block_at
            for move in chosen[:count]:
                filling = moved(filling, torch.tensor([move], device=filling.device))[0]
            fillings.append(filling)
        tried = placements_of(torch.stack(fillings), len(placement)).cpu()
        losses = learn.score_population(tried).loss
        return tried[int(losses.argmin())], len(moves) + len(tried) + 1


def _fewer(puzzle: Puzzle) -> Puzzle:
    """The puzzle with as many images as the fingerprint makes good use of."""
    return replace(puzzle, images=puzzle.images[:FINGERPRINTED])


def _disjoint(moves: list[list[int]]) -> list[list[int]]:
    """Of these moves, in their order, those that concern no position of one before."""
    taken: set[int] = set()
    disjoint = []
    for move in moves:
        if taken.isdisjoint(move):
            taken.update(move)
            disjoint.append(move)
    return disjoint


def _placed(placement: torch.Tensor, start: Placed, evaluations: int) -> Placed:
    """A placement with the start's beliefs, half of a moved block's given to its new place."""
    share = torch.where(placement == start.placement, 0.0, MOVED)[:, None]
    already = start.candidates == placement[:, None]
    beliefs = start.beliefs * (1 - share) + share * already
    candidates, last = start.candidates.clone(), beliefs.argmin(1)
    outside = (~already.any(1) & (share[:, 0] > 0)).nonzero().flatten()
    candidates[outside, last[outside]] = placement[outside]
    beliefs[outside, last[outside]] = MOVED
    return Placed(placement, candidates, beliefs, evaluations)
