"""Which group is which column or row: by leaked places, by volume and timing, by the blocks that the pirate holds.

A block by itself says little of its place; the sum over a group says much more. Labels are one linear assignment of
groups to columns, another to rows; where every block's groups are known, all are labelled together (settling.py). Graph
matching (FAQ, Vogelstein et al. 2015,
https://doi.org/10.1371/journal.pone.0121002) aligns how columns' weights are correlated with how their inputs are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, quadratic_assignment

from scatterproof.attacks.base import KEPT_CANDIDATES, Placed
from scatterproof.attacks.fingerprint.assignment import Candidates, best_assignment
from scatterproof.attacks.fingerprint.context import Surroundings
from scatterproof.attacks.fingerprint.evidence import group_evidence, slices
from scatterproof.blocks import shape_numbers
from scatterproof.stream.hijack.grouping import Groups
from scatterproof.stream.hijack.roles import looked_up
from scatterproof.stream.hijack.settling import Grouped, settle
from scatterproof.stream.hijack.tap import Traffic
from scatterproof.stream.network.deployment import FREE
from scatterproof.stream.network.flows import HEADER
from scatterproof.stream.network.obfuscate import padded

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LEAKED = 1e6  # weight of a leaked place; of a size that doesn't fit; of a group's label against a block's own evidence
MISFIT = 1e3
LABEL = 50.0
SEEDS = 10  # columns surest by evidence that graph matching starts from


@dataclass(frozen=True)
class LabelEvidence:
    """What each block held says of its column and row, log-likelihoods float32 [blocks, columns], [blocks, rows], less
    their mean; flat [blocks, height * width]; shapes int64 [blocks, 2]; shape_of, shape_at number the shapes of blocks
    and positions; leaks: the part of by_column and by_row that leaked places make up."""

    around: Surroundings
    flat: torch.Tensor
    shapes: torch.Tensor
    by_column: torch.Tensor
    by_row: torch.Tensor
    shape_of: torch.Tensor
    shape_at: torch.Tensor
    leaks: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(cls, blocks: torch.Tensor, shapes: torch.Tensor, around: Surroundings) -> "LabelEvidence":
        """For blocks [held, height, width] of these shapes int64 [held, 2]."""
        grid = around.grid
        places = grid.shapes().to(shapes)
        columns = group_evidence(blocks, slices(around.inputs, grid.width), shapes).log_likelihood
        rows = blocks.new_zeros(len(blocks), grid.rows)
        if around.following is not None:
            moments = slices(around.following, grid.height)
            rows = group_evidence(blocks.transpose(1, 2), moments, shapes.flip(1)).log_likelihood
        columns, rows = (each - each.mean(1, keepdim=True) for each in (columns, rows))
        columns = columns - MISFIT * (shapes[:, 1:] != places[: grid.columns, 1])
        rows = rows - MISFIT * (shapes[:, :1] != places[:: grid.columns, 0])
        return cls(
            around,
            blocks.flatten(1),
            shapes,
            columns,
            rows,
            *shape_numbers(shapes, places),
        )


@dataclass(frozen=True)
class OwnGroups:
    """The column's and row's group of each block held, int64 [blocks], FREE where unknown."""

    column: Ints
    row: Ints


def own_groups(traffic: Traffic, groups: Groups, held: int, adapts: bool) -> OwnGroups:
    """What own devices know of themselves: blocks fed with equal numbers share a column, whatever lies between; those
    whose sums go to one reducer a row. Where sums leave through a mix, the groups found tell."""
    flows, column, row = traffic.flows, np.full(held, FREE), np.full(held, FREE)
    now = flows.request[traffic.record] == flows.request.max(initial=0)
    record, block = traffic.record[now], traffic.block[now]
    slice_ = np.isin(flows.destination[record], traffic.own)
    column[block[slice_]] = traffic.content[record[slice_]]
    record, block = record[~slice_], block[~slice_]
    if adapts and traffic.hiding.relays:
        order = np.argsort(groups.record, kind="stable")
        row[block] = looked_up(groups.record[order], groups.row[order], record)
    elif traffic.topology == "sources":
        row[block] = flows.destination[record]
    return OwnGroups(column, row)


def assign_labels(scores: Floats) -> Ints:
    """The label of each group int64 [groups], FREE where there are more groups than labels; scores [groups, labels]."""
    label_of = np.full(len(scores), FREE)
    groups, labels = linear_sum_assignment(scores, maximize=True)
    label_of[groups] = labels
    return label_of


def pooled(evidence: torch.Tensor, group: Ints) -> tuple[Ints, Floats]:
    """Groups in ascending order, and the sum of their blocks' evidence [groups, labels]."""
    known = group >= 0
    names, number = np.unique(group[known], return_inverse=True)
    total = evidence.new_zeros(len(names), evidence.shape[1])
    total.index_add_(0, torch.from_numpy(number).to(evidence.device), evidence[torch.from_numpy(known)])
    return names, total.double().cpu().numpy()


def label_by_traffic(traffic: Traffic, groups: Groups) -> Groups:
    """Groups replaced by columns and rows, from leaked places, sizes of messages and their order alone."""
    flows, sizes, padding = traffic.flows, traffic.sizes, traffic.hiding.padding
    to_device = np.isin(flows.destination[groups.record], flows.source) & (groups.record >= 0)
    expected = [padded(4 * each + HEADER, padding) for each in (sizes.widths, sizes.heights)]
    labelled = []
    for which, (group, leg, wanted) in enumerate(
        ((groups.column, to_device, expected[0]), (groups.row, ~to_device, expected[1]))
    ):
        names, number = np.unique(group, return_inverse=True)
        scores = -1e-6 * np.abs(np.arange(len(names))[:, None] - np.arange(len(wanted))[None, :])
        measured = np.full(len(names), -1.0)
        measured[number[leg]] = flows.bytes[groups.record[leg]]
        scores = scores - MISFIT * ((measured[:, None] != wanted[None, :]) & (measured[:, None] >= 0))
        scores = scores + LEAKED * _votes(traffic, groups.record, number, which, scores.shape)
        labels = assign_labels(np.where(names[:, None] == FREE, -1e9, scores))
        labelled.append(np.where(group == FREE, FREE, labels[number]))
    return Groups(groups.record, labelled[0], labelled[1])


def _votes(traffic: Traffic, record: Ints, number: Ints, which: int, shape: tuple[int, ...]) -> Floats:
    """How many devices of each group have leaked as being in each column (which 0) or row (1)."""
    votes = np.zeros(shape)
    for end in (traffic.flows.source[record], traffic.flows.destination[record]):
        order = np.argsort(end, kind="stable")
        at = np.searchsorted(end[order], traffic.labelled[:, 0])
        at = np.minimum(at, max(len(order) - 1, 0))
        hit = end[order][at] == traffic.labelled[:, 0] if len(order) else np.zeros(len(at), bool)
        np.add.at(votes, (number[order[at[hit]]], traffic.labelled[hit, 2 - which]), 1)
    return votes


def with_leaks(evidence: LabelEvidence, traffic: Traffic, groups: Groups) -> LabelEvidence:
    """The blocks' own evidence, and what leaked places say: of own blocks that are alone on a device whose place has
    leaked, and, where nothing is hidden, of the groups that other devices' messages were found in."""
    flows, record, block = traffic.flows, traffic.record, traffic.block
    own = np.isin(flows.destination[record], traffic.own)
    pairs = np.unique(np.stack([np.where(own, flows.destination[record], flows.source[record]), block], 1), axis=0)
    devices, first, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    alone = looked_up(devices[counts == 1], pairs[first[counts == 1], 1], traffic.labelled[:, 0])
    hiding = traffic.hiding
    plain = traffic.topology == "sources" and hiding.per_device == 1 and not (hiding.relays or hiding.cover)
    scores = []
    for which, (group, by) in enumerate(((groups.column, evidence.by_column), (groups.row, evidence.by_row))):
        leaked = np.zeros(tuple(by.shape))
        np.add.at(leaked, (alone[alone != FREE], traffic.labelled[alone != FREE, 2 - which]), 1)
        if plain:
            known = np.isin(record, groups.record)
            np.add.at(leaked, block[known], _shares(traffic, groups.record, group, which, by.shape[1], record[known]))
        scores.append(LEAKED * torch.from_numpy(leaked).to(by))
    column, row = scores
    return replace(evidence, by_column=evidence.by_column + column, by_row=evidence.by_row + row, leaks=(column, row))


def _shares(traffic: Traffic, record: Ints, group: Ints, which: int, labels: int, wanted: Ints) -> Floats:
    """Of the leaked devices in each wanted record's group the shares that lie in each column (which 0) or row."""
    names, number = np.unique(group, return_inverse=True)
    votes = _votes(traffic, record, number, which, (len(names), labels))
    votes = np.where(names[:, None] == FREE, 0, votes / np.maximum(votes.sum(1, keepdims=True), 1))
    order = np.argsort(record, kind="stable")
    shares: Floats = votes[looked_up(record[order], number[order], wanted)]
    return shares


@dataclass(frozen=True)
class Labels:
    """Column and row of each block int64 [blocks], FREE where its group is unknown."""

    column: Ints
    row: Ints

    @property
    def complete(self) -> bool:
        """Whether every block's are known."""
        return bool((self.column >= 0).all() and (self.row >= 0).all())


def labels_of(own: OwnGroups, by_column: Floats, by_row: Floats) -> Labels:
    """Columns and rows of the blocks' groups from scores [groups, labels], the groups known in ascending order."""
    labels = []
    for group, scores in ((own.column, by_column), (own.row, by_row)):
        names = np.unique(group[group >= 0])
        labels.append(looked_up(names, assign_labels(scores), group) if len(names) else np.full(len(group), FREE))
    return Labels(*labels)


def label_by_blocks(evidence: LabelEvidence, own: OwnGroups, rounds: int) -> Iterator[Labels]:
    """By the groups' pooled evidence, then, where every block's groups are known, after each round of settling."""
    sums = [pooled(each, group)[1] for each, group in ((evidence.by_column, own.column), (evidence.by_row, own.row))]
    grid = evidence.around.grid
    known = bool((own.column >= 0).all() and (own.row >= 0).all())
    if not known or len(sums[0]) > grid.columns or len(sums[1]) > grid.rows:
        yield labels_of(own, *sums)
        return
    column, row = (np.unique(each, return_inverse=True)[1] for each in (own.column, own.row))
    groups = Grouped.of(evidence.flat, (evidence.by_row, evidence.by_column), row, column)
    before = None
    for by_row, by_column in settle(groups, evidence.around, rounds):
        labels = labels_of(own, by_column.double().cpu().numpy(), by_row.double().cpu().numpy())
        yield labels
        same = before is not None and (before.column == labels.column).all() and (before.row == labels.row).all()
        if same and before is not None:
            return
        before = labels


def place(evidence: LabelEvidence, labels: Labels) -> Placed:
    """The placement: straight from the labels where they give every block a place of its own, else by assignment."""
    grid, blocks = evidence.around.grid, len(evidence.flat)
    column, row = torch.from_numpy(labels.column), torch.from_numpy(labels.row)
    direct = row * grid.columns + column
    fits = labels.complete and bool((evidence.shape_at[direct] == evidence.shape_of).all())
    if fits and len(direct.unique()) == blocks:
        return Placed(direct, direct[:, None], torch.ones(blocks, 1))
    columns, rows = bound(evidence, labels)
    columns, rows = evidence.by_column + columns, evidence.by_row + rows
    total = (rows[:, :, None] + columns[:, None, :]).flatten(1)
    total.masked_fill_(evidence.shape_of[:, None] != evidence.shape_at, -torch.inf)
    belief = total.softmax(1)
    total = total.nan_to_num(neginf=-1e9)
    candidates = Candidates(torch.arange(grid.count).expand(blocks, -1), total)
    best, at = belief.topk(min(KEPT_CANDIDATES, grid.count), dim=1)
    return Placed(best_assignment(candidates, evidence.shape_of, evidence.shape_at), at, best)


def bound(evidence: LabelEvidence, labels: Labels) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels as evidence of each block's column and row that outweighs its own; nothing where there is no label."""
    by_axis = []
    for scores, label in ((evidence.by_column, labels.column), (evidence.by_row, labels.row)):
        at = torch.from_numpy(label)
        known = (at >= 0).nonzero().flatten()
        certain = torch.zeros_like(scores)
        certain[known, at[known]] = LABEL + scores.abs().max()
        by_axis.append(certain)
    return by_axis[0], by_axis[1]


def match_columns(evidence: LabelEvidence, own: OwnGroups, labels: Labels) -> Labels:
    """Columns labelled by graph matching instead: pairs of groups whose weights go together, pairs of columns whose
    inputs do. Starts from the columns that the evidence is surest of."""
    grid = evidence.around.grid
    names, number = np.unique(own.column, return_inverse=True)
    row = np.where(labels.row >= 0, labels.row, 0)
    whole = evidence.flat.new_zeros(grid.rows, len(names), evidence.flat.shape[1])
    whole[torch.from_numpy(row), torch.from_numpy(number)] = evidence.flat
    weight = (
        whole.view(grid.rows, len(names), grid.height, grid.width)
        .permute(0, 2, 1, 3)
        .reshape(-1, len(names) * grid.width)
    )
    inputs = evidence.around.inputs - evidence.around.inputs.mean(0)
    missing = grid.columns * grid.width - inputs.shape[1]
    inputs = torch.nn.functional.pad(inputs, (0, missing))
    ours, theirs = _affinity(weight, len(names)), _affinity(inputs, grid.columns)
    size = max(ours.shape[0], theirs.shape[0])
    ours, theirs = (np.pad(each, (0, size - len(each))) for each in (ours, theirs))
    _, total = pooled(evidence.by_column, own.column)
    ranked = np.sort(total, axis=1)
    margin = ranked[:, -1] - ranked[:, -2] if total.shape[1] > 1 else np.full(len(total), -np.inf)
    count = max(SEEDS, int((margin > LEAKED / 2).sum()))
    sure = np.sort(np.argsort(-margin, kind="stable")[:count])  # in order: where all are seeds, scipy returns them so
    label = assign_labels(total)
    seeds = np.array([[group, label[group]] for group in sure if label[group] >= 0]).reshape(-1, 2)
    options: Any = {"maximize": True, "partial_match": seeds}
    matched = quadratic_assignment(ours, theirs, method="faq", options=options).col_ind
    column = np.where(matched < grid.columns, matched, FREE)[number]
    return Labels(np.where(own.column >= 0, column, FREE), labels.row)


def _affinity(matrix: torch.Tensor, parts: int) -> Floats:
    """How strongly slices of a matrix's columns go together: norms of their cross products [parts, parts]."""
    width = matrix.shape[1] // parts
    gram = (matrix.T @ matrix).view(parts, width, parts, width)
    norms = gram.square().sum((1, 3)).sqrt().double().cpu().numpy()
    scale = np.sqrt(np.outer(np.diag(norms), np.diag(norms)))
    affinity: Floats = np.where(scale > 0, norms / np.maximum(scale, 1e-30), 0.0)
    np.fill_diagonal(affinity, 0.0)
    return affinity
