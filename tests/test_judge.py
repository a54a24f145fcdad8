"""What attacks reach is scored as the plain network would be, each distinct network once, on the images stated."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import small
from scatterproof.attacks.base import Copy, Placed, Reached, Snapshot
from scatterproof.attacks.store import load_found, save_found
from scatterproof.attacks.training.base import assembled, named
from scatterproof.attacks.training.probing import probe_config, probe_tensors
from scatterproof.cutting import logits_on
from scatterproof.evaluation import predictions
from scatterproof.evaluation.head import Head
from scatterproof.evaluation.predictions import Candidate, Predictions, in_fixed_order
from scatterproof.judging import judge as judging
from scatterproof.judging.judge import Judge, copied, rows_together
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset, Split
from scatterproof.victims.models import dense_layers

CPU = torch.device("cpu")
CONFIG, LAYER, BIAS, BEFORE, AFTER = small.WIDE, "3", "3.bias", "1.", "5."
BLOCK, SAMPLE = 24, 20


@cache
def victim() -> nn.Module:
    return small.network(CONFIG)


def half_right() -> Dataset:
    """Test images of which the victim knows every other one."""
    data = small.dataset(test=50)
    own = logits_on(victim(), CONFIG, data, data.test.images).argmax(1)
    return replace(data, test=Split(data.test.images, (own + torch.arange(50) % 2) % 5))


DATA = half_right()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "SAMPLE", SAMPLE)


@cache
def made(share: float = 1.0, images: int = 12, scatter: str = "layer") -> tuple[Puzzle, Answer]:
    about = {"share": share, "images": images, "scatter": scatter, "knows": "labels"}
    return small.puzzle(victim(), CONFIG, DATA, BLOCK, **about)


def judge(*puzzle: Any) -> Judge:
    found, answer = puzzle or made()
    return Judge(found, answer, victim(), DATA, CPU)


def placed(placement: torch.Tensor) -> Placed:
    return Placed(placement, placement[:, None], torch.ones(len(placement), 1))


def shuffled(puzzle: Puzzle, seed: int) -> Placed:
    """Each block at a place of its shape."""
    generator, placement = torch.Generator().manual_seed(seed), torch.zeros(len(puzzle.blocks), dtype=torch.int64)
    for shape in puzzle.shapes.unique(dim=0):
        mine, there = ((each == shape).all(1).nonzero().flatten() for each in (puzzle.shapes, puzzle.layout.shapes()))
        placement[mine] = there[torch.randperm(len(there), generator=generator)[: len(mine)]]
    return placed(placement)


def weights(seed: int) -> dict[str, torch.Tensor]:
    return {f"{LAYER}.weight": 0.1 * torch.randn(128, 256, generator=torch.Generator().manual_seed(seed))}


def probe(puzzle: Puzzle) -> Copy:
    weight = torch.randn(5, 256, generator=torch.Generator().manual_seed(0))
    return Copy(probe_tensors(puzzle, weight, torch.arange(5.0)), probe_config(puzzle, 256))


def steps(*reached: Reached) -> list[Snapshot]:
    return [Snapshot(0.5 * number, each) for number, each in enumerate(reached)]


def reached_on(puzzle: Puzzle, answer: Answer) -> dict[str, list[Snapshot]]:
    return {
        "fingerprint": steps(shuffled(puzzle, 0), shuffled(puzzle, 1), placed(answer.placement.positions)),
        "nothing": steps(Copy({})),
        "layer": steps(Copy(weights(0)), Copy(weights(1))),
        "probe": steps(probe(puzzle)),
    }


def network(puzzle: Puzzle, reached: Reached) -> nn.Module:
    """The same by the plain network."""
    if isinstance(reached, Copy):
        return copied(reached, puzzle)
    model = puzzle.model()
    for name, weight in assembled(puzzle, reached.placement).items():
        dense_layers(model)[name].weight.data.copy_(weight)
    return model


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_every_step_is_worth_what_the_plain_network_is_on_as_many_images_as_stated(share: float) -> None:
    puzzle, answer = made(share)
    reached = reached_on(puzzle, answer)
    rows = judge(puzzle, answer).rows(reached)
    ends = [each for each in reached.values() for each in each]
    order = in_fixed_order(DATA.test.images).order
    assert order is not None
    own = victim()(puzzle.inputs(DATA.test.images)).argmax(1)
    for row, snapshot in zip(rows, ends, strict=False):
        some = order[: row["test_images"]]
        config = getattr(snapshot.reached, "config", None) or CONFIG
        classes = logits_on(network(puzzle, snapshot.reached), config, DATA, DATA.test.images[some]).argmax(1)
        assert row["accuracy"] == float((classes == DATA.test.labels[some]).double().mean())
        assert row["fidelity"] == float((classes == own[some]).double().mean())
        assert row["relative_accuracy"] == row["accuracy"] / float((own == DATA.test.labels)[some].double().mean())
    assert [row["test_images"] for row in rows] == [20, 20, 50, 50, 20, 50, 50, 50]
    assert len({row["fidelity"] for row in rows}) > 4
    assert (rows[-1]["role"], rows[-1]["fidelity"], rows[-1]["relative_accuracy"]) == ("ceiling", 1.0, 1.0)


def test_the_images_of_earlier_steps_are_the_same_wherever_they_are_drawn() -> None:
    order = in_fixed_order(DATA.test.images).order
    assert order is not None and sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, in_fixed_order(torch.zeros(50, 3, 4, 4, dtype=torch.uint8)).order)
    assert order[:SAMPLE].tolist() != list(range(SAMPLE))


def test_all_are_scored_where_there_are_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "SAMPLE", 2000)
    assert {row["test_images"] for row in judge().rows(reached_on(*made()))} == {50}


# Together and once


def counting(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The (key, images) of every run from here on."""
    runs: list[tuple[str, int]] = []
    add = Predictions.add

    def counted(candidate: Candidate) -> Candidate:
        def logits(part: Any) -> Iterator[torch.Tensor]:
            runs.append((candidate.key, len(part[0])))
            return candidate.logits(part)

        return candidate._replace(logits=logits)

    def counted_add(self: Predictions, wanted: Any) -> None:
        add(self, [(counted(each), count) for each, count in wanted])

    monkeypatch.setattr(Predictions, "add", counted_add)
    return runs


def job() -> list[tuple[Judge, dict[str, list[Snapshot]]]]:
    """Threats of one victim, as a job has them."""
    judged: list[tuple[Judge, dict[str, list[Snapshot]]]] = []
    for share, images in ((1.0, 12), (1.0, 5), (0.4, 12)):
        found, answer = made(share, images)
        mine = judged[-1][0].of(found, answer) if judged else judge(found, answer)
        judged.append((mine, reached_on(found, answer)))
    return judged


def test_threats_of_a_job_have_the_rows_that_they_have_alone() -> None:
    for rows, (each, reached) in zip(rows_together(job()), job(), strict=True):
        assert rows == Judge(each.puzzle, each.answer, victim(), DATA, CPU).rows(reached)


def test_every_distinct_network_is_run_once_on_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = counting(monkeypatch)
    rows_together(job())
    seen = {key: sum(images for other, images in runs if other == key) for key, _ in runs}
    assert set(seen.values()) == {20, 50}
    last = 6  # the victim, also all blocks in their places; those of the second share; nothing; layer; probe
    assert sum(images == 50 for images in seen.values()) == last - 1
    assert sum(images == 20 for images in seen.values()) == 2 * 2 + 1  # two placements of each share, and a layer


def test_the_layers_before_run_once_for_all_puzzles_of_a_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[Puzzle] = []
    init = Head.__init__

    def counted(self: Head, puzzle: Puzzle, *more: Any) -> None:
        heads.append(puzzle)
        init(self, puzzle, *more)

    monkeypatch.setattr(Head, "__init__", counted)
    monkeypatch.setattr(judging, "logits_on", None)  # no network runs as a whole
    rows_together(job())
    assert len(heads) == 1


def test_features_that_do_not_fit_are_made_once_for_all_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rows_together(job())
    monkeypatch.setattr(judging, "LIMIT", 7 * 4 * 256)
    made_parts: list[tuple[int, int]] = []
    at = Head.at

    def counted(self: Head, begin: int, end: int) -> Any:
        made_parts.append((begin, end))
        return at(self, begin, end)

    monkeypatch.setattr(Head, "at", counted)
    assert rows_together(job()) == whole
    assert made_parts == [(at, min(at + 7, 20)) for at in range(0, 20, 7)] + [
        (at, min(at + 7, 50)) for at in range(20, 50, 7)
    ]


def test_equal_weights_are_one_network_whatever_they_come_from() -> None:
    mine = judge(*made())
    others = mine.of(*made(0.4))
    own, zero = ({f"{LAYER}.weight": each} for each in (dense_layers(victim())[LAYER].weight, torch.zeros(128, 256)))
    assert key(mine, placed(mine.answer.placement.positions)) == key(mine, Copy(own)) == key(others, Copy(own))
    assert key(mine, Copy({})) == key(others, Copy({})) == key(others, Copy(zero))
    assert key(mine, shuffled(mine.puzzle, 0)) == key(mine, Copy(named(assembled_at(mine, 0))))
    different = [key(each, shuffled(each.puzzle, seed)) for each in (mine, others) for seed in range(2)]
    different += [key(mine, each) for each in (Copy({}), Copy(own), Copy(weights(0)), probe(mine.puzzle))]
    assert len(set(different)) == len(different) == 8


def key(judge: Judge, reached: Reached) -> str:
    return judge.candidate(reached).key


def assembled_at(judge: Judge, seed: int) -> dict[str, torch.Tensor]:
    return assembled(judge.puzzle, shuffled(judge.puzzle, seed).placement)


# What is run of a network


def changed(state: dict[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    """Other values in the tensors whose names start so."""
    generator = torch.Generator().manual_seed(2)
    return {
        name: value + torch.rand(value.shape, generator=generator)
        for name, value in state.items()
        if name.startswith(start) and value.is_floating_point()
    }


@pytest.mark.parametrize(("start", "whole"), [(AFTER, False), (BIAS, False), (BEFORE, True)])
def test_a_copy_that_differs_from_the_layer_on_alone_is_run_from_there(start: str, whole: bool) -> None:
    mine = judge()
    copy = Copy(weights(0) | changed(mine.puzzle.state, start))
    candidate = mine.candidate(copy)
    assert (candidate.head is None) == whole
    assert candidate.key != key(mine, Copy(weights(0)))
    classes = logits_on(copied(copy, mine.puzzle), CONFIG, DATA, DATA.test.images).argmax(1)
    assert mine.score(copy).accuracy == float((classes == DATA.test.labels).double().mean())
    plain = logits_on(copied(Copy(weights(0)), mine.puzzle), CONFIG, DATA, DATA.test.images).argmax(1)
    assert not torch.equal(classes, plain)


def test_a_probe_is_run_as_one_layer_behind_the_features_also_when_read_from_its_file(tmp_path: Path) -> None:
    mine = judge()
    save_found(tmp_path / "found", {"probe": steps(probe(mine.puzzle))})
    (found,) = load_found(tmp_path / "found")["probe"]
    assert mine.candidate(found.reached).head is mine.layers.head
    assert isinstance(found.reached, Copy)
    other = replace(found.reached, tensors=found.reached.tensors | changed(found.reached.tensors, f"head.{BEFORE}"))
    assert mine.candidate(other).head is None, "a probe of another network"


def test_a_puzzle_that_differs_from_the_layer_on_is_judged_by_the_victims_own_answers() -> None:
    """As where a defence permutes and rescales what the scattered layer gives: blocks, bias, and the next layer."""
    puzzle, answer = made()
    order, scale = torch.randperm(128, generator=torch.Generator().manual_seed(0)), torch.linspace(0.5, 2, 128)
    state = {name: value.clone() for name, value in victim().state_dict().items()}
    state[f"{LAYER}.weight"] = (state[f"{LAYER}.weight"] * scale[:, None])[order]
    state[f"{LAYER}.bias"] = (state[f"{LAYER}.bias"] * scale)[order]
    state[f"{AFTER}weight"] = (state[f"{AFTER}weight"] / scale)[:, order]
    rescaled = victim_of(state)
    defended, _ = small.puzzle(rescaled, CONFIG, DATA, BLOCK, images=12, knows="labels")
    base = judge(puzzle, answer)
    mine = base.of(defended, answer)
    assert mine.layers.head is base.layers.head
    assert mine.known_places.agreement == 1.0, "the same function"
    reached = {"fingerprint": steps(shuffled(defended, 0), shuffled(defended, 1)), "nothing": steps(Copy({}))}
    rows = mine.rows(reached)
    assert rows == Judge(defended, answer, victim(), DATA, CPU).rows(reached)
    assert base.rows(reached) == judge(puzzle, answer).rows(reached)
    assert rows[-1]["accuracy"] == base.rows(reached)[-1]["accuracy"]


def victim_of(state: dict[str, torch.Tensor]) -> nn.Module:
    model = small.network(CONFIG)
    model.load_state_dict(state)
    return model


def test_a_puzzle_of_another_network_is_judged_by_its_own_features() -> None:
    other = small.network(CONFIG, seed=1)
    puzzle, answer = small.puzzle(other, CONFIG, DATA, BLOCK, images=12, knows="labels")
    mine = judge().of(puzzle, answer, other)
    assert mine.rows(reached_on(puzzle, answer)) == Judge(puzzle, answer, other, DATA, CPU).rows(
        reached_on(puzzle, answer)
    )


def test_several_layers_are_judged_too() -> None:
    puzzle, answer = made(scatter="dense")
    mine = Judge(puzzle, answer, victim(), DATA, CPU)
    assert mine.known_places.agreement == 1.0
    classes = logits_on(network(puzzle, shuffled(puzzle, 0)), CONFIG, DATA, DATA.test.images).argmax(1)
    assert mine.score(shuffled(puzzle, 0)).accuracy == float((classes == DATA.test.labels).double().mean())
    with pytest.raises(ValueError, match="a puzzle of other layers"):
        judge().of(puzzle, answer)


def test_puzzles_of_a_victim_share_their_tensors() -> None:
    first = judge(*made())
    second = first.of(*made(images=5))
    assert second.puzzle.blocks is first.puzzle.blocks
    assert all(value is first.puzzle.state[name] for name, value in second.puzzle.state.items())


def test_the_benchmark_compares_two_ways_that_say_the_same() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "scoring.py"
    command = [sys.executable, script, "--small", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    figures = {name: float(value) for name, value, *_ in lines if name != "device"}
    assert figures["steps"] == 48 and figures["difference"] <= 1 / 40
    assert figures["one_pass.seconds"] > 0 and figures["one_by_one.seconds"] > 0
    share = figures["one_pass.seconds"] / figures["one_by_one.seconds"]
    assert figures["share_of_seconds"] == pytest.approx(share, rel=0.01)
