"""Random search: fresh uniformly random placements, the best kept. What any search must beat at equal evaluations."""

from scatterproof.attacks.search.base import Progress, SearchAttack
from scatterproof.config.settings.search import RandomSettings


class RandomSearch(SearchAttack[RandomSettings]):
    """`batch` placements a generation."""

    name = "random"
    Settings = RandomSettings

    def start(self, search: Progress) -> None:
        if search.given is not None:
            search.score(search.given[None])
        if search.left > 0:
            self.step(search)

    def step(self, search: Progress) -> None:
        search.score(search.space.random(min(self.settings.batch, search.left), search.generator))
