"""The searches' controls: what each must find, and what it must not.

planted   a 4 x 4 puzzle (16! placements) of a small network on real digits, 10 victims: the genetic search and PPO must
          solve it (end at no less than 95 % of the victims' test accuracy, in the mean; how many of the victims are
          solved, and solved at the end, is printed), and sooner than random search: Mann-Whitney's test on
          the evaluations at which 95 % was reached, the budget plus one where it never was.
halved    a VGG16 of 1/16 width on digits, its layer in 16 x 98 blocks, 5 victims: blocks are displaced until its test
          accuracy is halved; hill climbing and annealing on the loss must bring back 95 % of the victim's. Then from
          more displaced blocks, up to all: from where on each no longer does within the same evaluations.
nothing   the same network untrained, 5 of them: no search may gain anything on test images. And, no control but worth
          knowing, the trained network with its layer drawn anew: a gain there is the search fitting the layer to the
          pirate's images, and finds no place.
          With `--npz FILE` (CIFAR-100, say) untrained networks on those images instead, with 100 labelled ones: ten
          classes of digits are so easy that labels alone fit a random layer a little, a hundred classes are not.

Gains are test accuracy less the start's, on images that no search saw; intervals are 95 %, over victims (Student's t).
Fitness is the cross-entropy on the 297 images of the pirate's. Everything runs on the CPU in one thread.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from grid import show
from scipy import stats

from scatterproof.attacks.base import Machine, Placed, Run
from scatterproof.attacks.search.annealing import Annealing
from scatterproof.attacks.search.base import SearchAttack
from scatterproof.attacks.search.genetic import Genetic
from scatterproof.attacks.search.hill_climbing import HillClimbing
from scatterproof.attacks.search.random_search import RandomSearch
from scatterproof.attacks.search.reinforce import Reinforce
from scatterproof.blocks import Placement
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import TrainConfig, VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.control_victims import displaced, halving_count, with_random_layers
from scatterproof.puzzle import Answer, Puzzle, with_images
from scatterproof.running.seeds import seed_of
from scatterproof.victims.data import Dataset, read_dataset
from scatterproof.victims.models import build_model
from scatterproof.victims.training import train_victim

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from planted import planted_puzzle

MACHINE = Machine(torch.device("cpu"), 1)
IMAGES, SOLVED, LEVEL, NO_GAIN, A_FIFTH = 297, 0.95, 0.01, 0.02, 0.002
PLANTED_SEEDS = range(100, 110)  # none of them used to choose a default
PLANTED_BUDGET, BUDGET = 20_000, 5_000
CONFIG = VictimConfig(
    model="vgg16_bn",
    width=1 / 16,
    dropout=0.0,
    train=TrainConfig(lr=0.05, epochs=12, schedule="onecycle", augment="crop"),
)
DISPLACED = (0.25, 0.5, 0.75, 0.9, 1.0)
CLIMBERS: dict[str, SearchAttack[Any]] = {
    "hill_climbing": HillClimbing(),
    "annealing": Annealing(),
}
SEARCHES: dict[str, SearchAttack[Any]] = {
    **CLIMBERS,
    "genetic": Genetic(),
    "reinforce": Reinforce(),
    "random": RandomSearch(),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a control fails")
    parser.add_argument("--only", choices=["planted", "halved", "nothing"], help="one part")
    parser.add_argument("--seeds", type=int, default=5, help="victims of `halved` and `nothing`")
    parser.add_argument("--npz", help="`nothing` alone, untrained networks on the images of this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    missed = []
    if arguments.npz:
        missed += nothing_on(arguments.npz, arguments.seeds)
        arguments.only = "none"
    if arguments.only in (None, "planted"):
        missed += planted()
    if arguments.only in (None, "halved", "nothing"):
        dataset = read_dataset(DatasetConfig(kind="digits"))
        victims = [trained(seed, dataset) for seed in range(arguments.seeds)]
        missed += halved(victims, dataset) if arguments.only in (None, "halved") else []
        missed += nothing(victims, dataset) if arguments.only in (None, "nothing") else []
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return int(arguments.check and bool(missed))


def untrained(config: VictimConfig, classes: int, seed: int) -> torch.nn.Module:
    """The network as it is before training: no placement of its blocks is better founded than another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("untrained", seed))
        return build_model(config, classes).eval()


def planted() -> list[str]:
    """Who solves the planted puzzle, and when."""
    reached: dict[str, list[int]] = {name: [] for name in ("genetic", "reinforce", "random")}
    ends: dict[str, list[float]] = {name: [] for name in reached}
    for seed in PLANTED_SEEDS:
        puzzle, answer, dataset = planted_puzzle(seed)
        test = on(puzzle, dataset)
        own = accuracy(test, answer.placement)
        for name, taken in reached.items():
            steps = reached_by(SEARCHES[name], puzzle, PLANTED_BUDGET, ("planted", seed))
            placements = torch.stack([each.placement for each in steps])
            shares = [float(each) / own for each in test.score_population(placements).accuracy]
            solved = [each.evaluations for each, share in zip(steps, shares, strict=True) if share >= SOLVED]
            taken.append(solved[0] if solved else PLANTED_BUDGET + 1)
            ends[name].append(shares[-1])
    missed = []
    for name, taken in reached.items():
        show(f"planted.{name}.solved", sum(each <= PLANTED_BUDGET for each in taken), f"of {len(taken)} victims")
        show(f"planted.{name}.solved_at_the_end", sum(end >= SOLVED for end in ends[name]), f"of {len(taken)} victims")
        show(f"planted.{name}.end", 100 * statistics.mean(ends[name]), "% of the victim's accuracy, at the end")
        show(f"planted.{name}.evaluations", statistics.median(taken), "evaluations until solved, median")
        if name != "random":
            p = float(stats.mannwhitneyu(taken, reached["random"], alternative="less").pvalue)
            show(f"planted.{name}.sooner_than_random.p", p, f"(target below {LEVEL:g})")
            missed += [] if p < LEVEL and statistics.mean(ends[name]) >= SOLVED else [f"planted.{name}"]
    return missed


def reached_by(
    attack: SearchAttack[Any], puzzle: Puzzle, budget: int, key: tuple[int | str, ...], start: Placement | None = None
) -> list[Placed]:
    """What a search reaches within so many evaluations, at the costs that it keeps."""
    limited = type(attack)(attack.settings.model_copy(update={"evaluations": budget}))
    reached = [snapshot.reached for snapshot in limited.run(puzzle, Run(MACHINE, key, start=start))]
    return [each for each in reached if isinstance(each, Placed)]


Victim = tuple[torch.nn.Module, Puzzle, Answer]


def halved(victims: Sequence[Victim], dataset: Dataset) -> list[str]:
    """Which displaced starts hill climbing and annealing bring back."""
    missed = []
    tests = [on(puzzle, dataset) for _, puzzle, _ in victims]
    answers = [answer for _, _, answer in victims]
    counts = [halving_count(test, answer, (i,)) for i, (test, answer) in enumerate(zip(tests, answers, strict=True))]
    show("halved.displaced", statistics.mean(counts), f"of {len(victims[0][1].blocks)} blocks halve the test accuracy")
    for name, attack in CLIMBERS.items():
        rows = climb(attack, victims, tests, counts)
        missed += [] if report(f"halved.{name}", rows) else [f"halved.{name}"]
        for share in DISPLACED:
            held = [round(share * len(puzzle.blocks)) for _, puzzle, _ in victims]
            report(f"displaced.{100 * share:g}_percent.{name}", climb(attack, victims, tests, held))
    return missed


def climb(
    attack: SearchAttack[Any], victims: Sequence[Victim], tests: Sequence[PlacementEvaluator], counts: Sequence[int]
) -> list[tuple[float, float, float]]:
    """Test accuracy of the victim, of the start with so many blocks displaced, and at the end, for each victim."""
    rows = []
    for i, ((_, puzzle, answer), test, count) in enumerate(zip(victims, tests, counts, strict=True)):
        start = displaced(answer, count, (i,))
        reached = reached_by(attack, puzzle, BUDGET, ("halved", i), start)
        rows.append((accuracy(test, answer.placement), accuracy(test, start), end(test, reached)))
    return rows


def report(name: str, rows: Sequence[tuple[float, float, float]]) -> bool:
    """Print start, end and gain; whether the mean end is at least 95 % of the victims' mean."""
    own, start, reached = (statistics.mean(column) for column in zip(*rows, strict=True))
    low, high = interval([last - first for _, first, last in rows])
    show(f"{name}.start", 100 * start / own, "% of the victim's accuracy")
    show(f"{name}.end", 100 * reached / own, f"% of the victim's accuracy (target {100 * SOLVED:g} from halved)")
    show(f"{name}.gain", 100 * (reached - start), f"points [{100 * low:.1f}, {100 * high:.1f}]")
    return reached >= SOLVED * own


def nothing(victims: Sequence[Victim], dataset: Dataset) -> list[str]:
    """Gains where nothing can be found, and where only the layer holds nothing."""
    missed = []
    for name, attack in SEARCHES.items():
        gains: dict[str, list[float]] = {"untrained": [], "layer_drawn_anew": []}
        for seed, (model, own, _) in enumerate(victims):
            networks = {
                "untrained": untrained(CONFIG, dataset.classes, seed),
                "layer_drawn_anew": with_random_layers(model, own.layout.grids, (seed,)),
            }
            for kind, network in networks.items():
                gains[kind].append(gain(attack, network, dataset, seed))
        for kind, own in gains.items():
            low, high = interval(own)
            show(f"{kind}.{name}.gain", 100 * statistics.mean(own), f"points [{100 * low:.1f}, {100 * high:.1f}]")
        if interval(gains["untrained"])[0] > 0 and statistics.mean(gains["untrained"]) > NO_GAIN:
            missed.append(f"untrained.{name}")
    return missed


def gain(
    attack: SearchAttack[Any], network: torch.nn.Module, dataset: Dataset, seed: int, images: int = IMAGES
) -> float:
    """Test accuracy that an attack gains over a start with every block displaced."""
    puzzle, answer = cut(network, dataset, seed)
    test, start = on(puzzle, dataset), displaced(answer, len(puzzle.blocks), (seed,))
    reached = reached_by(attack, with_images(puzzle, images), BUDGET, ("nothing", seed), start)
    return end(test, reached) - accuracy(test, start)


def nothing_on(npz: str, seeds: int) -> list[str]:
    """Gains on untrained networks with a hundred labelled images of another dataset: their upper bounds at most a
    fifth of a point."""
    dataset = read_dataset(DatasetConfig(kind="npz", path=npz))
    missed = []
    for name, attack in SEARCHES.items():
        gains = [gain(attack, untrained(CONFIG, dataset.classes, seed), dataset, seed, 100) for seed in range(seeds)]
        low, high = interval(gains)
        show(
            f"untrained.{dataset.name}.{name}.gain",
            100 * statistics.mean(gains),
            f"points [{100 * low:.2f}, {100 * high:.2f}]",
        )
        missed += [f"untrained.{dataset.name}.{name}"] if high > A_FIFTH else []
    return missed


def trained(seed: int, dataset: Dataset) -> Victim:
    with TemporaryDirectory() as folder:
        model = train_victim(CONFIG, seed, dataset, MACHINE.device, 1, Path(folder, "checkpoint")).model
    return model, *cut(model, dataset, seed)


def cut(model: torch.nn.Module, dataset: Dataset, seed: int) -> tuple[Puzzle, Answer]:
    threat = ThreatModel(images=IMAGES, knows="labels")
    return make_puzzle(model, CONFIG, dataset, threat, 16, ("controls", seed))


def on(puzzle: Puzzle, dataset: Dataset) -> PlacementEvaluator:
    """An evaluator on the test images."""
    return PlacementEvaluator(puzzle, dataset.test.images, dataset.test.labels, MACHINE.device)


def accuracy(test: PlacementEvaluator, placement: Placement) -> float:
    return float(test.score(placement.positions[None]).accuracy)


def end(test: PlacementEvaluator, reached: Sequence[Placed]) -> float:
    return float(test.score(reached[-1].placement[None]).accuracy)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean, Student's t over victims."""
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    width: Any = stats.t.ppf(0.975, len(values) - 1)
    return mean - width * error, mean + width * error


if __name__ == "__main__":
    sys.exit(main())
