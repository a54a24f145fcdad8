"""Placements and exchanges per second at full size: PlacementEvaluator against the naive way, in one run, medians.

VGG16 at torchvision's width with random weights, its layer of 25088 -> 4096 cut into 1568 blocks of 256 x 256, 100
images of 32 x 32 (`copied`: each channel 49 times in the layer's input) or 28 x 28 (`copy_free`). The naive way
gathers the weight of a placement, puts it into the network and runs the images through the whole of it, in fp32 as
torch does by default; `naive_bf16` is the same with the network, the blocks and the images in bf16.

A population is 100 placements; exchanges are scored as deltas on one placement; `first_order` scores all of the
1568 x 1567 / 2 exchanges from one backward pass. The evaluator searches in bf16 where the device is quick at it, else
in fp32, unless `--precision` says otherwise; the naive way in bf16 is measured where the device is quick at it.
Bounds: the multiplications that cannot be avoided over the measured matmul rate of that precision, or the bytes that
must be read over the measured bandwidth, whichever takes longer. The targets are against the naive way in fp32; the
ratio to the one in bf16 stands beside. `--memory-mb` decides whether the copy-free products are held.
"""

import argparse
import copy
import os
import resource
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from grid import show, timed
from torch import nn

from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Puzzle
from scatterproof.running.device import device_name, has_fast_bf16, set_up
from scatterproof.victims.data import Dataset, Split
from scatterproof.victims.models import build_model, dense_layers

IMAGES, CLASSES, BLOCK, POPULATION, SWAPS, ROUNDS = 100, 100, 256, 100, 256, 5
# By precision: in fp32 the products that no way around is known for allow 8 and 110
POPULATION_RATIO = {"bf16": 20.0, "tf32": 20.0, "fp32": 5.0}
SWAP_RATIO = {"bf16": 200.0, "tf32": 200.0, "fp32": 60.0}
FIRST_ORDER_TIMES, PEAK_GIB = 5.0, 12.0  # evaluations the naive way, for all exchanges


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--precision", choices=["fp32", "tf32", "bf16"], help="default bf16 where the device is quick at it, else fp32"
    )
    parser.add_argument("--memory-mb", type=int, default=9000, help="that the evaluator may hold")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    arguments.precision = arguments.precision or ("bf16" if has_fast_bf16(device) else "fp32")
    set_up(device, arguments.threads)
    torch.manual_seed(0)
    print(f"device {device_name(device).replace(' ', '_')}")
    print(f"precision {arguments.precision}")
    show("threads", arguments.threads, "threads")
    missed = [line for size, name in ((32, "copied"), (28, "copy_free")) for line in measure(size, name, arguments)]
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return int(arguments.check and bool(missed))


def measure(size: int, name: str, arguments: argparse.Namespace) -> list[str]:
    """Print every figure for one input size; the targets that were missed."""
    device = torch.device(arguments.device)
    model, puzzle, images = make_case(size)
    naive = Naive(model, puzzle, images, device)
    evaluator, seconds = timed(partial(make_evaluator, puzzle, device, arguments.precision, arguments.memory_mb))
    show(f"{name}.setup", seconds, "s")
    show(f"{name}.copies", evaluator.copies, "copies")
    show(f"{name}.products_cached", float(evaluator.engine.products.cached), "(0 no, 1 yes)")
    placements = torch.stack([torch.randperm(len(puzzle.blocks)) for _ in range(POPULATION)]).to(device)
    moves = torch.stack([torch.randperm(len(puzzle.blocks))[:2] for _ in range(SWAPS)]).to(device)
    at = evaluator.at(placements[0])
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    square = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device).to(dtype)
    data = torch.ones(2**26, device=device)
    work: dict[str, Callable[[], Any]] = {
        "naive": partial(naive.run, placements[0], torch.float32),
        "population": lambda: evaluator.score_population(placements).loss.tolist(),
        "swaps": lambda: at.score(moves).loss.tolist(),
        "first_order": lambda: float(evaluator.swap_changes(placements[0])[0, 1]),
        "matmul": partial(multiply, square, arguments.precision),
        "read": lambda: float(data.sum()),
    }
    if has_fast_bf16(device):
        work["naive_bf16"] = partial(naive.run, placements[0], torch.bfloat16)
    taken: dict[str, list[float]] = {key: [] for key in work}
    for _ in range(ROUNDS):  # all in turn, so that a busy moment of the machine meets all
        for key, one in work.items():
            taken[key].append(timed(one)[1])
    seconds_of = {key: statistics.median(values) for key, values in taken.items()}
    seconds_of["population"] /= POPULATION
    seconds_of["swaps"] /= SWAPS
    return report(name, evaluator, seconds_of, peak_gib(device), distinct_share(placements, evaluator))


def distinct_share(placements: torch.Tensor, evaluator: PlacementEvaluator) -> float:
    """Products of a block and a column that no earlier placement has, of all."""
    grid = evaluator.engine.products.grid
    pairs = placements.argsort(1) * grid.columns + torch.arange(grid.count, device=placements.device) % grid.columns
    return pairs.unique().numel() / pairs.numel()


def report(
    name: str, evaluator: PlacementEvaluator, seconds: dict[str, float], peak: float, distinct: float
) -> list[str]:
    """Print what was measured; the targets missed."""
    for key in ("naive", "naive_bf16", "population", "swaps", "first_order"):
        if key in seconds:
            show(f"{name}.{key}", 1000 * seconds[key], "ms each" if key != "first_order" else "ms for all exchanges")
    rate, bandwidth = MATMUL_FLOPS / seconds["matmul"], READ_BYTES / seconds["read"]
    show(f"{name}.matmul_rate", rate / 1e9, "GFLOP/s")
    show(f"{name}.bandwidth", bandwidth / 1e9, "GB/s")
    for key, (flops, read_bytes) in least_work(evaluator, distinct).items():
        bound = max(flops / rate, read_bytes / bandwidth)
        show(f"{name}.{key}.share_of_matmul_rate", flops / seconds[key] / rate, "of the rate")
        show(f"{name}.{key}.share_of_bandwidth", read_bytes / seconds[key] / bandwidth, "of the bandwidth")
        show(f"{name}.{key}.share_of_bound", bound / seconds[key], "of the longer of the two")
    precision = evaluator.engine.precision
    ratios = {"population": POPULATION_RATIO[precision], "swaps": SWAP_RATIO[precision]}
    for key, target in ratios.items():
        show(f"{name}.{key}.ratio", seconds["naive"] / seconds[key], f"x naive (target {target:g})")
        if "naive_bf16" in seconds:
            show(f"{name}.{key}.ratio_bf16", seconds["naive_bf16"] / seconds[key], "x naive_bf16")
    first = seconds["first_order"] / seconds["naive"]
    show(f"{name}.first_order.ratio", first, f"naive evaluations' time (target at most {FIRST_ORDER_TIMES:g})")
    show(f"{name}.peak_memory", peak, f"GiB (target {PEAK_GIB:g})")
    missed = [f"{name}.{key}.ratio" for key, target in ratios.items() if seconds["naive"] / seconds[key] < target]
    missed += [f"{name}.first_order.ratio"] if first > FIRST_ORDER_TIMES else []
    return missed + ([f"{name}.peak_memory"] if peak >= PEAK_GIB else [])


def least_work(evaluator: PlacementEvaluator, distinct: float) -> dict[str, tuple[float, float]]:
    """FLOPs and bytes that each placement, exchange, and the pass over all exchanges cannot do without.

    distinct: the share of a population's products that have to be made, as equal ones are made once.
    """
    products = evaluator.engine.products
    grid, item = products.grid, 4 if evaluator.engine.precision != "bf16" else 2
    tail = [(4096, 4096), (4096, CLASSES)]
    dense = sum(2.0 * IMAGES * inputs * outputs for inputs, outputs in tail)
    folded = grid.inputs / evaluator.copies
    layer = 0.0 if products.cached else 2.0 * IMAGES * folded * grid.outputs
    layer *= distinct if products.by_column else 1.0
    read_layer = item * grid.count * grid.height * (IMAGES if products.cached else products.spans)
    swap = 2.0 * IMAGES * (2 * grid.height * 4096 + 4096 * CLASSES)
    first = 2.0 * grid.count**2 * grid.height * products.spans
    return {
        "population": (dense + layer, read_layer),
        "swaps": (swap, item * IMAGES * 4 * grid.height * (1 if products.cached else products.spans / IMAGES)),
        "first_order": (first, item * products._folded.numel()),
    }


class Naive:
    """The whole network for every placement, its weights and blocks in fp32 and once more in bf16."""

    def __init__(self, model: nn.Module, puzzle: Puzzle, images: torch.Tensor, device: torch.device) -> None:
        self._puzzle, self._images = puzzle, images.to(device)
        empty = puzzle.blocks.new_zeros(1, *puzzle.layout.block_shape)
        lines = torch.cat([puzzle.blocks, empty]).flatten(0, 1).to(device)
        self._lines = {dtype: lines.to(dtype) for dtype in (torch.float32, torch.bfloat16)}
        self._models = {dtype: copy.deepcopy(model).to(device, dtype) for dtype in self._lines}

    @torch.inference_mode()
    def run(self, placement: torch.Tensor, dtype: torch.dtype) -> float:
        """A loss, with weights, blocks and images in this precision."""
        (name,) = self._puzzle.layout.grids
        weight = self._puzzle.layout.assemble(self._lines[dtype], placement.argsort())[name]
        dense_layers(self._models[dtype])[name].weight.data.copy_(weight)
        logits = self._models[dtype](self._puzzle.inputs(self._images).to(dtype))
        return float(logits.float().logsumexp(1).mean())


def make_case(size: int) -> tuple[nn.Module, Puzzle, torch.Tensor]:
    """The network, its puzzle with all blocks and 100 labelled images, and the images."""
    config = VictimConfig(model="vgg16", width=1.0, input_size=size)
    model = build_model(config, CLASSES).eval()
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    nothing = Split(images[:0], torch.zeros(0, dtype=torch.int64))
    pirate = Split(images, torch.randint(0, CLASSES, (IMAGES,)))
    dataset = Dataset("random", CLASSES, nothing, pirate, nothing, (0.5,) * 3, (0.25,) * 3, "random", 0)
    puzzle, _ = make_puzzle(model, config, dataset, ThreatModel(images=IMAGES, knows="labels"), BLOCK, ("benchmark",))
    return model, puzzle, images


def make_evaluator(puzzle: Puzzle, device: torch.device, precision: str, memory_mb: int) -> PlacementEvaluator:
    """Ready to score: everything that is computed once is."""
    evaluator = PlacementEvaluator(
        puzzle, puzzle.images, puzzle.labels, device, precision=precision, memory_mb=memory_mb
    )
    evaluator.prepare()
    return evaluator


MATMUL_SIZE = 3072
MATMUL_FLOPS, READ_BYTES = 2.0 * MATMUL_SIZE**3, 2.0**28


def multiply(square: torch.Tensor, precision: str) -> None:
    """One large product in this precision."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    float((square @ square)[0, 0])
    torch.backends.cuda.matmul.allow_tf32 = False


def peak_gib(device: torch.device) -> float:
    """Peak memory of this process, or of the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.exit(main())
