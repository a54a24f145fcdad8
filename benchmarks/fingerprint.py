"""Time, memory and growth of the fingerprint, on layers with a leak planted in them.

A layer is noise to which products of what flows back through the next layer with what flows in are added, as training
leaves them, as strong as the noise; 100 images' inputs are correlated noise. `full` has the talk's geometry, 25088 ->
4096 in 1568 blocks of 256 x 256, `quarter` that of a quarter of its width, in as many of 64 x 64; `grown.N` are square
layers in N blocks of 16 x 16, whose times are fitted by a power of N. The peer, in the same run: scipy's linear
assignment over the same blocks and positions, which any attack that sums scores for every pair must solve once. Each
case runs in a process of its own, so that peak memory is its own.

    python benchmarks/fingerprint.py [--check] [--device cuda] [--threads N]
"""

import argparse
import os
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from grid import show
from scipy.optimize import linear_sum_assignment

from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import Surroundings
from scatterproof.blocks import BlockGrid, Layout
from scatterproof.running.device import device_name, set_up

IMAGES, NEXT_OUTPUTS = 100, 512
FULL, QUARTER = BlockGrid(4096, 25088, 256, 256), BlockGrid(1024, 6272, 64, 64)
SIDES = (20, 40, 80, 158)  # blocks a side: 400 to 24,964
SECONDS, QUARTER_SECONDS, GIB, EXPONENT = 60.0, 10.0, 8.0, 1.6


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
    missed = [f"full: {full[0]:.0f} s"] if full[0] > SECONDS else []
    missed += [f"full: {full[1]:.1f} GiB"] if full[1] > GIB else []
    missed += [f"quarter: {quarter[0]:.0f} s"] if quarter[0] > QUARTER_SECONDS else []
    missed += [f"exponent {exponent:.2f}"] if exponent > EXPONENT else []
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return int(arguments.check and bool(missed))


def in_a_process(name: str, grid: BlockGrid, arguments: argparse.Namespace) -> tuple[float, float]:
    """Seconds of the attack and GiB at its peak; prints them with the share of blocks placed rightly."""
    case = f"{grid.outputs},{grid.inputs},{grid.height},{grid.width}"
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
    grid = BlockGrid(*map(int, arguments.case.split(",")))
    mixing = torch.randn(IMAGES, 40, generator=generator) @ torch.randn(40, grid.inputs, generator=generator)
    inputs = torch.relu(mixing + torch.randn(IMAGES, grid.inputs, generator=generator))
    following = torch.randn(NEXT_OUTPUTS, grid.outputs, generator=generator) / NEXT_OUTPUTS**0.5
    back = torch.randn(IMAGES, NEXT_OUTPUTS, generator=generator) @ following
    learned = back.T @ (inputs - inputs.mean(0))
    weight = torch.randn(grid.outputs, grid.inputs, generator=generator) + learned / learned.std()
    del learned
    order = torch.randperm(grid.count, generator=generator)
    blocks = Layout({"layer": grid}).cut({"layer": weight})[order].to(device)
    del weight
    around = Surroundings(grid, inputs.to(device), following.to(device), torch.zeros(grid.outputs, device=device))
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
