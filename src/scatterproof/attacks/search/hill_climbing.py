"""Hill climbing: exchanges of two blocks, each kept if it does not lower the fitness.

With `proposals="gradient"` a generation tries the exchanges that promise most to first order, from one backward pass
that counts as one evaluation; after a generation without a gain, random ones. With `"random"` always uniformly random.
"""

import torch

from scatterproof.attacks.proposals import best_swaps
from scatterproof.attacks.search.base import Progress, SearchAttack
from scatterproof.config.settings.search import ClimbSettings
from scatterproof.evaluation.moves import moved


class HillClimbing(SearchAttack[ClimbSettings]):
    """`batch` exchanges a generation, `at_once` of them scored on one placement; the best one is made if it gains."""

    name = "hill_climbing"
    Settings = ClimbSettings

    def start(self, search: Progress) -> None:
        filling = search.first_filling()
        fitness = search.score(filling[None])
        search.state = {"filling": filling, "fitness": float(fitness[0]), "stuck": False}

    def step(self, search: Progress) -> None:
        filling, fitness = search.state["filling"].to(search.space.device), search.state["fitness"]
        before = fitness
        moves = self._proposals(search, filling)
        at = search.evaluator.at(search.space.placements(filling))
        for part in moves.split(self.settings.at_once):
            if search.left <= 0:
                break
            part = part[: search.left]
            fillings = moved(filling, part)
            fitnesses = search.offer(at.score(part), fillings)
            top = int(fitnesses.argmax())
            if float(fitnesses[top]) >= fitness:
                filling, fitness = fillings[top], float(fitnesses[top])
                at.apply(part[top])
        search.state = {"filling": filling, "fitness": fitness, "stuck": fitness <= before}

    def _proposals(self, search: Progress, filling: torch.Tensor) -> torch.Tensor:
        if self.settings.proposals == "random" or search.state.get("stuck", False):
            return search.space.random_swaps(filling, self.settings.batch, search.generator)
        search.evaluations += 1
        moves = best_swaps(search.evaluator, search.space.placements(filling), self.settings.batch)
        return moves[torch.randperm(len(moves), generator=search.generator).to(moves.device)]
