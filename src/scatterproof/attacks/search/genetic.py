"""A genetic algorithm over permutations (Holland 1975; operators: `permutations`).

A generation breeds as many children as the population counts: tournaments choose the parents, each two have two
children, some of which mutate. Blocks never leave the positions of their own shape: a crossover works on every shape
by itself, a mutation on one. Empty places are genes like others, each with a number of its own.

Blocks have absolute positions, as in assignment problems: cycle and partially mapped crossover keep most of them and
get further on the planted puzzle than order crossover, which was made for tours and shifts what it does not keep.
"""

from itertools import pairwise

import torch

from scatterproof.attacks.search.base import Progress, SearchAttack
from scatterproof.attacks.search.permutations import CROSSOVERS, MUTATIONS, random_segments
from scatterproof.attacks.search.space import PlacementSpace
from scatterproof.config.settings.search import GeneticSettings


class Genetic(SearchAttack[GeneticSettings]):
    """The next population is the best `population` of the children and of the best `elite` share of the parents.

    elite = 1 is the (mu + lambda) survival of pymoo's GA, 0 the generational one, which may lose its best.
    crossover_rate: chance of a pair of parents to be crossed, else they are copied; mutation_rate: chance of a child to
    mutate; tournament: how many compete to be a parent. `spread` exchanges part each individual of the first population
    from a start given.
    """

    name = "genetic"
    Settings = GeneticSettings

    def start(self, search: Progress) -> None:
        """Random fillings, or the start given and copies of it that `spread` exchanges have changed."""
        count = min(self.settings.population, max(1, search.left))
        if search.given is None:
            fillings = search.space.random(count, search.generator)
        else:
            genome = _Genome(search.space)
            genes = genome.genes(search.given.repeat(count, 1))
            for _ in range(self.settings.spread):
                self._mutate(genome, genes[1:], "swap", 1.0, search.generator)
            fillings = genome.fillings(genes)
        self._keep(search, fillings, _scored(search, fillings))

    def step(self, search: Progress) -> None:
        fillings = search.state["fillings"].to(search.space.device, torch.int64)
        fitness: torch.Tensor = search.state["fitness"]
        parents = tournaments(fitness, -(-self.settings.population // 2), self.settings.tournament, search.generator)
        chosen = fillings.index_select(0, parents.T.flatten().to(fillings.device))
        children = self.children(search.space, chosen, search.generator)[: min(self.settings.population, search.left)]
        fitnesses = _scored(search, children)
        elite = best(fitness, round(self.settings.elite * self.settings.population))
        survivors = torch.cat([fillings[elite.to(fillings.device)], children])
        self._keep(search, survivors, torch.cat([fitness[elite], fitnesses]))

    def children(self, space: PlacementSpace, parents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """As many children as parents, fillings [2 * pairs, positions]: parent i mates with parent i + pairs.

        The parents may be overwritten.
        """
        genome = _Genome(space)
        genes = genome.genes(parents)
        self._cross(genome, genes, generator)
        self._mutate(genome, genes, self.settings.mutation, self.settings.mutation_rate, generator)
        return genome.fillings(genes)

    def _keep(self, search: Progress, fillings: torch.Tensor, fitness: torch.Tensor) -> None:
        """The best `population` of these, into the state."""
        order = best(fitness, self.settings.population)
        small = torch.int16 if search.space.positions <= torch.iinfo(torch.int16).max else torch.int32
        search.state = {"fillings": fillings[order.to(fillings.device)].to(small), "fitness": fitness[order]}

    def _cross(self, genome: "_Genome", genes: torch.Tensor, generator: torch.Generator) -> None:
        """Cross copies of parents [2 * pairs, positions] in place: row i with row i + pairs, and the other way."""
        pairs = len(genes) // 2
        crossed = _chosen(self.settings.crossover_rate, pairs, generator)
        rows = torch.cat([crossed, crossed + pairs]).to(genes.device)
        mates = rows.roll(len(crossed))
        for part in genome.parts:
            here = genes[:, part]
            segments = random_segments(len(crossed), here.shape[1], generator).repeat(2, 1)
            children = CROSSOVERS[self.settings.crossover](
                here.index_select(0, rows), here.index_select(0, mates), segments
            )
            here.index_copy_(0, rows, children)

    @staticmethod
    def _mutate(genome: "_Genome", genes: torch.Tensor, kind: str, rate: float, generator: torch.Generator) -> None:
        """Mutate rows [n, positions] in place by the chance `rate`, each in one shape, drawn by its positions."""
        chosen = _chosen(rate, len(genes), generator)
        if not genome.parts or not len(chosen):
            return
        sizes = torch.tensor([part.stop - part.start for part in genome.parts], dtype=torch.float64)
        drawn = torch.multinomial(sizes, len(chosen), replacement=True, generator=generator)
        for number, part in enumerate(genome.parts):
            rows = chosen[drawn == number].to(genes.device)
            here = genes[:, part]
            here.index_copy_(0, rows, MUTATIONS[kind](here.index_select(0, rows), generator))


def tournaments(fitness: torch.Tensor, pairs: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Parents int64 [pairs, 2] as numbers into fitness [n], each the fittest of `size` different individuals.

    Everyone competes equally often, up to one: competitors are read off random orders of all, as in pymoo. Of equals
    the first in that order wins: a random one.
    """
    count = len(fitness)
    per_order = count // size
    orders = torch.rand(-(-2 * pairs // per_order), count, generator=generator, dtype=torch.float64).argsort(1)
    competing = orders[:, : per_order * size].reshape(-1, size)[: 2 * pairs]
    winners = fitness.cpu()[competing].argmax(1, keepdim=True)
    return competing.gather(1, winners).view(pairs, 2)


def best(fitness: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` fittest of fitness [n], best first, of equals the earlier: int64 [count] (or fewer)."""
    return fitness.argsort(descending=True, stable=True)[:count]


def _scored(search: Progress, fillings: torch.Tensor) -> torch.Tensor:
    """Fitness float64 [n] on the CPU; no number counts as the worst."""
    return search.score(fillings).cpu().nan_to_num(nan=-torch.inf)


def _chosen(rate: float, count: int, generator: torch.Generator) -> torch.Tensor:
    """Which of `count`, each by the chance `rate`: int64 [chosen]."""
    return (torch.rand(count, generator=generator, dtype=torch.float64) < rate).nonzero().flatten()


class _Genome:
    """Fillings as permutations: each shape's positions side by side, numbered from 0 in each shape.

    parts: the columns of each shape that has more than one position.
    """

    def __init__(self, space: PlacementSpace) -> None:
        ends = torch.tensor([len(part.positions) for part in space.classes]).cumsum(0).tolist()
        slices = [slice(start, end) for start, end in pairwise([0, *ends])]
        self.parts = [part for part in slices if part.stop - part.start > 1]
        self._trivial = len(slices) == 1  # then positions and numbers are 0..positions-1 both
        if self._trivial:
            return
        self._positions = torch.cat([part.positions for part in space.classes])
        self._numbers = torch.cat([part.numbers for part in space.classes])
        ranks = torch.cat([torch.arange(part.stop - part.start) for part in slices]).to(space.device)
        self._rank = torch.empty_like(ranks)
        self._rank[self._numbers] = ranks
        self._starts = torch.arange(space.positions, device=space.device) - ranks

    def genes(self, fillings: torch.Tensor) -> torch.Tensor:
        """Fillings [n, positions] -> permutations [n, positions]."""
        if self._trivial:
            return fillings
        return self._rank[fillings.index_select(1, self._positions)]

    def fillings(self, genes: torch.Tensor) -> torch.Tensor:
        """The inverse of `genes`."""
        if self._trivial:
            return genes
        return torch.empty_like(genes).index_copy_(1, self._positions, self._numbers[genes + self._starts])
