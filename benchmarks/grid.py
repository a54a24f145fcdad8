"""P1 and S1 cells per second: PlacementEvaluator, as the grids use it, against the naive loop, in one run.

The naive loop assembles a cell's weight, puts it into the network and runs all images through the whole of it. The
network is VGG16-BN at quarter width with random weights, its batch norms calibrated; an image's label is what the
whole network says of it, so that accuracy is agreement. Both loops use the same threads, fp32 and inference mode.

A cell is one row of the table. P1's evaluator runs all three corrections, the naive loop only `none`, the cheapest.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.grid_cells import Cell
from scatterproof.judging.prune_shuffle import draw_placement, prune, shuffle
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset, Split
from scatterproof.victims.models import build_model, dense_layers

IMAGES, CLASSES, BATCH, BLOCK = 1000, 100, 500, 64
KEEP = (0.1, 0.25, 0.5, 0.75, 1.0)
CORRECTIONS = ("none", "scale", "mean")
ROUNDS = 3
TARGETS = {32: 10.0, 28: 4.0}  # ratio to the naive loop, by input size
KEY = ("benchmark",)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a ratio misses its target")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads of both loops")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    show("threads", arguments.threads, "threads")
    missed = [name for size, name in ((32, "copied"), (28, "copy_free")) if not measure(size, name)]
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return int(arguments.check and bool(missed))


def measure(size: int, name: str) -> bool:
    """Print every figure for one input size; whether both ratios reach their target."""
    model, puzzle, answer, test = make_case(size)
    start = time.perf_counter()
    evaluator = PlacementEvaluator(puzzle, test.images, test.labels, torch.device("cpu"))
    show(f"{name}.setup", time.perf_counter() - start, "s")
    show(f"{name}.copies", evaluator.copies, "copies")
    lines = torch.cat([puzzle.blocks, puzzle.blocks.new_zeros(1, *puzzle.layout.block_shape)]).flatten(0, 1)
    # P1's rows of one draw share the scattered layer's product
    flops = {"P1": remaining_flops(puzzle, evaluator.copies, len(CORRECTIONS))}
    flops["S1"] = remaining_flops(puzzle, evaluator.copies, 1)
    ours: dict[str, list[float]] = {"P1": [], "S1": []}
    naive: dict[str, list[float]] = {"P1": [], "S1": []}
    rates = []
    for repeat in range(ROUNDS):  # all in turn, so that a busy moment of the machine meets all
        rates.append(matmul_rate())
        for stage, moved in (("P1", 0.0), ("S1", 1.0)):
            cells = [Cell(BLOCK, keep, moved, repeat) for keep in KEEP]
            rows, seconds = timed(partial(run_grid, stage, evaluator, answer, cells))
            ours[stage].append(len(rows) / seconds)
            one = cells[repeat % len(cells)]
            accuracy, seconds = timed(partial(run_naive, model, puzzle, lines, answer, one, test))
            naive[stage].append(1 / seconds)
            same = next(row["accuracy"] for row in rows if row["keep"] == one.keep)
            assert accuracy == same, f"{stage} {one}: naive {accuracy}, evaluator {same}"
    rate = statistics.median(rates)
    show(f"{name}.matmul_rate", rate / 1e9, "GFLOP/s")
    reached = []
    for stage in ("P1", "S1"):
        fast, slow = statistics.median(ours[stage]), statistics.median(naive[stage])
        reached.append(fast / slow >= TARGETS[size])
        show(f"{name}.{stage}.evaluator", fast, "cells/s")
        show(f"{name}.{stage}.naive", slow, "cells/s")
        show(f"{name}.{stage}.ratio", fast / slow, f"x (target {TARGETS[size]:g})")
        show(f"{name}.{stage}.flops_per_cell", flops[stage] / 1e9, "GFLOP")
        show(f"{name}.{stage}.bound", rate / flops[stage], "cells/s")
        show(f"{name}.{stage}.share_of_bound", fast * flops[stage] / rate, "of the matmul rate")
    return all(reached)


def make_case(size: int) -> tuple[nn.Module, Puzzle, Answer, Split]:
    """A network, its puzzle and answer, and the images that its cells are evaluated on."""
    config = VictimConfig(model="vgg16_bn", width=0.25, input_size=size)
    model = build_model(config, CLASSES)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    smooth = nn.functional.avg_pool2d(images.float(), 5, 1, 2)  # noise that a convolution tells apart
    images = ((smooth - 127) * 4 + 127).clamp(0, 255).to(torch.uint8)
    empty = Split(images[:0], torch.zeros(0, dtype=torch.int64))
    pirate = Split(images[:100], torch.zeros(100, dtype=torch.int64))
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    dataset = Dataset("random", CLASSES, empty, pirate, empty, mean, std, "random", 0)
    puzzle, answer = make_puzzle(model, config, dataset, ThreatModel(images=100), BLOCK, KEY)
    calibrate(model, puzzle, images)
    puzzle, answer = make_puzzle(model, config, dataset, ThreatModel(images=100), BLOCK, KEY)
    labels = torch.cat([model(puzzle.inputs(part)).argmax(1) for part in images.split(BATCH)])
    return model, puzzle, answer, Split(images, labels)


@torch.inference_mode()
def calibrate(model: nn.Module, puzzle: Puzzle, images: torch.Tensor) -> None:
    """Batch norms take the images' statistics; the last layer is centred, so that many classes occur."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    model.train()
    for part in images.split(BATCH):
        model(puzzle.inputs(part))
    model.eval()
    for layer in dense_layers(model).values():
        nn.init.kaiming_normal_(layer.weight)
    logits = torch.cat([model(puzzle.inputs(part)) for part in images.split(BATCH)])
    last = list(dense_layers(model).values())[-1]
    last.bias.data -= logits.mean(0)


def run_grid(stage: str, evaluator: PlacementEvaluator, answer: Answer, cells: list[Cell]) -> list[dict[str, Any]]:
    if stage == "P1":
        return prune(evaluator, answer, cells, CORRECTIONS, KEY)
    return shuffle(evaluator, answer, cells, KEY)


@torch.inference_mode()
def run_naive(model: nn.Module, puzzle: Puzzle, lines: torch.Tensor, answer: Answer, cell: Cell, test: Split) -> float:
    """The accuracy of one cell, without any cleverness; `lines` are the blocks' with an empty block last."""
    blocks = draw_placement(answer, cell, KEY).blocks()
    (name,) = puzzle.layout.grids
    weight = puzzle.layout.assemble(lines, blocks.where(blocks >= 0, len(puzzle.blocks)))[name]
    dense_layers(model)[name].weight.data.copy_(weight)
    right = 0
    for images, labels in zip(test.images.split(BATCH), test.labels.split(BATCH), strict=True):
        right += int((model(puzzle.inputs(images)).argmax(1) == labels).sum())
    return right / len(test)


def remaining_flops(puzzle: Puzzle, copies: int, sharing: int) -> float:
    """What a cell cannot do without: its part of the folded layer, and the dense layers after it."""
    layers = list(dense_layers(puzzle.model()).values())
    sizes = [layer.in_features * layer.out_features for layer in layers]
    return 2.0 * IMAGES * (sizes[0] / copies / sharing + sum(sizes[1:]))


def matmul_rate(size: int = 2048) -> float:
    """FLOP/s of a large fp32 matrix product, the best of three."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return max(2 * size**3 / timed(lambda: left @ right)[1] for _ in range(3))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def show(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.4g} {unit}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
