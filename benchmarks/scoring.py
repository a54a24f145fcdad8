"""What the scoring of a study of four threats takes: in one pass, each distinct network once, against one by one.

A ViT of 4 layers (patches of 4 x 4 on 32 x 32 pixels, 192 wide, random weights) is the victim, its first feed-forward
layer of 192 -> 768 is cut into blocks of 32 x 32, and test images are random, as many as CIFAR-100 has. Under each
threat, all blocks or half of them held, 100 or 1,000 images, `nothing`, `borrow`, `probe`, `layer` and a fingerprint
have reached something: the fingerprint in eight steps, the median of those published here, to every block in its place
on 1,000 images, to all but two on 100. Nothing is attacked: only scoring is timed.

`one_by_one` is how it was scored before: every step on all test images, each alone, placements and layers behind the
features of the layers before, held for all images, 2,000 images at once, any other network as a whole. Both must find
the same of what counts, the last steps. `--images` below 10,000 scores earlier steps on a fifth of them, as of 10,000.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from grid import show
from torch import nn
from torch.nn import functional as F

from scatterproof.attacks.base import Copy, Placed, Reached, Snapshot
from scatterproof.attacks.training.probing import probe_config, probe_tensors
from scatterproof.blocks import factors, input_shares, invert, lines_of
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import logits_on, make_puzzle
from scatterproof.evaluation import predictions
from scatterproof.evaluation.split import features, split_at
from scatterproof.judging.judge import Judge, copied, rows_together
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.device import device_name, set_up
from scatterproof.victims.data import Dataset, Split
from scatterproof.victims.models import build_model, dense_layers
from scatterproof.victims.vision import torchvision

IMAGES, CLASSES, BLOCK, STEPS, CHUNK = 10_000, 100, 32, 8, 2000
LAYER = "encoder.layers.encoder_layer_0.mlp.0"
TARGET, SAME = 0.25, 5e-4  # of the time; of the test images, for logits that are equal but for rounding
CPU = torch.device("cpu")

Reachings = Mapping[str, list[Snapshot]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--images", type=int, default=IMAGES, help="test images")
    parser.add_argument("--layers", type=int, default=4, help="of the ViT")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads")
    parser.add_argument("--small", action="store_true", help="40 images, one layer: to be tried in seconds")
    arguments = parser.parse_args()
    images, layers = (40, 1) if arguments.small else (arguments.images, arguments.layers)
    predictions.SAMPLE = min(predictions.SAMPLE, images // 5)
    set_up(CPU, arguments.threads)
    print(f"device {device_name(CPU).replace(' ', '_')}")
    show("threads", arguments.threads, "threads")
    show("test_images", images, "images")
    victim, dataset, study = make_study(images, layers)
    show("steps", sum(len(steps) for *_, reached in study for steps in reached.values()), "networks to score")
    missed = measure(victim, dataset, study)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return int(arguments.check and bool(missed))


def measure(victim: nn.Module, dataset: Dataset, study: list[tuple[Puzzle, Answer, Reachings]]) -> list[str]:
    """Print what both ways take; the targets that were missed."""
    together, seconds = timed(lambda: score_together(victim, dataset, study))
    alone, seconds_alone = timed(lambda: list(score_one_by_one(victim, dataset, study)))
    for kind, (new, old) in enumerate(zip(seconds, seconds_alone, strict=True)):
        what = ("seconds", "cpu_seconds")[kind]
        show(f"one_pass.{what}", new, "s")
        show(f"one_by_one.{what}", old, "s")
        show(f"share_of_{what}", new / old, f"of one by one{f' (target {TARGET:g})' if kind == 0 else ''}")
    pairs = [(row, other) for row, other in zip(together, alone, strict=True) if row["last"]]
    difference = max(abs(row[key] - other[key]) for row, other in pairs for key in ("accuracy", "fidelity"))
    show("difference", difference, f"of the test images at most, in what counts (target {SAME:g})")
    missed = ["share_of_seconds"] if seconds[0] > TARGET * seconds_alone[0] else []
    return missed + (["difference"] if difference > max(SAME, 1 / len(dataset.test)) else [])


def timed(work: Any) -> tuple[Any, tuple[float, float]]:
    """What it gives; its seconds by the clock and of all cores."""
    started, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, (time.perf_counter() - started, time.process_time() - cpu)


def score_together(
    victim: nn.Module, dataset: Dataset, study: list[tuple[Puzzle, Answer, Reachings]]
) -> list[dict[str, Any]]:
    """As a study's job does."""
    judged: list[tuple[Judge, Reachings]] = []
    for puzzle, answer, reached in study:
        judge = judged[-1][0].of(puzzle, answer) if judged else Judge(puzzle, answer, victim, dataset, CPU)
        judged.append((judge, reached))
    return [row for rows in rows_together(judged) for row in rows if row["role"] != "ceiling"]


def score_one_by_one(
    victim: nn.Module, dataset: Dataset, study: list[tuple[Puzzle, Answer, Reachings]]
) -> Iterator[dict[str, Any]]:
    """As it was done before: accuracy and fidelity of each step, and under each threat of the true places as well."""
    test = dataset.test
    own = logits_on(victim, study[0][0].config, dataset, test.images).argmax(1)
    alone = OneByOne(study[0][0], dataset)
    for puzzle, answer, reached in study:
        in_place = answer.placement.positions
        alone.classes(puzzle, Placed(in_place, in_place[:, None], torch.ones(len(in_place), 1)))
        for steps in reached.values():
            for number, snapshot in enumerate(steps):
                classes = alone.classes(puzzle, snapshot.reached)
                accuracy, fidelity = (float((classes == other).double().mean()) for other in (test.labels, own))
                yield {"accuracy": accuracy, "fidelity": fidelity, "last": number == len(steps) - 1}


class OneByOne:
    """The features before the layer, of all images, and everything else for each network alone."""

    def __init__(self, puzzle: Puzzle, dataset: Dataset) -> None:
        model = puzzle.model()
        self._split, self._dataset = split_at(model, [LAYER]), dataset
        self._bias = dense_layers(model)[LAYER].bias.detach()
        made = features(self._split, (puzzle.inputs(part) for part in dataset.test.images.split(500)))
        assert made is not None
        self._features = made

    def classes(self, puzzle: Puzzle, reached: Reached) -> torch.Tensor:
        """int64 [images]: what the network that was reached predicts."""
        if isinstance(reached, Copy) and reached.tensors.keys() != {f"{LAYER}.weight"}:
            config = reached.config or puzzle.config
            return logits_on(copied(reached, puzzle), config, self._dataset, self._dataset.test.images).argmax(1)
        weight, scale = self._layer(puzzle, reached)
        with torch.inference_mode():
            chunks = zip(*(feature.split(CHUNK) for feature in self._features), strict=True)
            logits = [
                self._split.tail(F.linear(part, weight) * scale + self._bias, *around) for part, *around in chunks
            ]
        return torch.cat(logits).argmax(1)

    def _layer(self, puzzle: Puzzle, reached: Reached) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's weight, and what its sums are multiplied by."""
        if isinstance(reached, Copy):
            weight = reached.tensors[f"{LAYER}.weight"]
            return weight, torch.ones(len(weight))
        block_at = invert(reached.placement, puzzle.layout.positions)
        shares = input_shares(puzzle.layout, block_at)[LAYER]
        return puzzle.layout.assemble(lines_of(puzzle.blocks), block_at)[LAYER], factors(shares)


def make_study(images: int, layers: int) -> tuple[nn.Module, Dataset, list[tuple[Puzzle, Answer, Reachings]]]:
    """The victim, the data, and for each threat the puzzle, its answer and what was reached."""
    torch.manual_seed(0)
    config = VictimConfig(model="scoring:vit", model_args={"layers": layers}, layer=LAYER)
    victim, base = (build_model(config, CLASSES).eval() for _ in range(2))
    for model in (victim, base):
        nn.init.normal_(model.get_submodule("heads")[0].weight)  # torchvision begins with zeros
    dataset = random_images(images)
    study = []
    for share in (1.0, 0.5):
        for granted in (100, 1000):
            threat = ThreatModel(share=share, images=granted, knows="labels", base_model=True)
            puzzle, answer = make_puzzle(victim, config, dataset, threat, BLOCK, ("benchmark",), base)
            study.append((puzzle, answer, reached_on(puzzle, answer, whole=granted == 1000)))
    return victim, dataset, study


def random_images(test: int) -> Dataset:
    """So many to test on, and 1,000 of the pirate."""

    def split(count: int) -> Split:
        return Split(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % CLASSES)

    return Dataset("random", CLASSES, split(0), split(1000), split(test), (0.5,) * 3, (0.25,) * 3, "random", 0)


def reached_on(puzzle: Puzzle, answer: Answer, whole: bool) -> Reachings:
    """What the attacks have reached. whole: whether the fingerprint ends with every block in its place."""
    assert puzzle.base is not None
    weight = puzzle.base[LAYER]
    probe = 0.01 * torch.randn(CLASSES, weight.shape[1] * (1 + (32 // 4) ** 2))
    tensors = probe_tensors(puzzle, probe, torch.zeros(CLASSES))
    reached: dict[str, list[Reached]] = {
        "nothing": [Copy({})],
        "borrow": [Copy({f"{LAYER}.weight": weight})],
        "probe": [Copy(tensors, probe_config(puzzle, probe.shape[1]))],
        "layer": [Copy({f"{LAYER}.weight": weight.std() * torch.randn(weight.shape)})],
        "fingerprint": list(fingerprint(answer.placement.positions, whole)),
    }
    return {name: [Snapshot(0.1, each) for each in steps] for name, steps in reached.items()}


def fingerprint(truth: torch.Tensor, whole: bool) -> Iterator[Placed]:
    """Placements of which ever more blocks are right."""
    count = len(truth)
    for step in range(1, STEPS + 1):
        wrong = torch.randperm(count)[: count * (STEPS - step) // STEPS]
        if step == STEPS and not whole:
            wrong = torch.randperm(count)[:2]
        placement = truth.clone()
        placement[wrong] = placement[wrong.roll(1)]
        yield Placed(placement, placement[:, None], torch.ones(count, 1))


def vit(classes: int = CLASSES, layers: int = 4, hidden: int = 192) -> nn.Module:
    """float [n, 3, 32, 32] -> logits; heads of 64, 65 tokens, feed-forward layers four times as wide."""
    network: nn.Module = torchvision.models.VisionTransformer(
        32, 4, layers, hidden // 64, hidden, 4 * hidden, num_classes=classes
    )
    return network


if __name__ == "__main__":
    sys.exit(main())
