"""Trying the seeds that a layer may have been drawn from, for layers that were never trained.

Whoever draws a layer by `torch.manual_seed(SEED)` and PyTorch's own start of a dense layer has drawn one of 2^32: its
generator on a CPU, MT19937 (Matsumoto & Nishimura 1998, https://doi.org/10.1145/272991.272995), reads the lower 32 bits
of a seed alone. Of most seeds the first numbers rule out that any block lies at the layer's top; they are made for
thousands of seeds at once. What is left is drawn and compared to the bit, and so at last is every block.
"""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from scatterproof.attacks.base import Attack, Placed, Run
from scatterproof.blocks import BlockGrid
from scatterproof.config.settings.base import Known
from scatterproof.config.settings.blocks import SeedSearchSettings
from scatterproof.puzzle import Puzzle
from scatterproof.running.files import atomic
from scatterproof.running.interrupt import stop_if_asked

Words = NDArray[np.uint32]

BITS = 24  # of a uniform number in float32
NEAR = 2  # so many units of the last of them a weight may be off by rounding
AT_ONCE, PART = 1 << 14, 1 << 20  # seeds in one go: what the cache holds; and between two checkpoints
LENGTH, MIDDLE = 624, 397  # of MT19937's state
FIRST_ROW = LENGTH - MIDDLE  # numbers of the stream that its first state gives by itself


class SeedSearch(Attack[SeedSearchSettings]):
    """All seeds of a space, one after the other, until one has drawn the layer. Needs no images."""

    name: ClassVar[str] = "seed_search"
    Settings = SeedSearchSettings
    reads: ClassVar[tuple[Known, ...]] = ()
    plants: ClassVar[Literal["leak", "seed"]] = "seed"

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Placed]:
        """Where the blocks lie in the layer that a seed draws; by their first weights, which says nothing, else."""
        grid = next(iter(puzzle.layout.grids.values()))
        progress = None if run.work is None else run.work / f"{self.file_name(puzzle, run)}.pt"
        first, spent = _begun(progress, self.settings.start)
        started = time.perf_counter() - 60 * spent
        filtered, seed = Filter(puzzle.blocks, grid), None
        end = self.settings.start + (1 << self.settings.bits)
        while first < end and seed is None:
            last = min(first + PART, end)
            seed = next(filtered.drawing(first, last), None)
            first = last
            minutes = (time.perf_counter() - started) / 60
            if progress is not None and seed is None:
                with atomic(progress) as temporary:
                    torch.save({"next": first, "minutes": minutes}, temporary)
            stop_if_asked(f"at seed {first}")
        minutes = (time.perf_counter() - started) / 60
        yield _nowhere(puzzle, minutes) if seed is None else _placed(puzzle, grid, seed, minutes)


def draw_layer(seed: int, outputs: int, inputs: int) -> torch.Tensor:
    """The weight [outputs, inputs] that `torch.manual_seed(seed)` and PyTorch's start of a dense layer give."""
    return _first_numbers(seed, outputs * inputs, inputs).view(outputs, inputs)


def _bound(inputs: int) -> float:
    """Of the uniform start: `kaiming_uniform_` with the slope that `nn.Linear` hands it, to the bit."""
    return math.sqrt(3.0) * (torch.nn.init.calculate_gain("leaky_relu", math.sqrt(5)) / math.sqrt(inputs))


def _first_numbers(seed: int, count: int, inputs: int) -> torch.Tensor:
    bound = _bound(inputs)
    return torch.empty(count).uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))


class Filter:
    """Which seeds may have drawn a block at the layer's top, by the block's first weight, and then by its first row."""

    def __init__(self, blocks: torch.Tensor, grid: BlockGrid) -> None:
        self.grid, self.rows = grid, blocks[:, 0].contiguous()
        step = 1 if len(blocks) == grid.count else FIRST_ROW  # with all blocks held, that of the corner is among them
        self.columns = range(0, min(grid.inputs, step), grid.width)
        bound = _bound(grid.inputs)
        units = np.rint((self.rows[:, 0].double().numpy() + bound) / (2 * bound) * 2**BITS).astype(np.int64)
        units = units[(units >= -NEAR) & (units < 2**BITS + NEAR)]
        self.possible = np.zeros(2**BITS, np.bool_)
        self.possible[np.clip(units[:, None] + np.arange(-NEAR, NEAR + 1), 0, 2**BITS - 1)] = True

    def drawing(self, first: int, last: int) -> Iterator[int]:
        """The seeds from first up to last that have drawn a block in the layer's first row of blocks."""
        for begin in range(first, last, AT_ONCE):
            seeds = np.arange(begin, min(begin + AT_ONCE, last), dtype=np.uint32)
            for column, numbers in zip(self.columns, numbers_of(seeds, self.columns), strict=True):
                for place in np.nonzero(self.possible[numbers & np.uint32(2**BITS - 1)])[0]:
                    if self._drawn(int(seeds[place]), column):
                        yield int(seeds[place])

    def _drawn(self, seed: int, column: int) -> bool:
        width = min(self.grid.width, self.grid.inputs - column)
        row = _first_numbers(seed, column + width, self.grid.inputs)[column:]
        return bool((self.rows[:, :width] == row).all(1).any())


def numbers_of(seeds: Words, places: Sequence[int]) -> list[Words]:
    """The numbers at these places, below 227, of the stream that each seed starts: uint32 [seeds] for each place."""
    wanted = {at for place in places for at in (place, place + 1, place + MIDDLE)}
    state, kept = seeds.copy(), {0: seeds}
    for at in range(1, max(wanted) + 1):
        state = (state ^ (state >> np.uint32(30))) * np.uint32(1812433253) + np.uint32(at)
        if at in wanted:
            kept[at] = state
    return [_tempered(_twisted(kept[place], kept[place + 1], kept[place + MIDDLE])) for place in places]


def _twisted(one: Words, following: Words, middle: Words) -> Words:
    both = (one & np.uint32(0x80000000)) | (following & np.uint32(0x7FFFFFFF))
    mixed: Words = middle ^ (both >> np.uint32(1)) ^ ((following & np.uint32(1)) * np.uint32(0x9908B0DF))
    return mixed


def _tempered(word: Words) -> Words:
    word = word ^ (word >> np.uint32(11))
    word = word ^ ((word << np.uint32(7)) & np.uint32(0x9D2C5680))
    word = word ^ ((word << np.uint32(15)) & np.uint32(0xEFC60000))
    return word ^ (word >> np.uint32(18))


def _begun(progress: Path | None, start: int) -> tuple[int, float]:
    """The seed to go on with, and the minutes that were spent until there."""
    if progress is None or not progress.exists():
        return start, 0.0
    kept = torch.load(progress, weights_only=True)
    return int(kept["next"]), float(kept["minutes"])


def _placed(puzzle: Puzzle, grid: BlockGrid, seed: int, minutes: float) -> Placed:
    """Every block that this seed's layer has, to the bit, at its place there; the others where room is left."""
    drawn = grid.cut(draw_layer(seed, grid.outputs, grid.inputs))
    at = {block.numpy().tobytes(): place for place, block in enumerate(drawn)}
    places = torch.tensor([at.get(block.cpu().contiguous().numpy().tobytes(), -1) for block in puzzle.blocks])
    known = places >= 0
    sure = torch.where(known, 1.0, 0.0)
    return _said(puzzle, _with_room_filled(puzzle, places), sure, minutes)


def _nowhere(puzzle: Puzzle, minutes: float) -> Placed:
    """An order that says nothing, and is believed no more than chance."""
    places = torch.full((len(puzzle.blocks),), -1)
    even = torch.full((len(places),), 1 / puzzle.layout.positions)
    return _said(puzzle, _with_room_filled(puzzle, places), even, minutes)


def _said(puzzle: Puzzle, places: torch.Tensor, beliefs: torch.Tensor, minutes: float) -> Placed:
    return Placed(places, places[:, None], beliefs[:, None], evaluations=0, minutes=minutes)


def _with_room_filled(puzzle: Puzzle, places: torch.Tensor) -> torch.Tensor:
    """Blocks without a place get one of those of their shape that are left, by the size of their first weight."""
    places, shapes = places.clone(), puzzle.layout.shapes()
    free = torch.ones(len(shapes), dtype=torch.bool)
    free[places[places >= 0]] = False
    for shape in puzzle.shapes[places < 0].unique(dim=0):
        (mine,) = torch.nonzero((places < 0) & (puzzle.shapes == shape).all(1), as_tuple=True)
        (room,) = torch.nonzero(free & (shapes == shape).all(1), as_tuple=True)
        order = puzzle.blocks[mine, 0, 0].cpu().argsort(stable=True)
        places[mine[order]] = room[: len(mine)]
    return places
