"""What a hijack found, by the truth that it never saw: groups, places, and the bits that are left. No torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from scatterproof.stream.hijack.grouping import Groups
from scatterproof.stream.hijack.tap import Seen
from scatterproof.stream.network.deployment import FREE, Sizes

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GroupScores:
    """Adjusted Rand indices (Hubert and Arabie 1985, https://doi.org/10.1007/BF01908075) of columns and rows; bits of
    a block's place, of log2(positions), that the groups leave open."""

    column_ari: float
    row_ari: float
    anonymity_bits: float


def score_groups(groups: Groups, seen: Seen, sizes: Sizes, positions: Ints) -> GroupScores:
    """Of the blocks at these positions int64 [n]. All blocks whose group is unknown make one group.

    The bits left are the entropy of column and of row, each times one minus the mutual information with the groups
    found, adjusted for chance (Vinh et al. 2010, https://jmlr.org/papers/v11/vinh10a.html), as a share of the most
    that it could be. They count what tells blocks apart, not which group is which.
    """
    labels = [at_positions(groups.record, each, seen, sizes.count)[positions] for each in (groups.column, groups.row)]
    return score_labels(positions, (labels[0], labels[1]), sizes)


def score_labels(positions: Ints, labels: tuple[Ints, Ints], sizes: Sizes) -> GroupScores:
    """The same where each block's column and row group are at hand."""
    pairs = ((positions % sizes.columns, labels[0]), (positions // sizes.columns, labels[1]))
    aris = [float(adjusted_rand_score(*pair)) for pair in pairs]
    return GroupScores(aris[0], aris[1], sum(_bits(*pair) for pair in pairs))


def at_positions(record: Ints, group: Ints, seen: Seen, count: int) -> Ints:
    """The group found for the block at each position int64 [count], FREE where none was."""
    known = group >= 0
    order = np.argsort(record[known], kind="stable")
    keys, values = record[known][order], group[known][order]
    group_at = np.full(count, FREE)
    if len(keys):
        at = np.minimum(np.searchsorted(keys, seen.record), len(keys) - 1)
        hit = keys[at] == seen.record
        group_at[seen.position[hit]] = values[at[hit]]
    return group_at


def _bits(truth: Ints, predicted: Ints) -> float:
    share = np.bincount(truth)[np.unique(truth)] / len(truth)
    entropy = float(-(share * np.log2(share)).sum())
    information = adjusted_mutual_info_score(truth, predicted, average_method="max")
    return entropy * float(1 - np.clip(information, 0, 1))
