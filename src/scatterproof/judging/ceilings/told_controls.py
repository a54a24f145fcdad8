"""The controls of the told ceiling's forms: each on a layer where it must work, or it bounds nothing.

told        under a defence of which devices hold all, else without one, the network must answer as the victim does
told+train, told+core, told+free
            a hole is made in the victim's layer, of the kind that the threat leaves: blocks are taken away, or singular
            directions, the strongest first, until it agrees with the victim on three quarters of the test images at
            most. Taught by the victim's own answers each must win back more than two points of agreement over the
            blocks as they are. Of directions the null space must be their span as well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from scatterproof.attacks.base import Copy, Run
from scatterproof.attacks.training.base import named
from scatterproof.blocks import Placement
from scatterproof.config.settings.ceilings import AS_IS, CONTROL, CORE, Form
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import logits_on, make_puzzle, scattered_layers
from scatterproof.defences import make_defence
from scatterproof.defences.network import protect_network
from scatterproof.judging.ceilings.forms import ToldPirate
from scatterproof.judging.ceilings.told import ToldLayers, directions, tell
from scatterproof.judging.controls import MARGIN, Controls, control_row
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Answer, Puzzle

AGREES, DAMAGED, SPANNED = 0.99, 0.75, 0.99
IMAGES_OF_COPIES = 50  # on which copies among a layer's inputs are told


@dataclass(frozen=True)
class Hole:
    """A puzzle whose layer has a hole, and what the told pirate knows of it; lost: by layer the outputs' directions
    [outputs, k] taken away, none where blocks were."""

    puzzle: Puzzle
    answer: Answer
    told: ToldLayers
    lost: dict[str, torch.Tensor]


@dataclass(frozen=True)
class CeilingControls:
    """The controls of one victim's told ceilings, made as those of its attacks are."""

    controls: Controls
    _trained: dict[tuple[Any, ...], list[dict[str, Any]]] = field(default_factory=dict)

    def rows(self, threat: ThreatModel, forms: Sequence[Form]) -> list[dict[str, Any]]:
        """One for each form; threats whose forms are trained on the same images, on like holes, share theirs."""
        plain, lacks_blocks = threat.undefended, threat.share < 1 or make_defence(threat.defence).keeps == "blocks"
        plain = plain.model_copy(update={"share": 1.0})
        trained = [form for form in forms if form != AS_IS]
        key = plain.name, lacks_blocks, *trained
        if trained and key not in self._trained:
            self._trained[key] = list(self._won_back(plain, lacks_blocks, trained))
        rows = [self._as_is(threat)] if AS_IS in forms else []
        rows += self._trained[key] if trained else []
        names = scattered_layers(self.controls.victim, self.controls.victim_config, threat.scatter)
        about = {"threat": threat.name, "layer": "+".join(names), "keep": threat.share}
        return [row | about for row in rows]

    def _as_is(self, threat: ThreatModel) -> dict[str, Any]:
        """The whole layer, under the threat's defence where devices hold all of it."""
        c = self.controls
        whole = threat.model_copy(update={"share": 1.0, "activations": "none", "requests": 0})
        whole = whole if make_defence(threat.defence).keeps == "nothing" else whole.undefended
        puzzle, answer = c.cut(c.victim, whole.undefended)
        if whole.defended:
            images = puzzle.inputs(c.dataset.test.images[:IMAGES_OF_COPIES])
            made = protect_network(c.victim, puzzle.layout, whole.defence, images, ("control", *c.key))
            puzzle, answer = make_puzzle(
                c.victim, c.victim_config, c.dataset, whole, c.block_size, ("control", *c.key), c.victim, made
            )
        judge = Judge(puzzle, answer, c.victim, c.dataset, c.machine.device)
        agreement = _agreement(judge, tell(puzzle, answer))
        row = control_row(CONTROL, "fidelity", 1, agreement, np.nan, np.nan, AGREES, agreement > AGREES)
        return row | {"attack": AS_IS}

    def _won_back(self, threat: ThreatModel, blocks: bool, forms: Sequence[Form]) -> Iterator[dict[str, Any]]:
        hole, judge = self._damaged(threat, blocks)
        run = Run(self.controls.machine, ("control", *self.controls.key, threat.name), self.controls.work)
        pirate = ToldPirate(hole.puzzle, hole.told, self.controls.config, [], run)
        before = _agreement(judge, hole.told)
        for form in forms:
            gained = float(judge.score(pirate.result(form).copy).agreement) - before
            passed = gained > MARGIN and (form != CORE or spans(hole))
            print(f"{form}: control, {before:.3f} and {gained:.3f} gained")
            yield control_row(CONTROL, "gained", 1, gained, np.nan, np.nan, MARGIN, passed) | {"attack": form}

    def _damaged(self, threat: ThreatModel, blocks: bool) -> tuple[Hole, Judge]:
        """The first hole that harms enough, each twice as large as the one before; else the largest."""
        c = self.controls
        puzzle, answer = c.cut(c.victim, threat)
        answers = logits_on(c.victim, c.victim_config, c.dataset, puzzle.images)
        taught = replace(
            puzzle,
            labels=None if puzzle.labels is None else answers.argmax(1),
            logits=None if puzzle.logits is None else answers,
        )
        shorter = min(min(grid.outputs, grid.inputs) for grid in puzzle.layout.grids.values())
        most = len(puzzle.blocks) - 1 if blocks else shorter // 2
        judge, size = Judge(puzzle, answer, c.victim, c.dataset, c.machine.device), 1
        while True:
            hole = without_blocks(taught, answer, size) if blocks else without_directions(taught, answer, size)
            judge = judge.of(hole.puzzle, hole.answer)
            if size >= most or _agreement(judge, hole.told) <= DAMAGED:
                return hole, judge
            size = min(2 * size, most)


def without_blocks(puzzle: Puzzle, answer: Answer, count: int) -> Hole:
    """The same with so many blocks less, the last ones."""
    left = slice(len(puzzle.blocks) - count)
    fewer = replace(puzzle, blocks=puzzle.blocks[left], shapes=puzzle.shapes[left])
    rest = replace(answer, placement=Placement(answer.placement.positions[left], answer.placement.slots))
    return Hole(fewer, rest, tell(fewer, rest), {})


def without_directions(puzzle: Puzzle, answer: Answer, count: int) -> Hole:
    """The same, of each layer that is held whole the strongest singular directions set to zero."""
    weights, lost = {}, {}
    for name, weight in tell(puzzle, answer).weights.items():
        left = directions(weight).left[:, :count]
        weights[name], lost[name] = weight - left @ (left.T @ weight), left
    hollow = replace(puzzle, blocks=puzzle.layout.cut(weights)[answer.placement.positions])
    return Hole(hollow, answer, replace(tell(hollow, answer), complete=False, rank=count), lost)


def spans(hole: Hole) -> bool:
    """Whether the null spaces of what is known are the directions lost: all cosines of principal angles near 1."""
    for name, lost in hole.lost.items():
        shown = directions(hole.told.weights[name])
        cosines = torch.linalg.svdvals(shown.left[:, shown.rank :].T @ lost)
        if len(cosines) < lost.shape[1] or float(cosines.min()) < SPANNED:
            return False
    return True


def _agreement(judge: Judge, told: ToldLayers) -> float:
    """Of the blocks as they are with the victim, on test images."""
    return float(judge.score(Copy(named(told.as_is))).agreement)
