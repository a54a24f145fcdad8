"""Time, memory and growth of the fingerprint, on layers with a leak planted in them.

A layer is noise to which products of what flows back through the next layer with what flows in are added, as training
leaves them, as strong as the noise; 100 images' inputs are correlated noise. `full` has the talk's geometry, 25088 ->
4096 in 1568 blocks of 256 x 256, `quarter` that of a quarter of its width, in as many of 64 x 64; `grown.N` are square
layers in N blocks of 16 x 16, whose times are fitted by a power of N. The peer, in the same run: scipy's linear
assignment over the same blocks and positions, which any attack that sums scores for every pair must solve once. Each
case runs in a process of its own, so that peak memory is its own.

`up.WIDTH.SIDE` are up-projections of transformers, 768 -> 3072 and 4096 -> 11008 in tiles of 128 and 256, in a network
with norms, whose partner is known and aligned: a fifth of each of its neurons is the layer's. There the evidence of a
tile is a matter of matrix products, and its peer is the one product of the layer with itself, W W^T, on this machine.

    python benchmarks/fingerprint.py [--check] [--device cuda] [--threads N]
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import torch
from grid import show
from scipy.optimize import linear_sum_assignment

from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import Surroundings
from scatterproof.blocks import BlockGrid, Layout
from scatterproof.evaluation.streams import Partner
from scatterproof.running.device import device_name, set_up

IMAGES, NEXT_OUTPUTS = 100, 512
FULL, QUARTER = BlockGrid(4096, 25088, 256, 256), BlockGrid(1024, 6272, 64, 64)
TRANSFORMERS = {768: 3072, 4096: 11008}
TILES = (128, 256)
ALIGNED = 0.2  # of a partner's weights
PRODUCTS = 60.0  # times W W^T
SIDES = (20, 40, 80, 158)  # blocks a side: 400 to 24,964
SECONDS, QUARTER_SECONDS, GIB, EXPONENT = 60.0, 10.0, 8.0, 1.6
SMALL_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        run_case(arguments)
        return 0
    print(f"device {device_name(torch.device(arguments.device)).replace(' ', '_')}")
    show("threads", arguments.threads, "threads")
    full = in_a_process("full", FULL, arguments)
    quarter = in_a_process("quarter", QUARTER, arguments)
    grown = {
        side**2: in_a_process(f"grown.{side**2}", BlockGrid(16 * side, 16 * side, 16, 16), arguments)[0]
        for side in SIDES
    }
    exponent = float(np.polyfit(np.log(list(grown)), np.log(list(grown.values())), 1)[0])
    show("grown.exponent", exponent, f"power of the number of blocks (target {EXPONENT:g})")
    missed = transformers(arguments)
    missed += [f"full: {full[0]:.0f} s"] if full[0] > SECONDS else []
    missed += [f"full: {full[1]:.1f} GiB"] if full[1] > GIB else []
    missed += [f"quarter: {quarter[0]:.0f} s"] if quarter[0] > QUARTER_SECONDS else []
    missed += [f"exponent {exponent:.2f}"] if exponent > EXPONENT else []
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return int(arguments.check and bool(missed))


def transformers(arguments: argparse.Namespace) -> list[str]:
    """The up-projections; the targets missed."""
    missed = []
    for inputs, outputs in TRANSFORMERS.items():
        for side in TILES:
            name = f"up.{inputs}.{side}"
            seconds, peak = in_a_process(name, BlockGrid(outputs, inputs, side, side), arguments, aligned=True)
            product = product_seconds(outputs, inputs, arguments)
            # of a small layer all is over before its parts are large enough for a rate
            target = max(PRODUCTS * product, SMALL_SECONDS)
            show(f"{name}.ratio", seconds / product, f"x W W^T (target {target / product:.3g})")
            missed += [f"{name}: {seconds:.1f} s"] if seconds > target else []
            missed += [f"{name}: {peak:.1f} GiB"] if peak > GIB else []
    return missed


def product_seconds(outputs: int, inputs: int, arguments: argparse.Namespace) -> float:
    """Of one product of a layer with itself, the best of three."""
    device = torch.device(arguments.device)
    set_up(device, arguments.threads)
    weight, taken = torch.randn(outputs, inputs, device=device), []
    for _ in range(3):
        started = time.perf_counter()
        float((weight @ weight.T)[0, 0])
        taken.append(time.perf_counter() - started)
    return min(taken)


def in_a_process(
    name: str, grid: BlockGrid, arguments: argparse.Namespace, aligned: bool = False
) -> tuple[float, float]:
    """Seconds of the attack and GiB at its peak; prints them with the share of blocks placed rightly."""
    case = f"{grid.outputs},{grid.inputs},{grid.height},{grid.width}"
    case += ",1" if aligned else ",0"
    options = ["--case", case, "--threads", str(arguments.threads), "--device", arguments.device]
    done = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True)
    seconds, peak, right, assignment = map(float, done.stdout.split()[-4:])
    show(f"{name}.seconds", seconds, "s")
    show(f"{name}.peak", peak, "GiB")
    show(f"{name}.placed", 100 * right, "% of the blocks rightly placed")
    if assignment >= 0:
        show(f"{name}.assignment", assignment, "s for one dense linear assignment, the peer")
    return seconds, peak


def run_case(arguments: argparse.Namespace) -> None:
    """One layer; prints seconds, GiB, the share of blocks right, and the peer's seconds (-1 above 4,096 blocks)."""
    device = torch.device(arguments.device)
    set_up(device, arguments.threads)
    generator = torch.Generator().manual_seed(0)
    *sides, aligned = map(int, arguments.case.split(","))
    grid = BlockGrid(*sides)
    mixing = torch.randn(IMAGES, 40, generator=generator) @ torch.randn(40, grid.inputs, generator=generator)
    inputs = torch.relu(mixing + torch.randn(IMAGES, grid.inputs, generator=generator))
    following = torch.randn(NEXT_OUTPUTS, grid.outputs, generator=generator) / NEXT_OUTPUTS**0.5
    back = torch.randn(IMAGES, NEXT_OUTPUTS, generator=generator) @ following
    learned = back.T @ (inputs - inputs.mean(0))
    weight = torch.randn(grid.outputs, grid.inputs, generator=generator) + learned / learned.std()
    del learned
    order = torch.randperm(grid.count, generator=generator)
    blocks = Layout({"layer": grid}).cut({"layer": weight})[order].to(device)
    partner = Partner((ALIGNED * weight + torch.randn(weight.shape, generator=generator)).to(device), "rows")
    del weight
    around = Surroundings(grid, inputs.to(device), following.to(device), torch.zeros(grid.outputs, device=device))
    if aligned:
        around = replace(around, partner=partner, normed=True)
    del partner
    shapes = grid.shapes()[order].to(device)
    started = time.perf_counter()
    placement = order
    for step in Fingerprint().placements(blocks, shapes, around):
        placement = step.placement
    seconds = time.perf_counter() - started
    assignment = -1.0
    if grid.count <= 4096:
        scores = np.random.default_rng(0).standard_normal((grid.count, grid.count))
        started = time.perf_counter()
        linear_sum_assignment(scores, maximize=True)
        assignment = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    print(seconds, peak, float((placement == order).double().mean()), assignment)


if __name__ == "__main__":
    sys.exit(main())
