"""The talk's search at full size: population 100 on 100 images, 2,000 evaluations of its 10,000, on this machine.

VGG16 at torchvision's width with random weights, its layer of 25088 -> 4096 cut into 1568 blocks of 256 x 256. Measured
from the puzzle in memory to the last generation, set-up included. Then the same run is killed with SIGKILL on its way
and started again by the same command: its placements and fitness must be those of the first, bit for bit.

The peer is the naive way that `evaluate` measures, in the same run, set-up not included; the talk's own figure, 30 s an
evaluation on an RTX 4060, stands beside. `--evaluations 10000` is the whole search.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from evaluate import Naive, make_case
from grid import show, timed
from torch import nn

from scatterproof.attacks.base import Machine, Placed, Run, Snapshot
from scatterproof.attacks.search.base import Progress
from scatterproof.attacks.search.genetic import Genetic
from scatterproof.puzzle import Puzzle
from scatterproof.running.device import has_fast_bf16, set_up

POPULATION, EVALUATIONS, TALK_SECONDS = 100, 2000, 30.0
RATIO = {"bf16": 10.0, "fp32": 4.0}  # to the naive way, by precision
NAIVE = 3  # evaluations the naive way, after one that is not counted


class Watched(Genetic):
    """Remembers its last population, on which every generation before has its part."""

    last: dict[str, torch.Tensor]

    def step(self, search: Progress) -> None:
        super().step(search)
        self.last = search.state


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where it takes longer, or a resume differs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads")
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], help="default bf16 where the device is quick at it, else fp32"
    )
    parser.add_argument("--fitness", default="accuracy", choices=["accuracy", "loss"])
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    parser.add_argument("--folder", type=Path, help="run once, with the checkpoint there; what the others are made of")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        run_once(arguments)
        return 0
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        whole = finish(start(Path(first)), Path(first))
        show("search.minutes", whole["minutes"], "minutes")
        show("search.evaluation", 1000 * 60 * whole["minutes"] / arguments.evaluations, "ms each, set-up included")
        ratio = TALK_SECONDS * arguments.evaluations / 60 / whole["minutes"]
        show("search.ratio_to_talk", ratio, "x the talk's 30 s an evaluation, which were a GPU's")
        target = RATIO["bf16" if arguments.precision != "fp32" and has_fast_bf16(torch.device("cpu")) else "fp32"]
        naive = arguments.evaluations * whole["naive_seconds"] / 60 / whole["minutes"]
        show("search.ratio_to_naive", naive, f"x the naive way (target {target:g})")
        killed = kill_on_the_way(Path(second))
        show("search.killed_at", killed, "evaluations")
        resumed = finish(start(Path(second)), Path(second))
        same = resumed["digest"] == whole["digest"]
        show("search.resumed_equals", float(same), "(0 no, 1 yes)")
    missed = naive < target or not same or killed == 0
    return int(arguments.check and missed)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """This script again, for one run in `folder`."""
    return subprocess.Popen([sys.executable, *sys.argv, "--folder", str(folder)])


def finish(process: subprocess.Popen[bytes], folder: Path) -> dict[str, float]:
    if process.wait():
        raise SystemExit(f"the search ended with status {process.returncode}")
    figures: dict[str, float] = json.loads((folder / "result.json").read_text())
    return figures


def kill_on_the_way(folder: Path) -> int:
    """Start, kill after the third checkpoint; the evaluations done by then."""
    process, seen = start(folder), set[int]()
    while process.poll() is None and len(seen) < 3:
        time.sleep(0.2)
        seen |= {checkpoint.stat().st_mtime_ns for checkpoint in folder.glob("*.pt")}
    process.kill()
    process.wait()
    (checkpoint,) = folder.glob("*.pt")
    state = torch.load(checkpoint, weights_only=True)
    return int(state["evaluations"]) if not (folder / "result.json").exists() else 0


def run_once(arguments: argparse.Namespace) -> None:
    """The search in this process."""
    device = torch.device("cpu")
    arguments.precision = arguments.precision or ("bf16" if has_fast_bf16(device) else "fp32")
    set_up(device, arguments.threads)
    torch.manual_seed(0)
    model, puzzle, images = make_case(32)
    naive = naive_seconds(model, puzzle, images)
    attack = Watched(population=POPULATION, fitness=arguments.fitness, evaluations=arguments.evaluations)
    machine = Machine(device, arguments.threads, arguments.precision, memory_mb=8000)
    snapshots = attack.run(puzzle, Run(machine, (0,), arguments.folder))
    about = {"naive_seconds": naive, "minutes": snapshots[-1].minutes, "digest": digest(snapshots, attack.last)}
    (arguments.folder / "result.json").write_text(json.dumps(about))


def naive_seconds(model: nn.Module, puzzle: Puzzle, images: torch.Tensor) -> float:
    """Of one evaluation: the network put together, and run as a whole; the median."""
    naive, placement = Naive(model, puzzle, images, torch.device("cpu")), torch.randperm(len(puzzle.blocks))
    taken = [timed(lambda: naive.run(placement, torch.float32))[1] for _ in range(1 + NAIVE)]
    return statistics.median(taken[1:])


def digest(snapshots: list[Snapshot], last: dict[str, torch.Tensor]) -> str:
    """Of the placements kept, when they were reached, their fitness and the last population, to the last bit."""
    digest = hashlib.sha256(last["fillings"].numpy().tobytes() + last["fitness"].numpy().tobytes())
    for snapshot in snapshots:
        reached = snapshot.reached
        assert isinstance(reached, Placed) and reached.fitness is not None
        digest.update(reached.placement.numpy().tobytes())
        digest.update(json.dumps([reached.generation, reached.evaluations, reached.fitness.hex()]).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
