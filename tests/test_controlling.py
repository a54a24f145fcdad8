"""What the attacks' controls count as a block at its place."""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

import small
from planted import swapped
from scatterproof.attacks.base import Copy, Machine, Placed
from scatterproof.config.attacks import AttacksConfig
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import logits_on
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging import controls as controls_module
from scatterproof.judging.controls import Controls, controlled, right_places, wilson
from scatterproof.puzzle import Puzzle
from scatterproof.victims.data import Dataset, to_input


def test_a_place_with_equal_inputs_is_as_good_but_no_better_by_chance() -> None:
    """Each channel is copied 49 times: blocks of 8 columns, six of which read one channel alone."""
    config, data = small.vgg(), small.dataset()
    puzzle, answer = small.puzzle(small.network(config), config, data, 8, images=12)
    assert PlacementEvaluator(puzzle, data.test.images, data.test.labels, torch.device("cpu")).copies == 49
    first, second = answer.placement.blocks()[:2].tolist()
    positions = swapped(answer.placement, first, second).positions
    reached = Placed(positions, positions[:, None], torch.ones(len(positions), 1))
    right, total = right_places(reached, puzzle, answer)
    assert right == total, "their inputs are equal on every image: none can tell"
    assert right_places(reached, puzzle, answer, alike=False) == (total - 2, total)


def test_the_bound_on_a_share_is_wilsons() -> None:
    z, share, spread = stats.norm.ppf(0.975), 7 / 1000, stats.norm.ppf(0.975) ** 2 / 1000
    middle, half = share + spread / 2, z * (share * (1 - share) / 1000 + spread / 4000) ** 0.5
    expected = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    assert wilson(7, 1000) == pytest.approx(expected, abs=1e-12)


def test_an_attack_is_controlled_where_it_is_told_most_and_by_what_it_learns_from() -> None:
    grids = [
        {"images": [100, 0], "keep": [0.1, 1.0]},
        {"attacks": ["refine", "layer"], "images": [100], "knows": ["logits", "labels"]},
    ]
    found = controlled(AttacksConfig.model_validate({"grids": grids}), "layer")
    assert sorted((name, threat.name) for name, threat in found) == [
        ("fingerprint", "layer-1-100-none"),
        ("refine", "layer-1-100-labels"),
        ("refine", "layer-1-100-logits"),
    ]


def test_logits_of_random_weights_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the network with the layer drawn anew say where its blocks lie: the attack gets the victim's own."""
    config = AttacksConfig.model_validate({"control_shuffles": 10, "refine": {"sweeps": 3, "rates": [0.01]}})
    model, data = small.network(small.WIDE), small.dataset(pirate=100, test=500)
    controls = Controls(config, model, small.WIDE, data, 16, ("test",), Machine(torch.device("cpu"), 1))
    told: dict[str, list[torch.Tensor | None]] = {"planted": [], "random": []}
    reached = Controls._reached

    def see(self: Controls, name: str, puzzle: Puzzle, kind: str, *more: int) -> Placed | Copy:
        told[kind].append(puzzle.logits)
        return reached(self, name, puzzle, kind, *more)

    monkeypatch.setattr(Controls, "_reached", see)
    rows = controls.rows("refine", ThreatModel(images=100, knows="logits"))
    assert [row["control"] for row in rows] == ["planted", "random"]
    assert all(row["passed"] for row in rows), rows
    own = logits_on(model, small.WIDE, data, data.pirate.images)
    assert len(told["random"]) == 10
    assert all(logits is not None and torch.equal(logits, own) for logits in told["random"])
    assert not any(logits is None or torch.equal(logits, own) for logits in told["planted"])


def test_labels_by_luck_lead_refine_away_from_no_right_place() -> None:
    """The fingerprint finds the whole planted leak; 30 held-out labels had a sweep from there pass as a gain twice."""
    config = AttacksConfig.model_validate({"refine": {"sweeps": 3, "rates": [0.01]}})
    model, data = small.network(small.WIDE), small.dataset(pirate=100)
    for seed in range(5):
        controls = Controls(config, model, small.WIDE, data, 16, ("test", seed), Machine(torch.device("cpu"), 1))
        real, _ = small.puzzle(model, small.WIDE, data, 16, images=100, knows="labels")
        row = controls._planted("refine", real)
        assert row["passed"], row


def test_a_search_must_climb_back_from_half_of_the_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    config = AttacksConfig.model_validate({"hill_climbing": {"evaluations": 3000}, "random": {"evaluations": 3000}})
    data = small.dataset(victim=200, pirate=100, test=500)
    model = trained(data)
    controls = Controls(config, model, small.WIDE, data, 16, ("test",), Machine(torch.device("cpu"), 1))
    climbed, drawn = (
        controls._halved(name, ThreatModel(images=100, knows="labels")) for name in ("hill_climbing", "random")
    )
    assert climbed["passed"] and climbed["measure"] == "recovered" and climbed["control"] == "planted", climbed
    assert not drawn["passed"] and drawn["value"] < 0.8, drawn
    monkeypatch.setattr(controls_module, "displaced", lambda answer, count, key: answer.placement)
    unspoilt = controls._halved("hill_climbing", ThreatModel(images=100, knows="labels"))
    assert not unspoilt["passed"], "nothing was lost, so that nothing was brought back"


def trained(data: Dataset) -> nn.Module:
    """`small.wide` after a hundred steps on the victim's images."""
    torch.manual_seed(0)
    model = small.wide()
    images = to_input(data.victim.images, 8, data.mean, data.std)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(images), data.victim.labels).backward()
        optimizer.step()
    return model.eval()
