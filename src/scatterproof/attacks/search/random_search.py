"""Random search: fresh uniformly random placements, the best kept. What any search must beat at equal evaluations."""

from dataclasses import dataclass

from scatterproof.attacks.search.base import Attack, Search


@dataclass(frozen=True)
class RandomSearch(Attack):
    """`batch` placements a generation."""

    name = "random"
    batch: int = 100

    @property
    def per_generation(self) -> int:
        return self.batch

    def start(self, search: Search) -> None:
        if search.given is not None:
            search.score(search.given[None])
        if search.left > 0:
            self.step(search)

    def step(self, search: Search) -> None:
        search.score(search.space.random(min(self.batch, search.left), search.generator))
