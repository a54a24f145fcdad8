"""Which of a service's nodes, owned together, see the activations that a threat may grant."""

import numpy as np
import pytest

from scatterproof.stream.hijack.roles import activations_read
from scatterproof.stream.network.deployment import Deployment, Sizes

SIZES, NEXT = Sizes.of(12, 20, 4, 4), Sizes.of(6, 12, 4, 4)  # 3 rows x 5 columns; the next layer's 2 x 3


def dealt(sizes: Sizes, seed: int, **how: object) -> Deployment:
    return Deployment.dealt(sizes, np.random.default_rng(seed), **how)  # type: ignore[arg-type]


LAYER, AFTER = dealt(SIZES, 0), dealt(NEXT, 1)


def devices_of(deployment: Deployment, positions: list[int]) -> list[int]:
    return [int(deployment.device_at[deployment.holders[0, each]]) for each in positions]


def read(*addresses: object, trusted: bool = False) -> str:
    owned = np.concatenate([np.atleast_1d(np.asarray(each, np.int64)) for each in addresses])
    return activations_read(owned, LAYER, AFTER, trusted)


def test_a_source_or_a_device_of_every_column_sees_the_inputs_and_one_short_of_that_a_slice() -> None:
    assert read(LAYER.source_at) == read(LAYER.device_at) == "inputs"
    one_each = [row * 5 + column for column, row in enumerate([0, 1, 2, 0, 1])]
    assert read(devices_of(LAYER, one_each)) == "inputs"
    assert read(devices_of(LAYER, one_each[:4]), LAYER.source_at[4]) == "inputs", "the last column by its source"
    assert read(devices_of(LAYER, one_each[:4])) == read(LAYER.source_at[1:]) == "none"
    assert read(devices_of(LAYER, [0, 5, 10])) == "none", "a whole column is one slice"


def test_outputs_alone_are_nothing_a_threat_grants() -> None:
    assert read(LAYER.reducer_at) == read(AFTER.source_at) == read(AFTER.device_at) == "none"


def test_with_the_inputs_all_reducers_or_the_next_layers_slices_make_it_both() -> None:
    assert read(LAYER.source_at, LAYER.reducer_at) == "both"
    assert read(LAYER.source_at, LAYER.reducer_at[1:]) == "inputs"
    assert read(LAYER.device_at, AFTER.source_at) == read(LAYER.device_at, AFTER.device_at) == "both"
    assert read(LAYER.device_at, AFTER.source_at[:2]) == "inputs"
    assert activations_read(np.concatenate([LAYER.device_at, AFTER.device_at]), LAYER) == "inputs", "not what follows"


def test_sums_that_a_trusted_party_changes_are_not_what_follows() -> None:
    assert read(LAYER.source_at, LAYER.reducer_at, trusted=True) == "inputs"
    assert read(LAYER.source_at, AFTER.device_at, trusted=True) == "both"


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_coordinator_sees_both_and_a_device_of_several_blocks_all_their_columns(replicas: int) -> None:
    hub = dealt(SIZES, 2, topology="coordinator", replicas=replicas)
    assert activations_read(np.unique(hub.source_at), hub) == "both"
    few = dealt(SIZES, 3, per_device=8, replicas=replicas)
    columns = {int(each) % 5 for each in few.copies()[0][few.copies()[1] == 0]}
    assert (activations_read(few.device_at[:1], few) == "inputs") == (len(columns) == 5)
    assert activations_read(few.device_at, few) == "inputs"
