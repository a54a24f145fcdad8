"""Permutation operators: their defining properties, and slow references written from the papers' descriptions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scatterproof.attacks.search.permutations import CROSSOVERS, MUTATIONS, random_pairs, random_segments

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
EXAMPLES = settings(max_examples=40, deadline=None)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Parents and segments."""
    genes, pairs = draw(st.integers(2, 24)), draw(st.integers(0, 6))
    random = generator(draw(st.integers(0, 2**32)))
    first, second = torch.rand(2, pairs, genes, generator=random).argsort(2)
    return first, second, random_segments(pairs, genes, random)


def order_reference(first: list[int], second: list[int], start: int, end: int) -> list[int]:
    rest = iter([gene for gene in second if gene not in first[start:end]])
    return [first[place] if start <= place < end else next(rest) for place in range(len(first))]


def partially_mapped_reference(first: list[int], second: list[int], start: int, end: int) -> list[int]:
    segment, child = first[start:end], []
    for place, gene in enumerate(second):
        if start <= place < end:
            gene = first[place]
        else:
            while gene in segment:
                gene = second[first.index(gene)]
        child.append(gene)
    return child


def cycle_reference(first: list[int], second: list[int], start: int, end: int) -> list[int]:
    child, parents = [-1] * len(first), (first, second)
    cycles = 0
    for begin in range(len(first)):
        if child[begin] >= 0:
            continue
        place = begin
        while child[place] < 0:
            child[place] = parents[cycles % 2][place]
            place = first.index(second[place])
        cycles += 1
    return child


REFERENCES = {
    "order": order_reference,
    "partially_mapped": partially_mapped_reference,
    "cycle": cycle_reference,
}


def is_permutation(rows: torch.Tensor) -> bool:
    return torch.equal(rows.sort(1).values, torch.arange(rows.shape[1]).expand_as(rows))


@pytest.mark.parametrize("name", CROSSOVERS)
@EXAMPLES
@given(case=cases())
def test_crossover_equals_its_reference(name: str, case: Case) -> None:
    before = [tensor.clone() for tensor in case]
    children = CROSSOVERS[name](*case)
    rows = zip(*(tensor.tolist() for tensor in case), strict=True)
    expected = [REFERENCES[name](first, second, start, end) for first, second, (start, end) in rows]
    assert children.tolist() == expected
    assert is_permutation(children) and children.dtype == torch.int64
    assert all(torch.equal(old, new) for old, new in zip(before, case, strict=True))  # the parents are left alone


@EXAMPLES
@given(case=cases())
def test_order_crossover_keeps_the_segment_and_the_others_order(case: Case) -> None:
    for child, first, second, (start, end) in zip(CROSSOVERS["order"](*case), *case, strict=True):
        assert torch.equal(child[start:end], first[start:end])
        rest = torch.cat([child[:start], child[end:]])
        assert torch.equal(rest, second[torch.isin(second, rest)])


@EXAMPLES
@given(case=cases())
def test_partially_mapped_crossover_keeps_what_does_not_conflict(case: Case) -> None:
    for child, first, second, (start, end) in zip(CROSSOVERS["partially_mapped"](*case), *case, strict=True):
        assert torch.equal(child[start:end], first[start:end])
        free = ~torch.isin(second, first[start:end])
        free[start:end] = False
        assert torch.equal(child[free], second[free])


@EXAMPLES
@given(case=cases())
def test_cycle_crossover_takes_each_gene_from_its_place_in_a_parent(case: Case) -> None:
    first, second, segments = case
    child, other = CROSSOVERS["cycle"](first, second, segments), CROSSOVERS["cycle"](second, first, segments)
    assert ((child == first) | (child == second)).all()
    assert torch.equal(child + other, first + second)  # what one child leaves, the other takes
    assert torch.equal(child[:, 0], first[:, 0])


def test_equal_parents_have_their_like() -> None:
    rows = torch.rand(5, 9, generator=generator(0)).argsort(1)
    segments = random_segments(5, 9, generator(1))
    assert all(torch.equal(crossover(rows, rows, segments), rows) for crossover in CROSSOVERS.values())


@pytest.mark.parametrize("name", ["partially_mapped", "cycle"])
def test_longest_chains_are_followed_to_their_end(name: str) -> None:
    first = torch.arange(1024)[None]
    second, segment = first.roll(-1, 1), torch.tensor([[0, 1023]])
    expected = REFERENCES[name](first[0].tolist(), second[0].tolist(), 0, 1023)
    assert CROSSOVERS[name](first, second, segment)[0].tolist() == expected


def changed_places(rows: torch.Tensor, mutated: torch.Tensor) -> list[torch.Tensor]:
    return [places.nonzero().flatten() for places in rows != mutated]


@EXAMPLES
@given(genes=st.integers(2, 24), count=st.integers(0, 6), seed=st.integers(0, 2**32))
def test_mutations(genes: int, count: int, seed: int) -> None:
    rows = torch.rand(count, genes, generator=generator(seed)).argsort(1)
    before = rows.clone()
    found = {name: mutation(rows, generator(seed)) for name, mutation in MUTATIONS.items()}
    assert torch.equal(rows, before) and all(is_permutation(mutated) for mutated in found.values())
    for places, row, mutated in zip(changed_places(rows, found["swap"]), rows, found["swap"], strict=True):
        assert len(places) == 2 and torch.equal(mutated[places], row[places].flip(0))
    for places, row, mutated in zip(changed_places(rows, found["inversion"]), rows, found["inversion"], strict=True):
        start, end = int(places[0]), int(places[-1]) + 1
        assert torch.equal(mutated[start:end], row[start:end].flip(0))
    for (start, end), row, mutated in zip(random_segments(count, genes, generator(seed)), rows, found["scramble"],
                                          strict=True):  # fmt: skip
        outside = (torch.arange(genes) < start) | (torch.arange(genes) >= end)
        assert torch.equal(mutated[outside], row[outside])
    again = {name: mutation(rows, generator(seed)) for name, mutation in MUTATIONS.items()}
    assert all(torch.equal(found[name], again[name]) for name in MUTATIONS)


def test_scramble_gives_every_order_as_often() -> None:
    rows = torch.arange(3).repeat(6000, 1)
    whole = MUTATIONS["scramble"](rows, generator(0))[
        (random_segments(6000, 3, generator(0)) == torch.tensor([0, 3])).all(1)
    ]
    counts = (whole * torch.tensor([9, 3, 1])).sum(1).unique(return_counts=True)[1]
    assert len(counts) == 6 and counts.max() < 1.25 * counts.min()


def test_pairs_are_uniform_and_different() -> None:
    pairs = random_pairs(6000, 4, generator(0))
    counts = (pairs[:, 0] * 4 + pairs[:, 1]).unique(return_counts=True)[1]
    assert (pairs[:, 0] < pairs[:, 1]).all() and pairs.min() == 0 and pairs.max() == 3
    assert len(counts) == 6 and counts.max() < 1.25 * counts.min()
