"""A real search on a small puzzle, slowed down to be interrupted: `search_cell.py OUTPUT WORK SECONDS`."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import small
from scatterproof.attacks.base import Machine, Placed, Run
from scatterproof.attacks.search.base import Progress
from scatterproof.attacks.search.genetic import Genetic
from scatterproof.running.files import write_json
from scatterproof.running.interrupt import listen
from searching import snapshot_rows

BUDGET, GENERATION = 4000, 20


class Slow(Genetic):
    """Remembers its last population, on which every generation before has its part."""

    seconds: float
    last: list[float]

    def step(self, search: Progress) -> None:
        super().step(search)
        time.sleep(self.seconds * GENERATION / BUDGET)

    def _generations(self, search: Progress, checkpoint: Path | None) -> Iterator[Placed]:
        yield from super()._generations(search, checkpoint)  # none are left where the last one was stopped after
        self.last = [*search.state["fitness"].tolist(), *search.state["fillings"].flatten().tolist()]


def main() -> None:
    listen()
    output, work = Path(sys.argv[1]), Path(sys.argv[2])
    config = small.vgg()
    puzzle, _ = small.puzzle(small.network(config), config, small.dataset(), 16, images=12, knows="labels", share=1.0)
    attack = Slow(fitness="loss", population=GENERATION, evaluations=BUDGET)
    attack.seconds = float(sys.argv[3])
    run = Run(Machine(torch.device("cpu"), 1), (1,), work)
    checkpoint = work / f"{attack.file_name(puzzle, run)}.pt"
    print("goes on" if checkpoint.exists() else "starts afresh", flush=True)
    placements, rows = snapshot_rows(attack.run(puzzle, run))
    history = [[row["generation"], row["evaluations"], row["best_fitness"]] for row in rows]
    write_json(output, {"placements": placements.tolist(), "history": history, "population": attack.last})
    checkpoint.unlink()


if __name__ == "__main__":
    main()
