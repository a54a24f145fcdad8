"""Tasks other than one class an input: their scores and chance on planted cases, their files, and a victim of each."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import scatterproof
from other_inputs import RECIPE
from scatterproof.attacks.base import Placed
from scatterproof.check import CheckError, check_study
from scatterproof.command.main import main
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.study import parse_study
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Puzzle
from scatterproof.victims.data import Dataset, DatasetError, load_dataset, read_dataset, save_dataset
from scatterproof.victims.tasks import TASKS, agreement, answers, chance, loss, spread, task_of
from scatterproof.victims.training import train_victim

CPU = torch.device("cpu")
FEATURES, OUTPUTS = 20, 3
OTHER = ("multilabel", "regression")


def labels_of(task: str, count: int = 400, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(count, OUTPUTS, generator=generator)
    own = nn.functional.normalize(numbers.double(), dim=1)
    return {"classification": numbers.argmax(1), "multilabel": numbers > 0.5, "regression": numbers, "embedding": own}[
        task
    ]


def wrong(task: str, outputs: torch.Tensor) -> torch.Tensor:
    """Outputs of a network that is never right, made of those of one that always is."""
    return {"classification": outputs.roll(1, 1), "regression": outputs + 10}.get(task, -outputs)


def perfect(task: str, labels: torch.Tensor) -> torch.Tensor:
    """Outputs of a network that is always right."""
    if task == "classification":
        return nn.functional.one_hot(labels, OUTPUTS).float()
    return labels.float() - 0.5 if task == "multilabel" else labels.clone()


@pytest.mark.parametrize("task", TASKS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_scores_run_from_nothing_right_to_all_right(task: str, seed: int) -> None:
    labels = labels_of(task, seed=seed)
    outputs, scale = perfect(task, labels), spread(labels)
    assert task_of(labels) == task
    assert float(agreement(answers(outputs, task), labels, scale).min()) == pytest.approx(1)
    others = wrong(task, outputs)
    assert agreement(answers(others, task), labels, scale).max() == 0
    assert loss(outputs, labels, task) < loss(others, labels, task)
    each = loss(others, labels, task, "none")
    torch.testing.assert_close(loss(others, labels, task), each.mean())
    torch.testing.assert_close(loss(others, labels, task, "sum"), each.sum())


@pytest.mark.parametrize("task", TASKS)
def test_half_of_the_inputs_right_is_half_the_score(task: str) -> None:
    labels = labels_of(task)
    outputs = perfect(task, labels)
    outputs[::2] = wrong(task, outputs)[::2]
    assert float(agreement(answers(outputs, task), labels, spread(labels)).mean()) == pytest.approx(0.5)


@pytest.mark.parametrize("task", TASKS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_chance_is_the_best_that_one_answer_can_do(task: str, seed: int) -> None:
    """No constant does better, and one does as well."""
    labels = labels_of(task, 60, seed)
    scale, level = spread(labels), chance(labels)
    if task == "classification":
        constants = [torch.tensor(each) for each in range(OUTPUTS)]
    elif task == "multilabel":
        constants = [torch.tensor([bool(bits >> bit & 1) for bit in range(OUTPUTS)]) for bits in range(2**OUTPUTS)]
    elif task == "embedding":
        every_way = nn.functional.normalize(labels_of(task, 2000, seed + 1), dim=1)
        best_tried = float((every_way @ labels.T).clamp(0, 1).mean(1).max())
        assert best_tried - 1e-9 <= level <= best_tried + 0.02
        return
    else:
        best = [
            max(float(((column - c).abs() <= 0.5 * width).double().mean()) for c in torch.linspace(-3, 3, 601))
            for column, width in zip(labels.T, scale, strict=True)
        ]
        assert sum(best) / len(best) == pytest.approx(level, abs=0.02) and level >= sum(best) / len(best) - 1e-9
        return
    scores = [float(agreement(c.expand_as(labels), labels, scale).mean()) for c in constants]
    assert max(scores) == pytest.approx(level)


def arrays(task: str) -> dict[str, Any]:
    """Features, and labels that a network can learn from them."""
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(FEATURES, OUTPUTS)) / FEATURES**0.5
    made: dict[str, Any] = {}
    for part, count in (("train", 700), ("test", 150)):
        x = rng.normal(size=(count, FEATURES)).astype(np.float32)
        numbers = np.tanh(2 * x @ mixing)
        made |= {f"x_{part}": x, f"y_{part}": (numbers > 0).astype(np.int64) if task == "multilabel" else numbers}
    return made


def write(path: Path, task: str, **changed: Any) -> Path:
    np.savez(path, **(arrays(task) | changed))
    return path


def network(features: int = FEATURES) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, OUTPUTS)
    )  # fmt: skip


CONFIG = VictimConfig(model="test_tasks:network", layer="2", train=RECIPE)


@cache
def trained(task: str, folder: Path) -> tuple[Dataset, nn.Module]:
    path = write(folder / f"{task}.npz", task)
    data = read_dataset(DatasetConfig(kind="arrays", path=str(path), task=task, pirate=200))
    return data, train_victim(CONFIG, 0, data, CPU, 1, folder / f"{task}.pt").model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.mark.parametrize("task", OTHER)
def test_a_victim_learns_and_its_blocks_score_as_it_does(task: str, folder: Path) -> None:
    """In their places the blocks are the victim, to the last bit; exchanged they are worse; judge and grids agree."""
    data, model = trained(task, folder)
    assert data.task == task and data.classes == OUTPUTS
    puzzle, answer = make_puzzle(model, CONFIG, data, ThreatModel(images=100), 16, ("test",))
    judge = Judge(puzzle, answer, model, data, CPU)
    right = answer.placement.positions
    worth = judge.score(Placed(right, right[:, None], torch.ones(len(right), 1)))
    assert worth.accuracy == worth.own_accuracy > data.chance + 0.1 and worth.agreement == 1
    rolled = right.roll(1)
    worse = judge.score(Placed(rolled, rolled[:, None], torch.ones(len(right), 1)))
    assert worse.accuracy < worth.accuracy - 0.05 and worse.agreement < 1
    scores = PlacementEvaluator(puzzle, data.test.images, data.test.labels, CPU).score(torch.stack([right, rolled]))
    assert scores.accuracy.tolist() == pytest.approx([worth.accuracy, worse.accuracy])
    assert scores.loss[0] < scores.loss[1]


@pytest.mark.parametrize("task", OTHER)
def test_files_and_puzzles_keep_the_task(task: str, folder: Path, tmp_path: Path) -> None:
    data, model = trained(task, folder)
    save_dataset(data, tmp_path / "dataset.safetensors")
    again = load_dataset(tmp_path / "dataset.safetensors")
    assert again.task == task and torch.equal(again.test.labels, data.test.labels)
    puzzle, _ = make_puzzle(model, CONFIG, data, ThreatModel(images=10), 16, ("test",))
    puzzle.save(tmp_path / "puzzle.safetensors")
    assert Puzzle.load(tmp_path / "puzzle.safetensors").task == task


@pytest.mark.parametrize("task", OTHER)
def test_it_is_audited(task: str, folder: Path, tmp_path: Path) -> None:
    _, model = trained(task, folder)
    weights = tmp_path / "own.pt"
    torch.save(model.state_dict(), weights)
    result = scatterproof.audit(
        "test_tasks:network", str(folder / f"{task}.npz"), task=task, checkpoint=weights, layers=["2"], blocks=16,
        inputs=60, out=tmp_path / "out",
    )  # fmt: skip
    (row,) = result.table.to_dict("records")
    assert row["placed"] > 0.9 and row["copy"] == pytest.approx(row["own"], abs=0.05)
    assert row["without"] < row["own"]
    page = (tmp_path / "out/audit.html").read_text()
    assert ("labels holds" if task == "multilabel" else "half a standard deviation") in page


@pytest.mark.parametrize(
    "task, changed, said",
    [
        ("multilabel", {"y_train": np.full((700, 3), 2)}, "has 2 in row 0, expected 0 and 1 alone"),
        ("multilabel", {"y_train": np.zeros(700, int)}, "expected 0 and 1 [N,K]"),
        ("multilabel", {"y_test": np.ones((150, 3), int)}, "column 0 is the same in each row"),
        ("multilabel", {"y_test": np.eye(150, 4, dtype=int)}, "has 4 columns, expected 3"),
        ("regression", {"y_train": np.full((700, 3), np.nan)}, "has nan in row 0, expected finite numbers"),
        ("regression", {"y_train": np.array(["a"] * 700)}, "expected numbers [N] or [N,K]"),
        ("regression", {"y_test": np.zeros((150, 3))}, "column 0 is the same in each row"),
        ("regression", {"y_test": np.full((150, 3), 1e300)}, "expected finite numbers of float32"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(task: str, changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "own.npz", task, **changed)
    with pytest.raises(DatasetError) as caught:
        read_dataset(DatasetConfig(kind="arrays", path=str(path), task=task))
    assert str(path) in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_need_no_second_axis(tmp_path: Path) -> None:
    made = {name: value[:, 0] for name, value in arrays("regression").items() if name.startswith("y")}
    path = write(tmp_path / "own.npz", "regression", **made)
    assert read_dataset(DatasetConfig(kind="arrays", path=str(path), task="regression")).test.labels.shape == (150, 1)


@pytest.mark.parametrize(
    "more, key",
    [
        ({"attacks": {"grids": [{"images": [50], "knows": ["labels"]}]}}, "attacks.grids.0.knows"),
        ({"attacks": {"grids": [{"images": [50], "defences": ["rescale"]}]}}, "attacks.grids.0.defences"),
        ({"search": {"grids": [{"attacks": ["genetic"], "images": [50]}]}}, "search.grids"),
        ({"plateau": {"correct": [0.5], "images": [10]}}, "plateau.correct"),
    ],
)
def test_what_is_made_for_classes_is_refused(more: dict[str, Any], key: str, folder: Path) -> None:
    data, _ = trained("regression", folder)
    dataset = {"kind": "arrays", "path": str(folder / "regression.npz"), "task": "regression", "pirate": 200}
    victim = {"model": "test_tasks:network", "layer": "2", "seeds": [0]}
    keys = {"study": "own", "dataset": dataset, "victim": victim, "block_sizes": [16]}
    check_study(parse_study(keys, "own.yaml"), data)
    with pytest.raises(CheckError, match=f"{key}.*: is for classes") as caught:
        check_study(parse_study(keys | more, "own.yaml"), data)
    assert "\n" not in str(caught.value)


def test_a_task_of_another_kind_of_data_is_refused(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    trained("regression", folder)
    assert main(["audit", "vgg16_bn", "--data", "digits", "--checkpoint", "x.pt", "--task", "regression"]) == 1
    assert "expected kind 'text' or 'arrays'" in capsys.readouterr().err
