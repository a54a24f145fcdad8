"""The controls of the hijacks, and their rows beside the other attacks'."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import small
from scatterproof.analysis.choice import beside_traffic, chosen
from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.verdict import verdict_table
from scatterproof.attacks.base import Machine, Placed
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.config.stream import (
    Obfuscation,
    StreamCell,
    StreamConfig,
    cells_json,
    cells_of_json,
    held_services,
    service_of,
)
from scatterproof.config.threat import ThreatModel
from scatterproof.judging.control_victims import with_random_layers
from scatterproof.judging.judge import Judge
from scatterproof.judging.traffic.hijack_controls import StreamControls, draws_of, misdirected
from scatterproof.judging.traffic.hijacks import hijack_table
from scatterproof.judging.traffic.stream_cells import found_arrays, found_of, hijack_cells, sizes_of, tap_cells
from scatterproof.report.threat_words import grants
from scatterproof.report.words import held
from scatterproof.stream.hijack.attack import Hijack, evidence_of
from scatterproof.stream.hijack.labelling import LabelEvidence, with_leaks
from scatterproof.stream.hijack.tap import Traffic, tap
from scatterproof.stream.network.deployment import Deployment
from scatterproof.stream.network.simulate import simulate
from test_fingerprint import planted

MACHINE = Machine(torch.device("cpu"), 1)
CELL = StreamCell("sources", "random", Obfuscation(), 0.0, 1.0, 0, 1, "adaptive", 0)


def controls(shuffles: int = 10, seed: int = 0) -> StreamControls:
    model, data = small.network(small.WIDE), small.dataset(pirate=100)
    return StreamControls(model, small.WIDE, data, 16, shuffles, (seed,), MACHINE, Fingerprint())


def test_a_controlled_hijack_calls_the_fingerprint_that_it_is_given() -> None:
    other = replace(controls(), fingerprint=Fingerprint(rounds=3))
    hijack = other._hijack(replace(CELL, hijack="naive"))
    assert hijack.calling(Fingerprint) is other.fingerprint
    assert hijack.settings.method == "naive"


@pytest.mark.parametrize("method", ["naive", "adaptive", "spectral", "learned", "matching"])
def test_a_labelled_layout_is_recovered_and_unrelated_traffic_says_nothing(method: str) -> None:
    cell = replace(CELL, hijack=method)
    rows = {row["control"]: row for row in controls().rows(cell, ThreatModel(images=100))}
    assert {row["attack"] for row in rows.values()} == {f"hijack-{method}"}
    assert {row["threat"] for row in rows.values()} == {"layer-1-100-none+stream-0-1"}
    assert rows["labelled"]["value"] == 1.0
    found = {name: row["passed"] for name, row in rows.items()}
    if method != "matching":  # which needs more seeds than it is sure of
        assert found.pop("planted")
    assert found | {"planted": True} == dict.fromkeys(("planted", "random", "labelled", "topology"), True), rows


@pytest.mark.parametrize("hiding", [{"per_device": 4}, {"cover": 2, "fixed": True}])
def test_the_controls_run_on_the_service_that_is_judged(hiding: dict[str, int]) -> None:
    cell = replace(CELL, obfuscation=Obfuscation(**hiding), requests=5)
    rows = {row["control"]: row for row in controls().rows(cell, ThreatModel(images=100))}
    assert {row["threat"] for row in rows.values()} == {cell.threat_name(ThreatModel(images=100))}
    assert {name: row["passed"] for name, row in rows.items()} == {"planted": True, "random": True}, rows


def test_a_hijack_that_knows_the_answer_fails_the_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    """They can fail: here each puzzle's own answer is what the hijack returns."""
    asked: list[torch.Tensor] = []
    cut = StreamControls._cut

    def told(self: StreamControls, model: nn.Module, threat: ThreatModel, shuffle: int) -> object:
        puzzle, answer = cut(self, model, threat, shuffle)
        asked.append(answer.placement.positions)
        return puzzle, answer

    def cheat(*_: object) -> Placed:
        return Placed(asked[-1], asked[-1][:, None], torch.ones(len(asked[-1]), 1))

    monkeypatch.setattr(StreamControls, "_cut", told)
    monkeypatch.setattr(Hijack, "placement", cheat)
    passed = {row["control"]: row["passed"] for row in controls(3).rows(CELL, ThreatModel(images=100))}
    assert passed == {"planted": True, "random": False, "labelled": True, "topology": True}


def test_a_hijack_that_guesses_fails_the_positive_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def guess(_: Hijack, traffic: Traffic, evidence: LabelEvidence) -> Placed:
        places = torch.arange(len(evidence.flat))
        return Placed(places, places[:, None], torch.ones(len(places), 1))

    monkeypatch.setattr(Hijack, "placement", guess)
    passed = {row["control"]: row["passed"] for row in controls(10).rows(CELL, ThreatModel(images=100))}
    assert passed == {"planted": False, "random": True, "labelled": False, "topology": True}


@pytest.mark.parametrize("hiding", [{}, {"relays": 2, "batch": 16}, {"per_device": 4}])
def test_the_order_of_what_is_seen_says_nothing(hiding: dict[str, int]) -> None:
    """The service lists its messages by position, the answer; the tap must not."""
    _, answer = planted(0, 1.0)
    rng, own, obfuscation = np.random.default_rng(0), answer.placement.positions.numpy(), Obfuscation(**hiding)
    deployment = Deployment.dealt(sizes_of(answer), rng, obfuscation.per_device, own=own)
    traffic, _ = tap(simulate(deployment, 1, rng, obfuscation), deployment, obfuscation, 0.0, rng, own)
    listed = own[traffic.block]
    assert abs(np.corrcoef(listed[:-1], listed[1:])[0, 1]) < 0.5
    assert abs(np.corrcoef(listed, np.arange(len(listed)))[0, 1]) < 0.3


def test_leaks_of_own_devices_count_where_links_say_nothing() -> None:
    """A coordinator hides rows, packing which block is whose: a leak of an own device with one block still tells."""
    model = with_random_layers(small.network(small.WIDE), {"3": None}, (1,))
    puzzle, answer = small.puzzle(model, small.WIDE, small.dataset(pirate=100), 16, images=100)
    rng, own, count = np.random.default_rng(0), answer.placement.positions.numpy(), sizes_of(answer).count
    deployment = Deployment.dealt(sizes_of(answer), rng, topology="coordinator", own=own)
    served = simulate(deployment, 1, rng)
    traffic, _ = tap(served, deployment, Obfuscation(), 0.0, rng, own, count)
    found = Hijack().placement(traffic, evidence_of(puzzle, MACHINE)).placement
    assert (found == answer.placement.positions).all()
    packed = Deployment.dealt(sizes_of(answer), rng, 4, own=own)
    traffic, _ = tap(simulate(packed, 1, rng), packed, Obfuscation(per_device=4), 0.0, rng, own, count)
    evidence = evidence_of(puzzle, MACHINE)
    groups = Hijack().groups(traffic)
    told = with_leaks(evidence, traffic, groups)
    assert torch.equal(told.by_column, evidence.by_column), "which of its four blocks lies there nobody said"


def test_leaked_places_help_a_pirate_who_holds_blocks() -> None:
    """Half of the devices' places, on a layer that says nothing itself."""
    model = with_random_layers(small.network(small.WIDE), {"3": None}, (1,))
    puzzle, answer = small.puzzle(model, small.WIDE, small.dataset(pirate=100), 16, images=100)
    rng, own = np.random.default_rng(0), answer.placement.positions.numpy()
    deployment = Deployment.dealt(sizes_of(answer), rng, own=own)
    served = simulate(deployment, 1, rng)
    right = []
    for labelled in (0, 64):
        traffic, _ = tap(served, deployment, Obfuscation(), 1.0, np.random.default_rng(1), own, labelled)
        found = Hijack().placement(traffic, evidence_of(puzzle, MACHINE)).placement
        right.append(float((found == answer.placement.positions).double().mean()))
    assert right[0] < 0.1
    assert right[1] == 1.0


def test_misdirected_messages_go_elsewhere_and_are_as_many() -> None:
    rng = np.random.default_rng(0)
    deployment = Deployment.dealt(sizes_of(planted(0, 1.0)[1]), rng)
    served = simulate(deployment, 2, rng)
    moved = misdirected(served, deployment, rng)
    assert (moved.flows.bytes == served.flows.bytes).all()
    slices = np.isin(served.flows.destination, deployment.device_at)
    assert (moved.flows.destination[~slices] == served.flows.destination[~slices]).all()
    assert (moved.flows.source[slices] == served.flows.source[slices]).all()
    assert (moved.flows.destination[slices] != served.flows.destination[slices]).mean() > 0.9
    assert set(moved.flows.destination[slices]) == set(served.flows.destination[slices])


def judged(layouts: int = 2) -> pd.DataFrame:
    """The rows of one victim's hijacks: cells with all blocks held, and one with none."""
    model, data = small.network(small.WIDE), small.dataset(pirate=100)
    puzzle, answer = small.puzzle(model, small.WIDE, data, 16, images=100)
    cells = [StreamCell(**{**vars(CELL), "layout": layout}) for layout in range(layouts)]
    cells.append(StreamCell(**{**vars(CELL), "held": 0.0, "observed": 1.0}))
    puzzles, answers = {0.0: puzzle, 1.0: puzzle}, {0.0: answer, 1.0: answer}
    traffic, _ = tap_cells(cells, answers, (0,))
    found = found_of(found_arrays(list(hijack_cells(cells, puzzles, traffic, MACHINE, Fingerprint()))), len(cells))
    judge = Judge(puzzle, answer, model, data, MACHINE.device)
    about = {"study": "small", "victim_seed": 0, "victim": "victim", "layer": "3", "block_size": 16}
    return hijack_table(cells, found, {1.0: judge}, about, {"device_minutes": 2.0, "device": "here"}, "here")


def test_a_hijack_stands_beside_the_pirate_without_blocks_and_the_ceiling() -> None:
    table = judged()
    assert list(table.columns) == COLUMNS["hijacks"]
    assert table["attack"].tolist() == ["hijack-adaptive", "nothing", "whitebox"] * 2
    assert table["seed"].tolist() == [0] * 3 + [1] * 3
    assert set(table["threat"]) == {"layer-1-100-none+stream-0-1"}
    assert table["cost_over_retraining"].tolist() == pytest.approx((table["device_minutes"] / 2).tolist())


def test_the_verdict_takes_the_mean_over_layouts() -> None:
    seeds = [judged().assign(victim_seed=seed) for seed in range(5)]
    table = pd.concat(seeds, ignore_index=True)
    hijack = table["attack"] == "hijack-adaptive"
    table.loc[hijack, "accuracy"] = [0.7, 0.9] * 5
    table.loc[table["attack"] == "nothing", "accuracy"] = 0.2
    table.loc[table["role"] == "ceiling", "accuracy"] = 0.9
    about = {"victim": "victim", "attack": "hijack-adaptive", "control": "random", "threat": table["threat"].iloc[0]}
    passed = pd.DataFrame([about | {"passed": True}])
    (row,) = verdict_table(table, passed).itertuples(index=False)
    assert (row.verdict, row.attack, row.against, row.seeds) == ("broken", "hijack-adaptive", "nothing", 5)
    assert row.accuracy == pytest.approx(0.8)
    assert (
        f"{held(row.threat, row.keep)}: {grants(row.images, row.knows, row.threat)}"
        == "100 %: 100 unlabelled images; traffic of its own devices, 1 request"
    )
    (row,) = verdict_table(table, passed.assign(passed=False)).itertuples(index=False)
    left_out = "left out: hijack-adaptive (control failed: random; reached 80.0 %)"
    assert (row.verdict, row.controls) == ("invalid", left_out)
    other = passed.assign(threat=passed["threat"] + "+relays=2", passed=False)
    (row,) = verdict_table(table, pd.concat([passed, other])).itertuples(index=False)
    assert (row.verdict, row.controls) == ("broken", "passed"), "another service's control"
    (row,) = verdict_table(table, other).itertuples(index=False)
    assert (row.verdict, row.controls) == ("invalid", "left out: hijack-adaptive (no control; reached 80.0 %)")


def test_who_has_traffic_can_ignore_it() -> None:
    hijacks = pd.concat([judged(1).assign(victim_seed=seed) for seed in range(5)], ignore_index=True)
    plain = hijacks[hijacks["role"] != "ceiling"].assign(threat="layer-1-100-none")
    attacks = plain.replace({"attack": {"hijack-adaptive": "fingerprint"}}).assign(accuracy=0.9)
    both = beside_traffic(hijacks, attacks)
    assert set(both["attack"]) == {"hijack-adaptive", "fingerprint", "nothing", "whitebox"}
    assert set(both["threat"]) == {"layer-1-100-none+stream-0-1"}
    assert chosen(both, "blocks")["attack"].tolist() == ["fingerprint"] * 5
    for missing in (attacks.assign(threat="layer-0.5-100-none"), attacks[attacks["victim_seed"] > 0]):
        assert set(beside_traffic(hijacks, missing)["attack"]) == {"hijack-adaptive", "nothing", "whitebox"}


def test_threats_with_other_traffic_are_other_threats() -> None:
    grant = ThreatModel(share=0.25, images=100)
    hiding = Obfuscation(cover=2, fixed=True)
    cells = [
        CELL,
        StreamCell(**{**vars(CELL), "requests": 10, "observed": 0.5}),
        StreamCell(**{**vars(CELL), "obfuscation": hiding}),
        StreamCell(**{**vars(CELL), "topology": "coordinator", "order": "forward"}),
        StreamCell(**{**vars(CELL), "labelled": 7}),
    ]
    names = [cell.threat_name(grant) for cell in cells]
    assert len(set(names)) == len(names)
    assert names[2] == "layer-0.25-100-none+stream-0-1+cover=2-fixed=1"
    assert names[3] == "layer-0.25-100-none+stream-0-1+coordinator-forward"
    assert [service_of(name) for name in names] == ["", "", "cover=2-fixed=1", "coordinator-forward", ""]
    assert service_of(grant.name) == ""


def test_the_older_name_of_cover_is_read_with_the_same_draws() -> None:
    older, newer = (Obfuscation.model_validate({name: 2, "fixed": True}) for name in ("decoys", "cover"))
    assert older == newer
    assert (newer.name, newer.params) == ("cover", "cover=2 fixed=1")
    assert draws_of(replace(CELL, obfuscation=newer)) == "decoys=2-fixed=1", "as when `cover` was `decoys`"
    (cell,) = cells_of_json(cells_json([replace(CELL, obfuscation=newer)]).replace('"cover"', '"decoys"'))
    assert cell.obfuscation == newer
    with pytest.raises(ValidationError, match="decoys: the older name of cover, which is given too; expected one"):
        Obfuscation.model_validate({"decoys": 2, "cover": 2})


def test_each_hijack_is_controlled_once_on_each_service() -> None:
    config = StreamConfig.model_validate(
        {
            "grids": [
                {"held": [0.0, 0.25, 0.5], "requests": [1, 10], "hijacks": ["adaptive", "naive"]},
                {"held": [0.1], "obfuscations": [{"relays": 2}], "hijacks": ["adaptive"], "labelled": [5]},
                {"obfuscations": [{"padding": 64}], "hijacks": ["adaptive"]},
            ]
        }
    )
    cells = held_services(config, "victim")
    assert [(cell.hijack, cell.service, cell.held, cell.requests) for cell in cells] == [
        ("adaptive", "", 0.5, 10),
        ("naive", "", 0.5, 10),
        ("adaptive", "relays=2", 0.1, 1),
    ]
    assert {(cell.labelled, cell.layout) for cell in cells} == {(0, 0)}
