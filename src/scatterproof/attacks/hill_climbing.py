"""Hill climbing: exchanges of two blocks, each kept if it does not lower the fitness.

With `proposals="gradient"` a generation tries the exchanges that promise most to first order, from one backward pass;
with `"random"` uniformly random ones.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from scatterproof.attacks.base import Attack, Search
from scatterproof.moves import moved


@dataclass(frozen=True)
class HillClimbing(Attack):
    """`batch` exchanges a generation, `at_once` of them scored on one placement; the best one is made if it gains."""

    name = "hill_climbing"
    batch: int = 100
    at_once: int = 10
    proposals: Literal["random", "gradient"] = "random"

    @property
    def per_generation(self) -> int:
        return self.batch

    def start(self, search: Search) -> None:
        filling = search.first_filling()
        fitness = search.score(filling[None])
        search.state = {"filling": filling, "fitness": float(fitness[0])}

    def step(self, search: Search) -> None:
        filling, fitness = search.state["filling"].to(search.space.device), search.state["fitness"]
        at = search.evaluator.at(search.space.placements(filling))
        moves = self._proposals(search, filling)
        for part in moves.split(self.at_once):
            if search.left <= 0:
                break
            part = part[: search.left]
            fillings = moved(filling, part)
            found = search.offer(at.score(part), fillings)
            top = int(found.argmax())
            if float(found[top]) >= fitness:
                filling, fitness = fillings[top], float(found[top])
                at.apply(part[top])
        search.state = {"filling": filling, "fitness": fitness}

    def _proposals(self, search: Search, filling: torch.Tensor) -> torch.Tensor:
        if self.proposals == "random":
            return search.space.random_swaps(filling, self.batch, search.generator)
        changes = search.evaluator.swap_changes(search.space.placements(filling))
        empty = filling >= search.space.held
        changes.masked_fill_(empty[:, None] & empty, torch.inf)
        changes.masked_fill_(torch.ones_like(changes, dtype=torch.bool).tril_(), torch.inf)  # each exchange once
        best = changes.flatten().topk(min(self.batch, changes.numel()), largest=False)
        found = best.indices[best.values != torch.inf]
        if len(found) == 0:
            raise ValueError("no block has another position of its own shape")
        moves = torch.stack([found // len(changes), found % len(changes)], 1)
        return moves[torch.randperm(len(moves), generator=search.generator).to(moves.device)]
