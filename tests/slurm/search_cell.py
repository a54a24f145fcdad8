"""A real search on a small puzzle, slowed down to be interrupted: `search_cell.py OUTPUT CHECKPOINT SECONDS`."""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import small
from scatterproof.attacks import ATTACKS
from scatterproof.attacks.search.base import Machine, Search
from scatterproof.running.files import write_json
from scatterproof.running.interrupt import listen

BUDGET, GENERATION = 4000, 20


def main() -> None:
    listen()
    output, checkpoint, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    config = small.vgg()
    puzzle, _ = small.puzzle(small.network(config), config, small.dataset(), 16, images=12, knows="labels", share=1.0)
    attack = ATTACKS["genetic"](images=12, fitness="loss", population=GENERATION)
    step = type(attack).step

    def slow(self: object, search: Search) -> None:
        step(self, search)
        time.sleep(seconds * GENERATION / BUDGET)

    type(attack).step = slow  # type: ignore[method-assign]
    print("goes on" if checkpoint.exists() else "starts afresh", flush=True)
    result = attack.run(puzzle, BUDGET, (1,), Machine(torch.device("cpu"), 1), checkpoint)
    history = [row["best_fitness"] for row in result.history]
    write_json(output, {"placements": result.placements.tolist(), "history": history})
    checkpoint.unlink()


if __name__ == "__main__":
    main()
