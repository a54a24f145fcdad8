"""Crossovers and mutations of permutations, a whole population at once, on the device that it lies on.

A permutation of 0..genes-1 is a row of an int64 tensor [n, genes]. What is drawn at random (*segments*, int64 [n, 2]:
first gene and the one behind the last) is drawn on the CPU, so that it is the same on every device. A segment is
bounded by two different genes, both inside it: it holds 2..genes of them.

The crossovers are order crossover (OX: Davis, Applying adaptive algorithms to epistatic domains, IJCAI 1985), partially
mapped crossover (PMX: Goldberg and Lingle, Alleles, loci, and the traveling salesman problem, ICGA 1985) and cycle
crossover (CX: Oliver, Smith and Holland, A study of permutation crossover operators on the traveling salesman problem,
ICGA 1987).
"""

from collections.abc import Callable, Mapping

import torch

Crossover = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Mutation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def random_pairs(count: int, genes: int, generator: torch.Generator) -> torch.Tensor:
    """Two different genes each, uniformly random, the lower first: int64 [count, 2] on the CPU; genes is at least 2."""
    first = torch.randint(genes, (count,), generator=generator)
    second = torch.randint(genes - 1, (count,), generator=generator)
    second += second >= first
    return torch.stack([torch.minimum(first, second), torch.maximum(first, second)], 1)


def random_segments(count: int, genes: int, generator: torch.Generator) -> torch.Tensor:
    """Segments between two different genes: int64 [count, 2] on the CPU."""
    segments = random_pairs(count, genes, generator)
    segments[:, 1] += 1
    return segments


def order_crossover(first: torch.Tensor, second: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """The segment from `first` [pairs, genes], all else in the order that it has in `second`, filled from the left.

    Without the wrap-around of tours, as positions here are absolute (linear order crossover: Falkenauer and Bouffouix,
    ICRA 1991); pymoo's OrderCrossover is the same.
    """
    inside = _inside(first, segments)
    taken = torch.empty_like(inside).scatter_(1, first, inside)
    rest = taken.gather(1, second).logical_not_()
    # row by row there are as many places outside the segment as genes of the rest
    return first.masked_scatter(inside.logical_not_(), _selected(second, rest))


def partially_mapped_crossover(first: torch.Tensor, second: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """The segment from `first` [pairs, genes], all else from `second`; a gene that the segment holds already is
    replaced by the one that `second` has in its place there, until one is free.

    All chains of replacements are followed together by pointer doubling (Wyllie 1979).
    """
    inside = _inside(first, segments)
    taken = torch.empty_like(inside).scatter_(1, first, inside)
    # per gene: what replaces it, itself where it is free
    follow = torch.where(taken, _compose(second, _inverse(first)), _numbers(first))
    children = torch.where(inside, first, second)
    outside = inside.logical_not()
    for _ in range(first.shape[1].bit_length()):
        if not bool((taken.gather(1, children) & outside).any()):
            break
        children = torch.where(inside, first, follow.gather(1, children))
        follow = _compose(follow, follow)
    return children


def cycle_crossover(first: torch.Tensor, second: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Each gene at the place of one parent [pairs, genes]: cycles of the two, by their first places, alternate between
    `first` and `second`. Draws nothing: `segments` is not read.

    Cycles get the number of their first place by pointer doubling (Wyllie 1979).
    """
    following = _compose(_inverse(first), second)
    lowest = _numbers(first).clone()
    for _ in range(max(1, first.shape[1] - 1).bit_length()):
        lowest = torch.minimum(lowest, lowest.gather(1, following))
        following = _compose(following, following)
    is_first = lowest == _numbers(first)
    odd = is_first.cumsum(1).bitwise_and_(1).gather(1, lowest)
    return torch.where(odd.bool(), first, second)


def swap_mutation(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Two genes of each row [n, genes] exchanged."""
    pairs = random_pairs(len(rows), rows.shape[1], generator).to(rows.device)
    return rows.scatter(1, pairs, rows.gather(1, pairs.flip(1)))


def inversion_mutation(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A segment of each row [n, genes] reversed."""
    segments = random_segments(len(rows), rows.shape[1], generator).to(rows.device)
    mirrored = segments.sum(1, keepdim=True) - 1 - _numbers(rows)
    return rows.gather(1, torch.where(_inside(rows, segments), mirrored, _numbers(rows)))


def scramble_mutation(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A segment of each row [n, genes] in uniformly random order."""
    segments = random_segments(len(rows), rows.shape[1], generator)
    lengths = segments[:, 1] - segments[:, 0]
    longest = int(lengths.max()) if len(rows) else 0
    steps = torch.arange(longest)
    keys = torch.rand(len(rows), longest, generator=generator, dtype=torch.float64)
    order = keys.masked_fill_(steps >= lengths[:, None], torch.inf).argsort(1)
    # places of a row behind its segment are filled with its first one: the same value is written twice
    beyond = steps >= lengths[:, None]
    target = (segments[:, :1] + steps).where(~beyond, segments[:, :1]).to(rows.device)
    source = (segments[:, :1] + order.where(~beyond, order[:, :1])).to(rows.device)
    return rows.scatter(1, target, rows.gather(1, source))


CROSSOVERS: Mapping[str, Crossover] = {
    "order": order_crossover,
    "partially_mapped": partially_mapped_crossover,
    "cycle": cycle_crossover,
}
MUTATIONS: Mapping[str, Mutation] = {
    "swap": swap_mutation,
    "inversion": inversion_mutation,
    "scramble": scramble_mutation,
}


def _numbers(rows: torch.Tensor) -> torch.Tensor:
    """0..genes-1 in each row, without memory of its own."""
    return torch.arange(rows.shape[1], device=rows.device).expand_as(rows)


def _inside(rows: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Whether a gene lies in its row's segment: bool [n, genes]."""
    genes = torch.arange(rows.shape[1], device=rows.device, dtype=torch.int32)
    segments = segments.to(rows.device, torch.int32)
    return (genes >= segments[:, :1]).logical_and_(genes < segments[:, 1:])


def _selected(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The masked elements row by row: [count]. NumPy is several times as fast at it on a CPU."""
    if rows.device.type == "cpu":
        return torch.from_numpy(rows.numpy().ravel().compress(mask.numpy().ravel()))
    return rows.masked_select(mask)


def _inverse(rows: torch.Tensor) -> torch.Tensor:
    """Per row, where each number stands."""
    return torch.empty_like(rows).scatter_(1, rows, _numbers(rows))


def _compose(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Per row, outer[inner]."""
    return outer.gather(1, inner)
