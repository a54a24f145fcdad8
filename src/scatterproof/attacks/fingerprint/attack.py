"""Reassembly from the blocks' own weights: no labels, no placement scored, a few unlabelled images or none.

Two kinds of evidence. First each block by itself: its rows lean towards its inputs' second moment, its columns towards
the next layer's Gram matrix (evidence.py). Then the blocks together: what training added to the layer has few
directions, those in which its inputs vary and those that the next layer reads. So the layer as expected under the
beliefs held so far, filtered to those directions, predicts each block from all the others (prediction.py), and a
block's product with the prediction for a place says how likely it lies there. Beliefs and prediction are computed in
turn (mean field) until they converge. The filters' widths and the noise are chosen, in every round, by how much of the
expected layer's energy the prediction explains. What is expected at a place has no part in the prediction for it, so
that blocks don't hold themselves where they are. The layer's own biases tell rows apart as well, and are all there is
where no dense layer follows.

Where the rounds don't converge they were too sure of something wrong too soon. Then, if all blocks are held and they
are some thousands at most, others are tried: on from there at a temperature, log-likelihoods halved, and anew from
halves of the inputs. The try whose placement explains most of the layer counts: on trained layers that was the one with
most blocks in place. Where the leak is weak a wrong placement, fitted to the same noise, can explain more than the true
one; there a temperature loses what was found, and the first rounds stand.

Several layers scattered at once are first told apart (layer_sorting.py), then put together one after the other, each
seen through those before it. The feed-forward layers of a transformer are put together as one heap first (heap.py).

The first kind follows 'I Dropped a Neural Net' (https://arxiv.org/abs/2602.19845) and balancedness (Du et al. 2018,
https://arxiv.org/abs/1806.00900), turned into likelihoods; beliefs by Sinkhorn's scaling follow Mena et al. 2018
(https://arxiv.org/abs/1802.08665).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch

from scatterproof.attacks.base import KEPT_CANDIDATES, Attack, Placed, Run
from scatterproof.attacks.fingerprint.assignment import DENSE
from scatterproof.attacks.fingerprint.context import Surroundings, find_surroundings, in_order
from scatterproof.attacks.fingerprint.heap import Heap, heap_of
from scatterproof.attacks.fingerprint.layer_sorting import layers_of
from scatterproof.attacks.fingerprint.mean_field import MeanField, Round
from scatterproof.attacks.fingerprint.neuron_sizes import (
    is_rescaled,
    may_be_rescaled,
    with_even_neurons,
    with_even_readers,
    with_even_rows,
)
from scatterproof.attacks.fingerprint.prediction import Filters
from scatterproof.blocks import Layout, invert, lines_of
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.blocks import FingerprintSettings
from scatterproof.puzzle import Puzzle
from scatterproof.running.interrupt import stop_if_asked
from scatterproof.running.seeds import torch_generator

# The five below were chosen by the truth of a few victims and layers of noise: docs/results/cifar100-quarter-threats
TEMPERATURE = 2.0  # log-likelihoods are divided by it where the rounds don't converge
ENOUGH = 0.05  # of a layer's energy: where so much is explained, more tries moved few blocks and no accuracy
LITTLE = 0.75  # of the information that a block's place takes: layers of noise explain about half of it
CHANCE = 1.5  # times what blocks of random signs explain: less is taken for nothing found; it only saves time
DRAWS = 2  # of such signs


class Fingerprint(Attack[FingerprintSettings]):
    """Mean-field reassembly of one layer, or of several scattered together."""

    name: ClassVar[str] = "fingerprint"
    Settings = FingerprintSettings
    reads: ClassVar[tuple[Known, ...]] = ("none",)

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Placed]:
        """The placement by each block alone, then after each round, then what other tries add; the last counts."""
        device = run.machine.device
        if len(puzzle.layout.grids) > 1:
            yield from self._several(puzzle, device)
            return
        (name,) = puzzle.layout.grids
        around = find_surroundings(puzzle, name, device)
        yield from self.placements(puzzle.blocks.to(device), puzzle.shapes.to(device), around)

    def placed(self, puzzle: Puzzle, device: torch.device) -> Placed:
        """The last of these alone: to make each round a placement takes longer than the rounds."""
        (name,) = puzzle.layout.grids
        around = find_surroundings(puzzle, name, device)
        *_, last = self.placements(puzzle.blocks.to(device), puzzle.shapes.to(device), around, dense=0)
        return last

    def _several(self, puzzle: Puzzle, device: torch.device) -> Iterator[Placed]:
        """The same for several layers at once: which layer each block is of, then one after the other from the first.

        A layer's inputs are computed with the layers before it as they were put together; in the second sweep the ones
        after it are known as well.
        """
        blocks, shapes, layout = puzzle.blocks.to(device), puzzle.shapes.to(device), puzzle.layout
        order, heap = list(layout.grids), heap_of(puzzle, blocks)
        placement = torch.zeros(len(blocks), dtype=torch.int64)
        candidates = torch.zeros(len(blocks), KEPT_CANDIDATES, dtype=torch.int64)
        belief = torch.zeros(len(blocks), KEPT_CANDIDATES)
        weights: dict[str, torch.Tensor] = {}
        if heap is None:
            layer_of = layers_of(blocks, shapes, layout)
        else:
            for placement in self._heap_placements(puzzle, heap, device):
                weights = layout.assemble(lines_of(blocks), invert(placement, layout.positions).to(device))
                yield Placed(placement.clone(), placement[:, None].clone(), torch.ones(len(blocks), 1))
            layer_of = _layer_at(placement, layout).to(device)
        once = Fingerprint(
            self.settings.model_copy(update={"tempered_rounds": 0})
        )  # the sweeps are what starts anew here
        for _ in range(self.settings.sweeps):
            before = placement.clone()
            for name in in_order(puzzle, device):
                mine, first = layer_of == order.index(name), layout.offsets[name]
                if not mine.any():
                    continue
                known = {other: weight for other, weight in weights.items() if other != name}
                around = find_surroundings(puzzle, name, device, known)
                *_, placed = once.placements(blocks[mine], shapes[mine], around, dense=0)
                weights[name] = _put_together(blocks[mine], placed.placement.to(device), around)
                rows, kept = mine.cpu(), placed.beliefs.shape[1]
                placement[rows] = placed.placement + first
                candidates[rows, :kept], belief[rows, :kept] = placed.candidates + first, placed.beliefs
            yield Placed(placement.clone(), candidates.clone(), belief.clone())
            if torch.equal(placement, before):
                break

    def _heap_placements(self, puzzle: Puzzle, heap: Heap, device: torch.device) -> Iterator[torch.Tensor]:
        """Of a heap, each time seen through the layers as they were put together before, until nothing moves."""
        weights: dict[str, torch.Tensor] = {}
        before = None
        for _ in range(self.settings.sweeps):
            around = {
                name: find_surroundings(
                    puzzle, name, device, {other: weight for other, weight in weights.items() if other != name}
                )
                for name in puzzle.layout.grids
            }
            placement = heap.placement(around)
            if before is not None and placement.equal(before):
                break
            yield placement
            before = placement
            weights = puzzle.layout.assemble(
                lines_of(heap.blocks), invert(placement, puzzle.layout.positions).to(device)
            )

    def placements(
        self,
        blocks: torch.Tensor,
        shapes: torch.Tensor,
        around: Surroundings,
        prior_weight: torch.Tensor | None = None,
        dense: int = DENSE,
        extra_evidence: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> Iterator[Placed]:
        """The same for blocks [held, height, width] of these shapes int64 [held, 2].

        prior_weight [positions, height * width]: the weight expected there by what else is known; counts throughout.
        extra_evidence: what else is known of each block's column [held, columns] and row [held, rows], log-likelihoods.
        With more blocks times positions than `dense` only what could count is made a placement: that takes long.
        """
        if prior_weight is None and is_rescaled(around):
            yield from self._of_any_size(blocks, shapes, around, dense, extra_evidence)
            return
        field = self.field(blocks, shapes, around, prior_weight, extra_evidence)
        often = len(blocks) * around.grid.count <= dense
        for iterate in field.rounds(self.settings.rounds):
            if often:
                yield field.placed(iterate)
        sizable = often and prior_weight is None and may_be_rescaled(around)
        if sizable and (sized := self._at_other_sizes(field, iterate, extra_evidence)):
            field, iterate = sized
            yield field.placed(iterate)
        again = len(blocks) == around.grid.count and len(blocks) ** 2 <= self.settings.candidates
        if again and self.settings.tempered_rounds and prior_weight is None and not iterate.converged:
            yield from self._again(field, iterate, extra_evidence)
        elif not often:
            yield field.placed(iterate)

    def _of_any_size(
        self,
        blocks: torch.Tensor,
        shapes: torch.Tensor,
        around: Surroundings,
        dense: int,
        extra_evidence: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> Iterator[Placed]:
        """The same where neurons have secret sizes: first by what no size changes, then at those of the rows found."""
        even = with_even_readers(around)
        for placed in self.placements(with_even_neurons(blocks), shapes, even, None, dense, extra_evidence):
            yield placed
        sized = with_even_rows(blocks, placed.placement, even)
        yield from self.placements(sized, shapes, even, None, dense, extra_evidence)

    def _at_other_sizes(
        self, field: MeanField, iterate: Round, extra_evidence: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[MeanField, Round] | None:
        """Rounds in which neurons have secret sizes, where that explains more than little; None elsewhere."""
        best, explained = None, iterate.explained / field.energy
        if explained > ENOUGH:
            return None
        even = with_even_readers(field.around)
        blocks = with_even_neurons(field.blocks)
        for _ in range(2):
            sized = self.field(blocks, field.shapes, even, extra_evidence=extra_evidence)
            *_, ended = sized.rounds(self.settings.rounds)
            if ended.explained / sized.energy > explained:
                best, explained = (sized, ended), ended.explained / sized.energy
            blocks = with_even_rows(field.blocks, sized.placed(ended).placement, even)
        return best

    def _again(
        self, field: MeanField, iterate: Round, extra_evidence: tuple[torch.Tensor, torch.Tensor] | None
    ) -> Iterator[Placed]:
        """Other tries after rounds that did not converge: what explains more than the best so far, in the end the best.

        First on from there at a temperature; then from halves of the inputs, until one converges. There is no use in it
        where much is explained already, or so little that it tells no place; nor where the same blocks with signs drawn
        at random, in which nothing is left to find, explain about as much.
        """
        best = field.placed(iterate)
        explained = field.explained(best.placement)
        if not self._worth_it(field, explained, extra_evidence):
            yield best
            return
        for number in range(1 + self.settings.restarts):
            start = iterate if number == 0 else self._started_anew(field, number, extra_evidence)
            *_, ended = field.rounds(self.settings.tempered_rounds, TEMPERATURE, start)
            placed = field.placed(ended)
            reached = field.explained(placed.placement)
            if reached > explained:
                best, explained = placed, reached
                yield best
            if number > 0 and ended.converged and best is placed:
                break
            stop_if_asked(f"in try {number + 1}")
        yield best

    def _worth_it(
        self, field: MeanField, explained: float, extra_evidence: tuple[torch.Tensor, torch.Tensor] | None
    ) -> bool:
        """Whether what a first try explains is neither enough nor nothing."""
        if explained > ENOUGH * field.energy or field.tells(explained) < LITTLE:
            return False
        return all(explained > CHANCE * self._explained_by_chance(field, draw, extra_evidence) for draw in range(DRAWS))

    def _explained_by_chance(
        self, field: MeanField, draw: int, extra_evidence: tuple[torch.Tensor, torch.Tensor] | None
    ) -> float:
        generator = torch_generator("signs", draw)
        signs = torch.randint(2, field.blocks.shape, generator=generator, dtype=torch.int8).to(field.blocks.device)
        blocks = torch.where(signs.bool(), field.blocks, -field.blocks)
        del signs
        nothing = self.field(blocks, field.shapes, field.around, extra_evidence=extra_evidence, filters=field.filters)
        *_, last = nothing.rounds(self.settings.rounds)
        return nothing.explained(nothing.placed(last).placement)

    def _started_anew(
        self, field: MeanField, number: int, extra_evidence: tuple[torch.Tensor, torch.Tensor] | None
    ) -> Round:
        """Where the rounds come from a random half of the inputs."""
        inputs = field.around.inputs
        order = torch.randperm(len(inputs), generator=torch_generator("fingerprint", number)).to(inputs.device)
        half = replace(field.around, inputs=inputs[order[: -(-len(order) // 2)]])
        *_, last = self.field(field.blocks, field.shapes, half, extra_evidence=extra_evidence).rounds(
            self.settings.rounds
        )
        return last

    def field(
        self,
        blocks: torch.Tensor,
        shapes: torch.Tensor,
        around: Surroundings,
        prior_weight: torch.Tensor | None = None,
        extra_evidence: tuple[torch.Tensor, torch.Tensor] | None = None,
        filters: Filters | None = None,
    ) -> MeanField:
        """The evidence on these blocks, to be iterated."""
        filters = filters or Filters(around, self.settings.input_widths, self.settings.output_widths)
        return MeanField(
            blocks,
            shapes,
            around,
            filters,
            self.settings.candidates,
            self.settings.tolerance,
            prior_weight,
            extra_evidence,
        )


def _layer_at(placement: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The number of each block's layer."""
    ends = torch.tensor([layout.offsets[name] + grid.count for name, grid in layout.grids.items()])
    return torch.bucketize(placement, ends, right=True)


def _put_together(blocks: torch.Tensor, placement: torch.Tensor, around: Surroundings) -> torch.Tensor:
    """The weight with the blocks at these positions; where blocks are missing, scaled by the share held."""
    grid = around.grid
    return grid.assemble(lines_of(blocks), invert(placement, grid.count)) * (grid.count / len(blocks))
