"""The cells of the P1 and S1 grids and how they are sliced into jobs; no torch, Snakemake counts them while parsing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from scatterproof.config.study import PruneConfig, ShuffleConfig


@dataclass(frozen=True)
class Cell:
    """One draw: the share of blocks kept, of those the share displaced, and the repeat's number."""

    block_size: int
    keep: float
    moved: float
    repeat: int


def prune_cells(config: PruneConfig, block_sizes: Sequence[int]) -> list[Cell]:
    """Every draw of P1 on one victim: block sizes x shares kept x repeats."""
    return [Cell(size, keep, 0.0, n) for size, keep, n in product(block_sizes, config.keep, range(config.repeats))]


def shuffle_cells(config: ShuffleConfig, block_sizes: Sequence[int]) -> list[Cell]:
    """Every draw of S1 on one victim: block sizes x shares kept x of those displaced x repeats."""
    return [Cell(*cell) for cell in product(block_sizes, config.keep, config.moved, range(config.repeats))]


def slice_count(cells: int, cells_per_job: int) -> int:
    """How many jobs the cells make."""
    return -(-cells // cells_per_job)
