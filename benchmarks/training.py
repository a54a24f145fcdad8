"""Images per second of training at full width: folded, unfolded, and by a plain PyTorch loop, in one run, medians.

VGG16-BN at torchvision's width (25088 -> 4096 -> 4096 -> 100) on random images of 32 x 32, batches of 128, SGD with
Nesterov momentum. `folded` and `unfolded` are the project's own training, with `victim.train.fold: auto` and `never`;
`plain` is torchvision's network with `torch.optim.SGD` and nothing else: no augmentation, no change of layout, fp32. A
step of each in turn, so that a busy moment of the machine meets all. `rest` is the dense layers, forward and backward,
and the optimiser's step over all weights. `share_of_matmul` sets the multiplications of a folded step against the
measured rate of a large matrix product, both in bf16 where the CPU is quick at it, else in fp32.

On a machine that does other work, `--clock cpu` takes CPU seconds, in one thread: those of several would count waits.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from grid import show
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from scatterproof.config.victim import TrainConfig, VictimConfig
from scatterproof.running.device import device_name, has_fast_bf16, set_up
from scatterproof.victims.data import Dataset, Split
from scatterproof.victims.models import build_model
from scatterproof.victims.recipe.folding import fold
from scatterproof.victims.recipe.optimizer import make_optimizer
from scatterproof.victims.training import train_step
from scatterproof.victims.vision import torchvision

BATCH, CLASSES, ROUNDS = 128, 100, 3
OVER_UNFOLDED, OVER_PLAIN, REST_OVER_UNFOLDED = 1.5, 1.0, 5.0
RECIPE = TrainConfig(lr=1e-3, batch_size=BATCH, label_smoothing=0.1, precision="auto")
CONFIG = VictimConfig(model="vgg16_bn", train=RECIPE)
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Training:
    """A network and its optimiser, one step of training, and the seconds that steps and their rest took."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[], object]
    steps: list[float] = field(default_factory=list)
    rests: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--threads", type=int, help="torch threads; default all cores, with --clock cpu one")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="steps of each that are timed")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="which seconds are taken")
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and (arguments.threads or 1) > 1:
        parser.error("--clock cpu counts waits of several threads: expected --threads 1")
    threads = arguments.threads or (1 if arguments.clock == "cpu" else os.cpu_count() or 1)
    set_up(torch.device("cpu"), threads)
    torch.manual_seed(0)
    print(f"device {device_name(torch.device('cpu')).replace(' ', '_')}")
    show("threads", threads, f"threads, {arguments.clock} clock")
    show("bf16", has_fast_bf16(torch.device("cpu")), "(0 no, 1 yes)")
    show("load", os.getloadavg()[0], f"processes that run, on {os.cpu_count()} cores")
    rates, trainings = measure(arguments.rounds, CLOCKS[arguments.clock])
    return int(not report(rates, trainings) and arguments.check)


def measure(rounds: int, clock: Callable[[], float]) -> tuple[list[float], dict[str, Training]]:
    """The rates of the matrix product, FLOP/s, and the trainings with their seconds; a first round warms up."""
    dataset = images()
    trainings = {"unfolded": ours(dataset, False), "folded": ours(dataset, True), "plain": plain(dataset)}
    rates = []
    for turn in range(rounds + 1):
        rate = matmul_rate(clock)
        for name, training in trainings.items():
            step = seconds(training.step, clock)
            rest = seconds(lambda training=training: dense_part(training), clock) if name != "plain" else 0.0
            if turn:
                training.steps.append(step)
                training.rests.append(rest)
        rates += [rate] if turn else []
    return rates, trainings


def report(rates: list[float], trainings: dict[str, Training]) -> bool:
    """Print every figure; whether all targets are reached."""
    step = {name: statistics.median(training.steps) for name, training in trainings.items()}
    rest = {name: statistics.median(trainings[name].rests) for name in ("unfolded", "folded")}
    rate, needed = statistics.median(rates), flops(trainings["folded"].model)
    ratios = {
        "over_unfolded": (step["unfolded"] / step["folded"], OVER_UNFOLDED),
        "over_plain": (step["plain"] / step["folded"], OVER_PLAIN),
        "rest_over_unfolded": (rest["unfolded"] / rest["folded"], REST_OVER_UNFOLDED),
    }
    show("matmul_rate", rate / 1e9, "GFLOP/s")
    for name, taken in step.items():
        show(f"{name}.rate", BATCH / taken, "images/s")
    for name, taken in rest.items():
        show(f"{name}.rest", taken, "s a step, dense layers and optimiser")
    for name, (ratio, target) in ratios.items():
        show(f"folded.{name}", ratio, f"x (target {target:g})")
    show("folded.flops", needed / BATCH / 1e9, "GFLOP an image")
    show("folded.share_of_matmul", needed / step["folded"] / rate, "of the matmul rate")
    missed = [name for name, (ratio, target) in ratios.items() if ratio < target]
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return not missed


def images() -> Dataset:
    """One batch of noise."""
    split = Split(torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8), torch.arange(BATCH) % CLASSES)
    return Dataset("random", CLASSES, split, split, split, (0.5,) * 3, (0.25,) * 3, "random", 0)


def ours(dataset: Dataset, folded: bool) -> Training:
    model = build_model(CONFIG, CLASSES)
    if folded:
        assert fold(model, torch.randn(2, 3, 32, 32)) == {"classifier.0": 49}
    model = model.to(memory_format=torch.channels_last).train()
    optimizer, batch = make_optimizer(model, RECIPE), dataset.victim
    return Training(model, optimizer, lambda: train_step(model, optimizer, CONFIG, dataset, batch.images, batch.labels))


def plain(dataset: Dataset) -> Training:
    model = torchvision.models.vgg16_bn(num_classes=CLASSES).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RECIPE.lr, momentum=0.9, nesterov=True, weight_decay=RECIPE.weight_decay
    )
    inputs = (dataset.victim.images.float() / 255 - 0.5) / 0.25

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), dataset.victim.labels, label_smoothing=RECIPE.label_smoothing).backward()
        optimizer.step()

    return Training(model, optimizer, step)


def dense_part(training: Training) -> None:
    """The dense layers' share of a step; convolutions keep the gradients of the step before it."""
    model = training.model
    pixels = torch.randn(BATCH, 512, 1, 1, requires_grad=True)
    for parameter in model.classifier.parameters():  # type: ignore[union-attr, operator]
        parameter.grad = None
    logits = model.classifier(model.avgpool(pixels).flatten(1))  # type: ignore[operator]
    F.cross_entropy(logits, torch.arange(BATCH) % CLASSES).backward()
    training.optimizer.step()


def flops(model: nn.Module) -> int:
    """Of a step's products, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(2, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() * BATCH // 2


def matmul_rate(clock: Callable[[], float], size: int = 2048) -> float:
    """FLOP/s of a large matrix product in the precision of training, the best of three."""
    dtype = torch.bfloat16 if has_fast_bf16(torch.device("cpu")) else torch.float32
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return max(2 * size**3 / seconds(lambda: left @ right, clock) for _ in range(3))


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


if __name__ == "__main__":
    sys.exit(main())
