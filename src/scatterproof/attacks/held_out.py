"""The pirate's images, split into those that an attack learns from and those that tell it when to stop."""

from dataclasses import replace
from math import log

import torch

from scatterproof.attacks.base import Run
from scatterproof.evaluation.evaluator import PlacementEvaluator, correction_of
from scatterproof.puzzle import Puzzle
from scatterproof.running.seeds import torch_generator

ODDS = 100  # that held-out labels must give against the start: labels that it explains do so in 1 % of looks at most


def scorers(puzzle: Puzzle, run: Run, attack: str, held_out: float) -> tuple[PlacementEvaluator, PlacementEvaluator]:
    """Scorers of placements on a random 1 - held_out and held_out of the pirate's images.

    Against labels or the victim's logits, whichever the threat grants; missing blocks corrected as the judge does.
    """
    count = len(puzzle.images)
    order = torch.randperm(count, generator=torch_generator("attack", attack, *run.key, "images"))
    return (
        _scorer(puzzle, run, order[round(held_out * count) :]),
        _scorer(puzzle, run, order[: round(held_out * count)]),
    )


def _scorer(puzzle: Puzzle, run: Run, chosen: torch.Tensor) -> PlacementEvaluator:
    return PlacementEvaluator(
        replace(puzzle, images=puzzle.images[:0]),
        puzzle.images[chosen],
        None if puzzle.labels is None else puzzle.labels[chosen],
        run.machine.device,
        logits=None if puzzle.logits is None else puzzle.logits[chosen],
        precision=run.machine.precision,
        memory_mb=run.machine.memory_mb // 2,
        correction=correction_of(puzzle),
    )


def image_losses(scorer: PlacementEvaluator, placement: torch.Tensor) -> torch.Tensor:
    """The loss on each of the scorer's images, float [images]."""
    return scorer.targets.loss(scorer.logits(placement, scorer.correction))


def clearly_lower(losses: torch.Tensor, than: torch.Tensor) -> bool:
    """Whether these losses are lower than others on the same images by more than the mean difference's error."""
    gain = (than - losses).double()
    return bool(gain.mean() > gain.std() / len(gain) ** 0.5)


def supported(scorer: PlacementEvaluator, losses: torch.Tensor, least: torch.Tensor, first: torch.Tensor) -> bool:
    """Whether the scorer's images say that a placement with these losses is to replace the best one so far.

    least, first: the losses of that best one, and of the start that the weights' own evidence led to. The losses must
    be clearly lower than the best one's. Labels must besides be ODDS times as likely as under the start: where the
    start is right, those drawn from its probabilities are that in one case of ODDS at most, whatever their number. A
    standard error doesn't say so: few labels miss the images on which a surer network pays. Logits leave nothing to
    luck in that way.
    """
    likelier = scorer.targets.labels is None or float((first - losses).double().sum()) > log(ODDS)
    return likelier and clearly_lower(losses, least)
