"""Blocks: cutting and assembling are inverse for every grid, and placements form a group."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scatterproof.blocks import UNPLACED, BlockGrid, Layout, Placement, invert

sizes = st.integers(1, 9)
grids = st.builds(BlockGrid, sizes, sizes, sizes, sizes)
seeds = st.integers(0, 2**32)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    height, width = draw(sizes), draw(sizes)
    layers = draw(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=3))
    return Layout({f"layer{i}": BlockGrid(*layer, height, width) for i, layer in enumerate(layers)})


@st.composite
def permutations(draw: st.DrawFn, count: int) -> list[Placement]:
    slots = draw(st.integers(1, 12))
    orders = [draw(st.permutations(range(slots))) for _ in range(count)]
    return [Placement(torch.tensor(order), slots) for order in orders]


@st.composite
def partial(draw: st.DrawFn) -> Placement:
    slots = draw(st.integers(1, 12))
    order = torch.tensor(draw(st.permutations(range(slots))))[: draw(st.integers(1, slots))]
    unplaced = torch.tensor(draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order))))
    return Placement(torch.where(unplaced, UNPLACED, order), slots)


def same(one: Placement, other: Placement) -> bool:
    return torch.equal(one.positions, other.positions) and one.slots == other.slots


def numbered(grid: BlockGrid) -> torch.Tensor:
    """A weight none of whose entries are equal or zero."""
    return torch.arange(1.0, grid.outputs * grid.inputs + 1).view(grid.outputs, grid.inputs)


# Cutting and assembling


@given(grids)
def test_each_block_is_its_slice_of_the_weight(grid: BlockGrid) -> None:
    weight, blocks, shapes = numbered(grid), grid.cut(numbered(grid)), grid.shapes()
    assert blocks.shape == (grid.count, grid.height, grid.width)
    assert shapes.shape == (grid.count, 2)
    for position in range(grid.count):
        row, column = divmod(position, grid.columns)
        piece = weight[row * grid.height :, column * grid.width :][: grid.height, : grid.width]
        assert shapes[position].tolist() == list(piece.shape)
        assert torch.equal(blocks[position, : piece.shape[0], : piece.shape[1]], piece)
        assert int((blocks[position] != 0).sum()) == piece.numel()


@given(layouts(), seeds)
def test_assembling_shuffled_blocks_in_their_places_gives_the_weights_back(layout: Layout, seed: int) -> None:
    weights = {name: numbered(grid) for name, grid in layout.grids.items()}
    placement = Placement.random(layout.positions, torch.Generator().manual_seed(seed))
    held = layout.cut(weights)[placement.positions]
    found = layout.assemble(held.reshape(-1, held.shape[-1]), placement.blocks())
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(found[name], weight)
        assert found[name].is_contiguous()


@given(layouts())
def test_positions_count_on_from_layer_to_layer(layout: Layout) -> None:
    rows, columns = layout.rows_and_columns()
    shapes, classes = layout.shapes(), layout.shape_classes()
    expected, row, column = [], 0, 0
    for name, grid in layout.grids.items():
        assert layout.offsets[name] == len(expected)
        expected += [(row + r, column + c) for r in range(grid.rows) for c in range(grid.columns)]
        row, column = row + grid.rows, column + grid.columns
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    assert layout.positions == len(expected) == len(shapes)
    for a in range(layout.positions):
        assert torch.equal(classes == classes[a], (shapes == shapes[a]).all(1))


@given(layouts())
def test_only_whole_blocks_are_ambiguous(layout: Layout) -> None:
    assert layout.ambiguous().tolist() == [tuple(shape) == layout.block_shape for shape in layout.shapes().tolist()]


def test_the_talks_grid() -> None:
    layout = Layout.square({"classifier.0": (4096, 25088)}, 256)
    grid = layout.grids["classifier.0"]
    assert (grid.rows, grid.columns, layout.positions) == (16, 98, 1568)
    assert bool(layout.ambiguous().all())


def test_a_block_larger_than_every_layer_is_refused_with_their_sizes() -> None:
    with pytest.raises(ValueError, match=r"block size 9 is larger than the layer: a is 8 x 20, b is 30 x 4"):
        Layout.square({"a": (8, 20), "b": (30, 4)}, 9)
    beside = Layout.square({"a": (8, 20), "small": (5, 8)}, 8)
    assert beside.shapes().tolist() == [[8, 8], [8, 8], [8, 4], [5, 8]]


@pytest.mark.parametrize("broken", range(4))
def test_sizes_below_one_are_refused(broken: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BlockGrid(*[0 if i == broken else 3 for i in range(4)])


def test_layers_scattered_together_have_one_block_size() -> None:
    with pytest.raises(ValueError, match="one block size"):
        Layout({"a": BlockGrid(4, 4, 2, 2), "b": BlockGrid(4, 4, 2, 1)})


# Placements


@given(permutations(3))
def test_full_placements_are_a_group(three: list[Placement]) -> None:
    p, q, r = three
    identity = Placement.identity(p.slots)
    assert same(p.after(identity), p)
    assert same(identity.after(p), p)
    assert same(p.after(p.inverse()), identity)
    assert same(p.inverse().after(p), identity)
    assert same(p.after(q).after(r), p.after(q.after(r)))
    assert same(p.after(q).inverse(), q.inverse().after(p.inverse()))


@given(permutations(2))
def test_composition_is_first_the_order_then_this(two: list[Placement]) -> None:
    p, q = two
    assert [int(p.after(q).positions[b]) for b in range(p.slots)] == [int(p.positions[int(x)]) for x in q.positions]


@given(partial())
def test_blocks_by_position_say_the_same_as_positions_by_block(p: Placement) -> None:
    blocks = p.blocks().tolist()
    expected = [UNPLACED] * p.slots
    for block, position in enumerate(p.positions.tolist()):
        if position != UNPLACED:
            expected[position] = block
    assert blocks == expected
    assert invert(p.positions.expand(2, 3, -1), p.slots).tolist() == [[expected] * 3] * 2
    back = torch.tensor(blocks)
    assert torch.equal(invert(back, len(p)), p.positions)


@given(partial(), st.data())
def test_only_keeps_the_held_blocks_in_place(p: Placement, data: st.DataObject) -> None:
    held = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p))))
    expected = [at if kept else UNPLACED for at, kept in zip(p.positions.tolist(), held.tolist(), strict=True)]
    assert p.only(held).positions.tolist() == expected


@given(partial())
def test_unplaced_blocks_stay_unplaced_in_compositions(order: Placement) -> None:
    p = Placement.random(order.slots, torch.Generator().manual_seed(1))
    assert torch.equal(p.after(order).positions == UNPLACED, order.positions == UNPLACED)


@pytest.mark.parametrize("positions", [[0, 0], [0, 3], [-2, 1], [2, -1, 2]])
def test_invalid_placements_are_refused(positions: list[int]) -> None:
    with pytest.raises(ValueError, match="placement"):
        Placement(torch.tensor(positions), 3)


@pytest.mark.parametrize("positions", [[0, 1], [0, -1, 2]])
def test_only_a_full_placement_has_an_inverse(positions: list[int]) -> None:
    with pytest.raises(ValueError, match="inverse"):
        Placement(torch.tensor(positions), 3).inverse()


def test_a_random_placement_is_drawn_from_its_generator() -> None:
    one, other = (Placement.random(50, torch.Generator().manual_seed(s)) for s in (1, 2))
    assert same(one, Placement.random(50, torch.Generator().manual_seed(1)))
    assert not same(one, other)
    assert sorted(one.positions.tolist()) == list(range(50))
