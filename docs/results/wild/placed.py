"""What the fingerprint places of each projection of a sentence encoder, scattered alone, without scoring the copies.

    python docs/results/wild/placed.py MODEL PAIRS TABLE

writes a row for each projection, block size and number of sentences held: the share of the whole blocks at their place,
and the seconds. Rows that TABLE has already are kept. With --plain the fingerprint reads what it read of VGGs alone.
"""

import argparse
import csv
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import find_surroundings
from scatterproof.auditing.audited import read_victim
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import make_puzzle
from scatterproof.judging.judge import placed
from scatterproof.victims.models import find_layers

KINDS = ("intermediate", "output", "attention.self.query", "attention.self.key", "attention.self.value")
KINDS += ("attention.output",)
HEAD = ("projection", "layer", "block", "sentences", "placed", "rows", "columns", "chance", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("pairs")
    parser.add_argument("table", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="without partners, writers and exponents below zero")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    victim = read_victim(asked.model, asked.pairs, length=48)
    done = set()
    if asked.table.exists():
        with asked.table.open() as file:
            done = {tuple(row[key] for key in HEAD[:4]) for row in csv.DictReader(file)}
    else:
        asked.table.write_text(",".join(HEAD) + "\n")
    for sentences, block, kind in product((100, 0), (128, 64, 32), KINDS):
        dense = "" if "self" in kind else ".dense"
        for number, name in enumerate(find_layers(victim.model, [f"encoder.layer.*.{kind}{dense}"])):
            if (kind, str(number), str(block), str(sentences)) in done:
                continue
            config = victim.config.model_copy(update={"layer": name})
            threat = ThreatModel(images=sentences)
            puzzle, answer = make_puzzle(victim.model, config, victim.dataset, threat, block, (0, "wild", 0))
            started = time.perf_counter()
            around = find_surroundings(puzzle, name, torch.device("cpu"))
            if asked.plain:
                around = replace(around, partner=None, writing=None, normed=False)
            *_, last = Fingerprint().placements(puzzle.blocks, puzzle.shapes, around, dense=0)
            worth = placed(last, puzzle, answer)
            seconds = time.perf_counter() - started
            shares = [f"{worth[f'{key}_accuracy']:.4f}" for key in ("position", "row", "column")]
            chance = 1 / int(puzzle.layout.ambiguous().sum())
            row = [kind, number, block, sentences, *shares, f"{chance:.5f}", f"{seconds:.1f}"]
            with asked.table.open("a") as file:
                file.write(",".join(map(str, row)) + "\n")
            print(*row, flush=True)


if __name__ == "__main__":
    main()
