"""What the attacks' controls count as a block at its place."""

import pytest
import torch
from scipy import stats

import small
from scatterproof.attack_grid import AttacksConfig
from scatterproof.attacks.controlling import controlled, right_places, wilson
from scatterproof.attacks.direct import Placed
from scatterproof.evaluate import PlacementEvaluator


def test_a_place_with_equal_inputs_is_as_good_but_no_better_by_chance() -> None:
    """Each channel is copied 49 times: blocks of 8 columns, six of which read one channel alone."""
    config, data = small.vgg(), small.dataset()
    puzzle, answer = small.puzzle(small.network(config), config, data, 8, images=12)
    assert PlacementEvaluator(puzzle, data.test.images, data.test.labels, torch.device("cpu")).copies == 49
    first, second = answer.placement.blocks()[:2].tolist()
    positions = answer.placement.swapped(first, second).positions
    swapped = Placed(positions, positions[:, None], torch.ones(len(positions), 1))
    right, total = right_places(swapped, puzzle, answer)
    assert right == total, "their inputs are equal on every image: none can tell"
    assert right_places(swapped, puzzle, answer, alike=False) == (total - 2, total)


def test_the_bound_on_a_share_is_wilsons() -> None:
    interval = stats.binomtest(7, 1000).proportion_ci(0.95, "wilson")
    assert wilson(7, 1000) == pytest.approx((interval.low, interval.high))


def test_an_attack_is_controlled_where_it_is_told_most() -> None:
    grids = [
        {"images": [100, 0], "keep": [0.1, 1.0]},
        {"attacks": ["refine", "blocks", "layer"], "images": [100], "knows": ["logits", "labels"]},
    ]
    config = AttacksConfig.model_validate({"grids": grids})
    names = {name: threat.name for name, threat in controlled(config, "layer").items()}
    assert names == {
        "fingerprint": "layer-1-100-none",
        "refine": "layer-1-100-logits",
        "blocks": "layer-1-100-logits",
    }
