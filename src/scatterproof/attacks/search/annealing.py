"""Simulated annealing over exchanges of two blocks (Kirkpatrick, Gelatt and Vecchi, Science 220, 1983).

`at_once` proposals are scored on one placement and taken in order until one is accepted; the rest of them is lost, and
counted (speculative moves: Witte, Chamberlain and Franklin, IEEE TPDS 2(4), 1991). The chain is that of one proposal
at a time.
"""

import torch

from scatterproof.attacks.search.base import Progress, SearchAttack
from scatterproof.config.settings.search import AnnealSettings
from scatterproof.evaluation.moves import moved


class Annealing(SearchAttack[AnnealSettings]):
    """The temperature falls geometrically from `hot` to `cold` times the spread of the first `batch` exchanges'
    fitness changes, over the budget."""

    name = "annealing"
    Settings = AnnealSettings

    def start(self, search: Progress) -> None:
        filling = search.first_filling()
        fitness = float(search.score(filling[None])[0])
        spread = self._spread(search, filling, fitness) if search.left > 0 else 0.0
        search.state = {"filling": filling, "fitness": fitness, "spread": spread}

    def step(self, search: Progress) -> None:
        filling, fitness = search.state["filling"].to(search.space.device), search.state["fitness"]
        at = search.evaluator.at(search.space.placements(filling))
        done = 0
        while done < self.settings.batch and search.left > 0:
            count = min(self.settings.at_once, self.settings.batch - done, search.left)
            temperature = self._temperature(search)
            moves = search.space.random_swaps(filling, count, search.generator)
            threshold = torch.rand(count, generator=search.generator, dtype=torch.float64).log() * temperature
            fillings = moved(filling, moves)
            fitnesses = search.offer(at.score(moves), fillings)
            done += count
            accepted = (fitnesses - fitness >= threshold).nonzero().flatten()
            if len(accepted):
                chosen = int(accepted[0])
                filling, fitness = fillings[chosen], float(fitnesses[chosen])
                at.apply(moves[chosen])
        search.state |= {"filling": filling, "fitness": fitness}

    def _spread(self, search: Progress, filling: torch.Tensor, fitness: float) -> float:
        """Root mean square of the changes by the first `batch` exchanges."""
        moves = search.space.random_swaps(filling, min(self.settings.batch, search.left), search.generator)
        fitnesses = search.offer(
            search.evaluator.at(search.space.placements(filling)).score(moves), moved(filling, moves)
        )
        return float((fitnesses - fitness).square().mean().sqrt())

    def _temperature(self, search: Progress) -> float:
        share = search.evaluations / search.budget
        return float(search.state["spread"] * self.settings.hot * (self.settings.cold / self.settings.hot) ** share)
