"""The controls of a study's attacks: a leak planted in the victim's own layer, and weights that hold nothing.

They run each attack as the study runs it, on puzzles made from the victim by other weights, and judge it by their own
answers. An attack that does not find what is there says nothing by finding nothing, and one that finds what is not
there says nothing at all: an attack whose control failed is never chosen. Where none is left a verdict is invalid.

planted   the layer holds what training leaves there, several times as strong: products of its inputs and of what flows
          back through the next layer; labels are drawn from the planted network's probabilities, so that no other
          network does better by them but by luck (its likeliest answers call for a surer one, and led refine away
          from the right places). Found: more than 99 % of the whole blocks in their places (places whose inputs are
          equal on all images are one place); for a network that the attack has made, agreement with the planted one
          on more test images than 90 % of those on which the same blocks agree with it in their places: part of the
          blocks makes another network. An attack on seeds is given a layer that one of the seeds it tries has drawn.
          A search reads no evidence. Its labels are the victim's own answers, and it is given a start: blocks displaced
          until half of the agreement with the victim on test images is left. It must bring back 95 % of it.
random    the layer drawn anew from a secret seed, several times; logits stay the victim's own, since those of the
          network with this layer would tell where its blocks lie. Nothing found: the upper 95 % bound (Wilson 1927,
          https://doi.org/10.1080/01621459.1927.10502953) of the right positions, pooled, is below three times chance;
          for a network that the attack has made, what the layer's own blocks gain over blocks of another draw has an
          upper 95 % bound (Student's t) below two points of accuracy.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from scatterproof.analysis.gains import interval
from scatterproof.attacks import ATTACKS
from scatterproof.attacks.base import Copy, Machine, Placed, Run
from scatterproof.attacks.fingerprint.context import find_surroundings, in_order
from scatterproof.attacks.runner import make_attack
from scatterproof.attacks.search.base import SearchAttack
from scatterproof.blocks import Placement
from scatterproof.config.attacks import NEEDS, AttacksConfig, attacks_on, taught_by
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import logits_on, make_puzzle
from scatterproof.defences.network import seen_under
from scatterproof.evaluation.evaluator import PlacementEvaluator, correction_of
from scatterproof.judging.control_victims import Key, displaced, halving_count, with_random_layers, with_seeded_layer
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.interrupt import stop_if_asked
from scatterproof.running.seeds import torch_generator
from scatterproof.victims.data import Dataset
from scatterproof.victims.models import dense_layers

LEAK, LEAK_OF_SEVERAL = 10.0, 3.0  # times the noise: a control, no experiment
FOUND, AGREES, RECOVERED, CHANCES = 0.99, 0.9, 0.95, 3
MARGIN = 0.02  # of accuracy, what random layers may gain


def planted(model: nn.Module, puzzle: Puzzle, key: Key) -> nn.Module:
    """The network with a leak in each layer that this puzzle scatters: noise as strong as the layer, and the leak.

    Of several layers each gets a leak of what those before it now give it. Besides, each is ten times as large as the
    one before it, and its units learn more or less, as their biases say: what tells layers and rows apart where what
    follows is scattered as well. The leak is weaker there: a strong one makes blocks of a layer too unlike each other.
    """
    model = copy.deepcopy(model)
    layers, names = dense_layers(model), in_order(puzzle, puzzle.blocks.device)
    generator = torch_generator("planted leak", *key)
    several = len(names) > 1
    for number, name in enumerate(names):
        others = {other: layers[other].weight.data for other in names if other != name}
        around = find_surroundings(puzzle, name, puzzle.blocks.device, others)
        inputs = around.inputs - around.inputs.mean(0)
        if around.normed:  # a few of a transformer's features are so large that they alone would show a leak
            inputs = inputs / inputs.std(0).clamp_min(1e-6 * float(inputs.std()))
        outputs = around.grid.outputs
        after = torch.eye(outputs) if several or around.following is None else around.following
        back = torch.randn(len(inputs), len(after), generator=generator) @ after
        if several and around.bias is not None:
            back = back * (around.bias / (2 * around.bias.std())).exp()
        learned = back.T @ inputs
        weight = layers[name].weight.data
        noise = torch.randn(weight.shape, generator=generator)
        leaky = noise + (LEAK_OF_SEVERAL if several else LEAK) * learned / learned.std()
        weight.copy_(leaky * (10**number * layers[names[0]].weight.std() / leaky.std()))
    return model


def _near(model: nn.Module, puzzle: Puzzle, key: Key) -> nn.Module:
    """A base model: the same network, its scattered layers under noise of their own strength."""
    near = copy.deepcopy(model)
    generator = torch_generator("planted base", *key)
    for name in puzzle.layout.grids:
        weight = dense_layers(near)[name].weight.data
        weight += weight.std() * torch.randn(weight.shape, generator=generator)
    return near


def right_places(reached: Placed, puzzle: Puzzle, answer: Answer, alike: bool = True) -> tuple[int, int]:
    """Whole blocks at their places, and all whole ones.

    alike: columns that read equal inputs on all images, which no attack can tell apart, are one place. Chance hits one
    of several more often, so where chance is the measure they are not.
    """
    truth = answer.placement.positions
    place = torch.arange(puzzle.layout.positions)
    if alike:
        place = torch.cat([_places(puzzle, name) + first for name, first in puzzle.layout.offsets.items()])
    counted = puzzle.layout.ambiguous()[truth]
    hit = place[reached.placement[counted]] == place[truth[counted]]
    return int(hit.sum()), int(counted.sum())


def _places(puzzle: Puzzle, name: str) -> torch.Tensor:
    """A number for each position of a layer, equal where the row is and the columns read equal inputs."""
    grid = puzzle.layout.grids[name]
    inputs = find_surroundings(puzzle, name, puzzle.blocks.device).inputs
    width = grid.columns * grid.width
    padded = torch.nn.functional.pad(inputs, (0, width - inputs.shape[1]), value=torch.nan)
    slices = padded.view(len(inputs), grid.columns, grid.width).transpose(0, 1).flatten(1).nan_to_num(nan=-1.0)
    same = torch.unique(slices, dim=0, return_inverse=True)[1]
    position = torch.arange(grid.count)
    places: torch.Tensor = position // grid.columns * grid.columns + same[position % grid.columns]
    return places


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    from scipy import stats  # here, as it delays each job's start

    ends = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    return float(ends.low), float(ends.high)


@dataclass(frozen=True)
class Controls:
    """The controls of the attacks on one victim. key: of their draws; work: a folder for what is under way."""

    config: AttacksConfig
    victim: nn.Module
    victim_config: VictimConfig
    dataset: Dataset
    block_size: int
    key: Key
    machine: Machine
    work: Path | None = None

    def rows(self, name: str, threat: ThreatModel) -> list[dict[str, Any]]:
        """Both controls of an attack under a threat that grants what it needs."""
        real, _ = self.cut(self.victim, threat)
        searches = issubclass(ATTACKS[name], SearchAttack)
        rows = [self._halved(name, threat) if searches else self._planted(name, real), self._random(name, real)]
        about = {"attack": name, "threat": threat.name, "layer": "+".join(real.layout.grids), "keep": threat.share}
        return [about | row for row in rows]

    def _planted(self, name: str, real: Puzzle) -> dict[str, Any]:
        seeded = make_attack(self.config, name) if ATTACKS[name].plants == "seed" else None
        model = (
            with_seeded_layer(self.victim, real, seeded, self.key) if seeded else planted(self.victim, real, self.key)
        )
        puzzle, answer = self.cut(model, real.threat, base=_near(model, real, self.key))
        if puzzle.labels is not None:
            chances = logits_on(model, self.victim_config, self.dataset, puzzle.images).softmax(1)
            drawn = torch.multinomial(chances, 1, generator=torch_generator("planted labels", *self.key))
            puzzle = replace(puzzle, labels=drawn.flatten())
        reached = self._reached(name, puzzle, "planted")
        if isinstance(reached, Placed):
            right, total = right_places(reached, puzzle, answer)
            low, high = wilson(right, total)
            return control_row(
                "planted", "position_accuracy", 1, right / total, low, high, FOUND, right / total > FOUND
            )
        judge = Judge(puzzle, answer, model, self.dataset, self.machine.device)
        agreement, bound = judge.score(reached).agreement, AGREES * judge.known_places.agreement
        return control_row("planted", "fidelity", 1, agreement, np.nan, np.nan, bound, agreement > bound)

    def _halved(self, name: str, threat: ThreatModel) -> dict[str, Any]:
        puzzle, answer = self.cut(self.victim, threat)
        test, device = self.dataset.test, self.machine.device
        own, granted = (
            logits_on(self.victim, self.victim_config, self.dataset, images).argmax(1)
            for images in (test.images, puzzle.images)
        )
        correction = correction_of(puzzle)
        scorer = PlacementEvaluator(puzzle, test.images, own, device, correction=correction)

        def agreement(placement: Placement) -> float:
            return float(scorer.score(placement.positions[None], correction).accuracy)

        start = displaced(answer, halving_count(scorer, answer, self.key, correction), self.key)
        reached = self._reached(name, replace(puzzle, labels=granted), "planted", start=start)
        assert isinstance(reached, Placed)
        value = agreement(Placement(reached.placement, start.slots))
        bound = RECOVERED * agreement(answer.placement)
        passed = agreement(start) < bound <= value  # where nothing was lost, nothing was brought back
        return control_row("planted", "recovered", 1, value, np.nan, np.nan, bound, passed)

    def _random(self, name: str, real: Puzzle) -> dict[str, Any]:
        right = total = 0
        gains: list[float] = []
        judge: Judge | None = None
        for shuffle in range(self.config.control_shuffles):
            model = with_random_layers(self.victim, real.layout.grids, (*self.key, shuffle))
            puzzle, answer = self.cut(model, real.threat, shuffle)
            if puzzle.logits is not None:
                puzzle = replace(puzzle, logits=real.logits)
            reached = self._reached(name, puzzle, "random", shuffle)
            if isinstance(reached, Placed):
                one, whole = right_places(reached, puzzle, answer, alike=False)
                right, total = right + one, total + whole
            else:
                fresh = Judge(puzzle, answer, model, self.dataset, self.machine.device)
                judge = fresh if judge is None else judge.of(puzzle, answer, model)
                gains.append(self._gain(name, puzzle, reached, judge, shuffle))
            print(f"{name}: random weights, shuffle {shuffle + 1} of {self.config.control_shuffles}")
            stop_if_asked(f"after shuffle {shuffle + 1}")
        shuffles = self.config.control_shuffles
        if gains:
            mean, low, high = interval(np.array(gains))
            return control_row("random", "gain", shuffles, mean, low, high, MARGIN, high < MARGIN)
        layers = len(real.layout.grids)  # they may differ in spread, which is not what is tested
        return random_row(right, total, shuffles, CHANCES * layers * chance(real))

    def _gain(self, name: str, puzzle: Puzzle, reached: Copy, judge: Judge, shuffle: int) -> float:
        """What the layer's own blocks add to the accuracy reached with blocks of another draw."""
        other = with_random_layers(self.victim, puzzle.layout.grids, (*self.key, "other", shuffle))
        foreign = replace(puzzle, blocks=self.cut(other, puzzle.threat, shuffle)[0].blocks)
        without = self._reached(name, foreign, "foreign", shuffle)
        return judge.score(reached).accuracy - judge.score(without).accuracy

    def cut(
        self, model: nn.Module, threat: ThreatModel, shuffle: int = 0, base: nn.Module | None = None
    ) -> tuple[Puzzle, Answer]:
        """A network's puzzle. Where a base model is granted it is the victim's, whose layer says nothing of one drawn
        anew."""
        key = ("control", *self.key, shuffle)
        base = self.victim if base is None else base
        seen = seen_under(threat, model, self.victim_config, self.dataset, None)
        return make_puzzle(model, self.victim_config, self.dataset, threat, self.block_size, key, base, seen=seen)

    def _reached(self, name: str, puzzle: Puzzle, *more: int | str, start: Placement | None = None) -> Placed | Copy:
        run = Run(self.machine, ("control", *self.key, name, *more), self.work, start)
        return make_attack(self.config, name).run(puzzle, run)[-1].reached


def chance(puzzle: Puzzle) -> float:
    """The share of whole blocks that lie right by luck: one in as many as there are whole places."""
    return 1 / int(puzzle.layout.ambiguous().sum())


def planted_row(right: int, total: int) -> dict[str, Any]:
    """Of the planted control: so many whole blocks of all put where they belong."""
    share = right / total
    return control_row("planted", "position_accuracy", 1, share, *wilson(right, total), FOUND, share > FOUND)


def random_row(right: int, total: int, shuffles: int, bound: float) -> dict[str, Any]:
    """Of the random control: so many, pooled over the shuffles."""
    low, high = wilson(right, total)
    return control_row("random", "position_accuracy", shuffles, right / total, low, high, bound, high < bound)


def control_row(
    control: str, measure: str, shuffles: int, value: float, low: float, high: float, bound: float, passed: bool
) -> dict[str, Any]:
    """A control's columns of `tables/controls.csv`."""
    return {
        "control": control,
        "measure": measure,
        "shuffles": shuffles,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "bound": bound,
        "passed": passed,
    }


def controlled(config: AttacksConfig, scatter: Literal["layer", "dense"]) -> list[tuple[str, ThreatModel]]:
    """The attacks on the blocks, each with the threat that its controls run under: of its own, that of most blocks and
    images, without the defence: the weakest key there is; one for labels and one for logits where it learns from them.
    """
    by_key: dict[tuple[str, str], ThreatModel] = {}
    for threat, names in attacks_on(config, scatter).values():
        for name in names:
            key = name, taught_by(name, threat.knows)
            known = by_key.get(key)
            more = known is None or (threat.share, threat.images) > (known.share, known.images)
            if NEEDS[name].role == "blocks" and more:
                by_key[key] = threat.undefended
    return [(name, threat) for (name, _), threat in by_key.items()]
