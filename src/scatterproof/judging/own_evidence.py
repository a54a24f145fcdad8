"""The own-evidence ceiling: what the fingerprint's evidence places when its prediction is made from the true layer.

A diagnosis for whoever builds attacks: where the fingerprint places less, rounds that start from better guesses would
place more of the blocks by the same evidence. It is no bound: better evidence passes it. Places are counted and never
accuracy, since noise that is matched to the true layer builds it too; beside it stands the same on layers drawn anew.
"""

import torch
from torch import nn

from scatterproof.attacks.fingerprint.assignment import Candidates
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import find_surroundings
from scatterproof.attacks.fingerprint.mean_field import Round
from scatterproof.cutting import make_puzzle
from scatterproof.judging.control_victims import Key, with_random_layers
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset


def evidence(judge: Judge, fingerprint: Fingerprint, key: Key) -> dict[str, float]:
    """Both as columns of `tables/fineness.csv`. key: of the layer that is drawn anew."""
    puzzle, device = judge.puzzle, judge.device
    return {
        "own_evidence": own_evidence(puzzle, judge.answer, fingerprint, device),
        "own_evidence_of_chance": own_evidence_of_chance(judge.victim, puzzle, judge.dataset, fingerprint, device, key),
    }


def own_evidence(puzzle: Puzzle, answer: Answer, fingerprint: Fingerprint, device: torch.device) -> float:
    """The share of whole blocks of one scattered layer that lie right after one round from the truth."""
    (name,) = puzzle.layout.grids
    around = find_surroundings(puzzle, name, device)
    field = fingerprint.field(puzzle.blocks.to(device), puzzle.shapes.to(device), around)
    truth = answer.placement.positions
    sure = torch.ones(len(truth), 1, device=device)
    start = Round(Candidates(truth[:, None].to(device), sure), sure)
    (after,) = field.rounds(1, start=start)
    whole = puzzle.layout.ambiguous()[truth]
    return float((field.placed(after).placement == truth)[whole].double().mean())


def own_evidence_of_chance(
    model: nn.Module, puzzle: Puzzle, dataset: Dataset, fingerprint: Fingerprint, device: torch.device, key: Key
) -> float:
    """The same where the layer is drawn anew, with its mean and spread: what the truth itself gives away.

    model: the victim, whose layer the puzzle scatters.
    """
    drawn = with_random_layers(model, puzzle.layout.grids, ("own evidence", *key))
    size = puzzle.layout.block_shape[0]
    return own_evidence(*make_puzzle(drawn, puzzle.config, dataset, puzzle.threat, size, key), fingerprint, device)
