"""The hijack finds what traffic gives away, nothing where nothing is, and never sees the truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from scatterproof.attacks.base import AttackError, Machine, Run
from scatterproof.config.stream import Obfuscation
from scatterproof.judging.judge import placed
from scatterproof.judging.traffic.hijack_scores import GroupScores, at_positions, score_groups
from scatterproof.judging.traffic.stream_cells import load_arrays, save_arrays, sizes_of
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.stream.hijack.attack import GROUPING, Hijack, TappedPuzzle
from scatterproof.stream.hijack.grouping import Groups, adaptive_groups, naive_groups
from scatterproof.stream.hijack.labelling import label_by_traffic
from scatterproof.stream.hijack.roles import pairs
from scatterproof.stream.hijack.tap import Seen, Traffic, tap
from scatterproof.stream.network.deployment import Deployment, Sizes
from scatterproof.stream.network.flows import Flows
from scatterproof.stream.network.obfuscate import overhead, rank_within
from scatterproof.stream.network.serving import serving_cost
from scatterproof.stream.network.simulate import simulate
from test_fingerprint import planted

SIZES = Sizes.of(256, 1568, 16, 16)
SMALL = Sizes.of(64, 96, 8, 8)
MACHINE = Machine(torch.device("cpu"), 1)


def watch(
    hiding: Obfuscation | None = None,
    requests: int = 1,
    observed: float = 1.0,
    topology: str = "sources",
    order: str = "random",
    sizes: Sizes = SMALL,
    seed: int = 0,
    labelled: int = 0,
) -> tuple[Traffic, Seen]:
    hiding, rng = hiding or Obfuscation(), np.random.default_rng(seed)
    deployment = Deployment.dealt(sizes, rng, hiding.per_device, topology)
    served = simulate(deployment, requests, rng, hiding, order)
    return tap(served, deployment, hiding, observed, rng, labelled=labelled)


def scored(method: str, traffic: Traffic, seen: Seen) -> GroupScores:
    return score_groups(GROUPING[method](traffic), seen, traffic.sizes, np.arange(traffic.sizes.count))


@pytest.mark.parametrize("sizes", [SIZES, Sizes.of(158 * 16, 158 * 16, 16, 16)], ids=["1568", "24964"])
@pytest.mark.parametrize("order", ["random", "forward", "reversed"])
def test_one_request_gives_all_groups_away(sizes: Sizes, order: str) -> None:
    found = scored("naive", *watch(sizes=sizes, order=order))
    assert (found.column_ari, found.row_ari, found.anonymity_bits) == (1.0, 1.0, 0.0)


def test_a_reversed_send_loop_changes_nothing() -> None:
    """Not only as good: the same groups of the same devices."""
    found = []
    for order in ("forward", "reversed"):
        traffic, seen = watch(order=order, sizes=SIZES)
        groups = adaptive_groups(traffic)
        found.append([at_positions(groups.record, each, seen, SIZES.count) for each in (groups.column, groups.row)])
    assert (np.array(found[0]) == np.array(found[1])).all()


@pytest.mark.parametrize("method", ["naive", "adaptive"])
def test_traffic_of_a_random_topology_gives_nothing_away(method: str) -> None:
    """Negative control: every device hears from a random source and answers a random reducer."""
    indices = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        deployment = Deployment.dealt(SMALL, rng)
        served = simulate(deployment, 3, rng)
        to_device = np.isin(served.flows.destination, deployment.device_at)
        others = dict(zip(deployment.device_at, rng.permutation(deployment.device_at), strict=True))
        moved = np.array([others[each] for each in served.flows.destination[to_device].tolist()])
        destination = served.flows.destination.copy()
        destination[to_device] = moved  # slices go to other devices than those whose blocks they are for
        wrong = replace(served, flows=replace(served.flows, destination=destination))
        traffic, seen = tap(wrong, deployment, Obfuscation(), 1.0, rng)
        sums = np.isin(seen.record, np.flatnonzero(np.isin(traffic.flows.source, deployment.device_at)))
        found = scored(method, traffic, Seen(seen.record[sums], seen.position[sums]))
        indices.append(found.column_ari)
        assert found.anonymity_bits > 0.8 * np.log2(SMALL.columns)
    mean, error = np.mean(indices), np.std(indices, ddof=1) / len(indices) ** 0.5
    assert abs(mean) < 2.4 * error + 1e-3  # Student's t, 7 degrees of freedom
    assert error < 0.02


def test_a_share_of_the_links_gives_a_share_away() -> None:
    leaked = [
        np.mean([scored("adaptive", *watch(observed=p, seed=s)).column_ari for s in range(3)]) for p in (0.1, 0.5, 0.9)
    ]
    assert 0 <= leaked[0] < leaked[1] < leaked[2] < 1


def test_a_coordinator_gives_away_its_order_alone() -> None:
    hidden = scored("adaptive", *watch(topology="coordinator", requests=3))
    assert abs(hidden.column_ari) < 0.05
    assert hidden.row_ari == 0
    for order in ("forward", "reversed"):
        assert scored("adaptive", *watch(topology="coordinator", order=order)).column_ari == 1.0


@pytest.mark.parametrize(
    ("hiding", "requests", "naive", "adaptive"),
    [
        (Obfuscation(padding=512), 1, (0.99, 1.01), (0.99, 1.01)),
        (Obfuscation(delay=2.0), 1, (0.99, 1.01), (0.99, 1.01)),
        (Obfuscation(cover=2), 10, (0.99, 1.01), (0.99, 1.01)),
        (Obfuscation(cover=2, fixed=True), 20, (-0.05, 0.3), (0.35, 0.7)),
        (Obfuscation(relays=2, batch=8), 40, (-0.05, 0.05), (0.95, 1.01)),
        (Obfuscation(relays=1, batch=96), 10, (-0.05, 0.05), (-0.05, 0.05)),
        (Obfuscation(per_device=4), 60, (-0.05, 0.4), (0.8, 1.01)),
        (Obfuscation(session=1), 8, (-0.05, 0.4), (0.99, 1.01)),
    ],
    ids=lambda value: value.params if isinstance(value, Obfuscation) else None,
)
def test_what_hides_from_whom(
    hiding: Obfuscation, requests: int, naive: tuple[float, float], adaptive: tuple[float, float]
) -> None:
    """The mean of both indices. Only a mix whose batch is the whole request hides all from who knows of it."""
    traffic, seen = watch(hiding, requests)
    for method, (low, high) in (("naive", naive), ("adaptive", adaptive)):
        found = scored(method, traffic, seen)
        assert low <= (found.column_ari + found.row_ari) / 2 <= high


@pytest.mark.parametrize("method", ["spectral", "learned"])
def test_other_ways_to_group(method: str) -> None:
    assert scored(method, *watch()).column_ari > 0.9
    assert scored(method, *watch(Obfuscation(relays=2, batch=8), 40)).column_ari > 0.6
    hidden = scored(method, *watch(Obfuscation(relays=1, batch=96), 10))
    assert abs(hidden.column_ari) < 0.1


def test_overheads_are_those_of_the_records() -> None:
    rng = np.random.default_rng(0)
    deployment = Deployment.dealt(SMALL, rng)
    plain = simulate(deployment, 20, rng)
    assert overhead(simulate(deployment, 20, rng, Obfuscation(padding=160)), plain).bandwidth == pytest.approx(1.0)
    assert overhead(simulate(deployment, 20, rng, Obfuscation(cover=3)), plain).bandwidth == pytest.approx(3.0)
    mixed = overhead(simulate(deployment, 20, rng, Obfuscation(relays=2, batch=4)), plain)
    assert mixed.bandwidth == pytest.approx(1.0)
    assert mixed.latency > 0.5
    late = overhead(simulate(deployment, 20, rng, Obfuscation(delay=5.0)), plain)
    assert (late.bandwidth, late.latency > 10) == (0, True)


def test_leaked_places_label_the_groups() -> None:
    """Positive control: with a device of every row and column known, every block's place is."""
    traffic, seen = watch(labelled=60)
    labels = label_by_traffic(traffic, adaptive_groups(traffic))
    column, row = (at_positions(labels.record, each, seen, SMALL.count) for each in (labels.column, labels.row))
    assert (row * SMALL.columns + column == np.arange(SMALL.count)).all()


def test_sizes_of_messages_label_the_edges() -> None:
    sizes = Sizes.of(60, 92, 8, 8)
    traffic, seen = watch(sizes=sizes)
    labels = label_by_traffic(traffic, adaptive_groups(traffic))
    column, row = (at_positions(labels.record, each, seen, sizes.count) for each in (labels.column, labels.row))
    positions = np.arange(sizes.count)
    assert (column[positions % 12 == 11] == 11).all()
    assert (row[positions // 12 == 7] == 7).all()
    padded, seen = watch(Obfuscation(padding=128), sizes=sizes)
    labels = label_by_traffic(padded, adaptive_groups(padded))
    column = at_positions(labels.record, labels.column, seen, sizes.count)
    assert not (column[positions % 12 == 11] == 11).all() or not (row == positions // 12).all()


def tapped(
    puzzle: Puzzle, answer: Answer, hiding: Obfuscation | None = None, requests: int = 1, **keys: str
) -> TappedPuzzle:
    """The puzzle with the traffic of its own devices."""
    hiding, rng = hiding or Obfuscation(), np.random.default_rng(0)
    own = answer.placement.positions.numpy()
    deployment = Deployment.dealt(sizes_of(answer), rng, hiding.per_device, own=own, **keys)
    served = simulate(deployment, requests, rng, hiding)
    return TappedPuzzle.of(puzzle, tap(served, deployment, hiding, 0.0, rng, own)[0])


def place(puzzle: Puzzle, answer: Answer) -> float:
    return placed(Hijack().run(puzzle, Run(MACHINE))[-1].reached, puzzle, answer)["position_accuracy"]


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_traffic_and_a_weak_leak_place_the_blocks(share: float) -> None:
    """A leak from which the fingerprint alone places next to nothing."""
    from scatterproof.attacks.fingerprint.attack import Fingerprint

    puzzle, answer = planted(0, 0.2, share)
    alone = placed(Fingerprint().run(puzzle, Run(MACHINE))[-1].reached, puzzle, answer)["position_accuracy"]
    assert alone < 0.3
    assert place(tapped(puzzle, answer), answer) > 0.9
    packed = place(tapped(puzzle, answer, Obfuscation(per_device=4)), answer)
    assert packed > 0.9, "own devices know which of their blocks a message is for"


def test_random_weights_keep_their_places() -> None:
    """Negative control: groups without anything that labels them."""
    right = [place(tapped(puzzle, answer), answer) for puzzle, answer in (planted(seed, 0.0) for seed in range(10))]
    assert np.mean(right) < 0.05


def test_mixes_and_coordinators_hide_rows_but_not_columns_from_own_devices() -> None:
    puzzle, answer = planted(0, 1.0)
    columns = answer.placement.positions.numpy() % sizes_of(answer).columns
    for traffic in (
        tapped(puzzle, answer, topology="coordinator").traffic,
        tapped(puzzle, answer, Obfuscation(relays=1, batch=10**6)).traffic,
    ):
        slices = np.isin(traffic.flows.destination[traffic.record], traffic.own)
        group = np.empty(len(columns), np.int64)
        group[traffic.block[slices]] = traffic.content[traffic.record[slices]]
        assert adjusted_rand_score(columns, group) == 1.0
    assert 0.0 < place(tapped(puzzle, answer, topology="coordinator"), answer) <= 1


def test_without_traffic_it_is_refused() -> None:
    with pytest.raises(AttackError, match="hijack needs the traffic"):
        Hijack().run(planted(0, 1.0)[0], Run(MACHINE))


def test_the_hijack_gets_the_puzzle_and_the_traffic_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files in an empty folder, blocks renumbered: the same placement up to the renumbering."""
    puzzle, answer = planted(1, 0.5)
    whole = tapped(puzzle, answer)
    before = Hijack().run(whole, Run(MACHINE))[-1].reached.placement
    order = torch.randperm(len(puzzle.blocks), generator=torch.Generator().manual_seed(3))
    number = torch.argsort(order).numpy()
    traffic = replace(whole.traffic, block=number[whole.traffic.block])
    replace(puzzle, blocks=puzzle.blocks[order].contiguous(), shapes=puzzle.shapes[order].contiguous()).save(
        tmp_path / "puzzle.safetensors"
    )
    save_arrays(tmp_path / "traffic.npz", traffic.arrays(""))
    monkeypatch.chdir(tmp_path)
    seen = Traffic.of_arrays(load_arrays(Path("traffic.npz")), "", "sources", Obfuscation())
    again = TappedPuzzle.of(Puzzle.load(Path("puzzle.safetensors")), seen)
    assert (Hijack().run(again, Run(MACHINE))[-1].reached.placement == before[order]).double().mean() > 0.98


def test_addresses_say_nothing_of_places() -> None:
    """Other addresses, drawn anew: the same groups."""
    traffic, seen = watch(requests=2)
    names = np.unique(np.concatenate([traffic.flows.source, traffic.flows.destination]))
    other = np.random.default_rng(1).permutation(10 * len(names))[: len(names)]
    flows = replace(
        traffic.flows,
        source=other[np.searchsorted(names, traffic.flows.source)],
        destination=other[np.searchsorted(names, traffic.flows.destination)],
    )
    for groups in (naive_groups, adaptive_groups):
        one, two = groups(traffic), groups(replace(traffic, flows=flows))
        found = [at_positions(each.record, each.column, seen, SMALL.count) for each in (one, two)]
        assert adjusted_rand_score(*found) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=12), st.lists(st.integers(0, 4), max_size=12))
def test_pairs_are_all_of_equal_value(one: list[int], other: list[int]) -> None:
    left, right = pairs(np.array(one, np.int64), np.array(other, np.int64))
    expected = sorted((i, j) for i, a in enumerate(one) for j, b in enumerate(other) if a == b)
    assert sorted(zip(left.tolist(), right.tolist(), strict=True)) == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), min_size=1, max_size=20))
def test_ranks_are_those_within_groups(elements: list[tuple[int, float]]) -> None:
    group, by = np.array([g for g, _ in elements]), np.array([b for _, b in elements])
    ranks = rank_within(group, by)
    for name in set(group.tolist()):
        mine = np.flatnonzero(group == name)
        assert sorted(ranks[mine].tolist()) == list(range(len(mine)))
        assert (np.diff(by[mine][np.argsort(ranks[mine])]) >= 0).all()


@pytest.mark.parametrize("devices", [None, 12, 40])
def test_serving_costs_what_the_simulator_sends(devices: int | None) -> None:
    from scatterproof.blocks import BlockGrid, Layout

    layout, sizes = Layout({"layer": BlockGrid(60, 92, 8, 8)}), Sizes.of(60, 92, 8, 8)
    cost = serving_cost(layout, "sources", devices)
    per_device = sizes.count / (devices or sizes.count)
    sent = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        flows: Flows = simulate(Deployment.dealt(sizes, rng, per_device), 1, rng).flows
        sent.append((flows.bytes.sum(), len(flows)))
    bytes_, messages = np.mean(sent, axis=0)
    assert cost.rounds == 2
    assert cost.bytes == pytest.approx(bytes_, rel=0.01)
    assert cost.messages == pytest.approx(messages, rel=0.01)
    assert serving_cost(layout, "coordinator", devices).busiest == pytest.approx(cost.bytes)


def test_unknown_groups_are_one_group() -> None:
    traffic, seen = watch()
    none = Groups(*(np.empty(0, np.int64) for _ in range(3)))
    found = score_groups(none, seen, traffic.sizes, np.arange(SMALL.count))
    assert (found.column_ari, found.row_ari) == (0.0, 0.0)
    assert found.anonymity_bits == pytest.approx(np.log2(SMALL.count))
