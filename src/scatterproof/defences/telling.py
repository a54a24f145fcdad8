"""Which blocks of a layer tell most of where they lie, by the fingerprint's own evidence, as the owner can compute it.

The owner knows the layer. The prediction is made of the true layer, and each block is scored at every place by it, with
the noise that a pirate without images makes up. What a block tells is how much likelier it lies at its own place than
at all others together. It is the evidence of one attack: better evidence may read the blocks that are left.
"""

from dataclasses import replace

import torch
from torch import nn

from scatterproof.attacks.fingerprint.assignment import Candidates
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import find_surroundings
from scatterproof.attacks.fingerprint.mean_field import Round
from scatterproof.blocks import BlockGrid, Layout
from scatterproof.config.settings.defences import DefenceSettings, HomeSettings
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.defences.base import Floats
from scatterproof.victims.data import Dataset
from scatterproof.victims.models import dense_layers

CPU = torch.device("cpu")


def telling_for(
    settings: DefenceSettings, model: nn.Module, config: VictimConfig, dataset: Dataset, layout: Layout
) -> dict[str, Floats]:
    """For a defence that keeps the most telling blocks, what each position's block of each layer tells; else nothing.

    Of several layers that are scattered each is scored with the others known: no block tells less then.
    """
    if not isinstance(settings, HomeSettings) or settings.choice != "telling":
        return {}
    return {name: _telling(model.cpu(), config, dataset, name, grid) for name, grid in layout.grids.items()}


def _telling(model: nn.Module, config: VictimConfig, dataset: Dataset, name: str, grid: BlockGrid) -> Floats:
    """float32 [positions]: the log-likelihood of each block at its own place less that of all other places together."""
    alone, smallest = config.model_copy(update={"layer": name}), min(grid.outputs, grid.inputs)
    puzzle, _ = make_puzzle(model, alone, dataset, ThreatModel(), min(grid.height, smallest), ("telling",))
    layout = Layout({name: grid})  # of a layer thinner than a block the edge blocks are all
    blocks = layout.cut({name: dense_layers(model)[name].weight.detach()})
    around = find_surroundings(replace(puzzle, layout=layout, blocks=blocks, shapes=layout.shapes()), name, CPU)
    truth, sure = torch.arange(layout.positions)[:, None], torch.ones(layout.positions, 1)
    field = Fingerprint().field(blocks, layout.shapes(), around)
    (after,) = field.rounds(1, start=Round(Candidates(truth, sure), sure))
    positions, scores = after.candidates.positions, after.candidates.scores.double()
    own = positions == truth
    here = scores.masked_fill(~own, -torch.inf).amax(1)
    elsewhere = scores.masked_fill(own, -torch.inf).logsumexp(1)
    evidence: Floats = (here - elsewhere).nan_to_num(posinf=torch.inf).float().numpy()
    return evidence
