"""Several named inputs of an own network: read from x_train.NAME and x_test.NAME, and handed to `forward` by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from scatterproof.attacks.fingerprint.context import made_up_images
from scatterproof.auditing.audited import read_victim
from scatterproof.check import check_study
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.study import Study
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.errors import UserError
from scatterproof.evaluation.split import split_at
from scatterproof.victims.data import Dataset, load_dataset, read_dataset, save_dataset
from scatterproof.victims.models import build_model

INPUTS = {"ids": "int[6]", "user": "float[3,2]"}
CONFIG = VictimConfig(model="test_named_inputs:recommender", layer="up", inputs=INPUTS)


class Recommender(nn.Module):
    """Logits [n, 4] of items that were seen, ids [n, 6], and of numbers on a user [n, 3, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.up, self.act, self.down = nn.Embedding(20, 10), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)

    def forward(self, user: torch.Tensor, ids: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        x = torch.cat([self.items(ids).mean(1), user.flatten(1)], 1)
        logits: torch.Tensor = self.down(self.act(self.up(x * scale)))
        return logits


def recommender() -> nn.Module:
    return Recommender()


def arrays(**changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for part, count in (("train", 80), ("test", 40)):
        made |= {
            f"x_{part}.ids": rng.integers(0, 20, (count, 6)),
            f"x_{part}.user": rng.normal(size=(count, 3, 2)).astype(np.float32),
            f"y_{part}": np.arange(count) % 4,
        }
    return {name: value for name, value in (made | changed).items() if value is not None}


def read_file(path: Path, **changed: Any) -> Dataset:
    np.savez(path, **arrays(**changed))
    return read_dataset(DatasetConfig(kind="arrays", path=str(path)))


def test_a_network_gets_each_input_by_name(tmp_path: Path) -> None:
    """As one row of numbers it answers what it answered; in an .npz and a .safetensors, saved and read again."""
    data, made = read_file(tmp_path / "own.npz"), arrays()
    save_file(made, tmp_path / "own.safetensors")
    same = read_dataset(DatasetConfig(kind="arrays", path=str(tmp_path / "own.safetensors")))
    save_dataset(data, tmp_path / "dataset")
    for other in (same, load_dataset(tmp_path / "dataset")):
        assert torch.equal(other.test.images, data.test.images) and other.named == data.named == INPUTS
    torch.manual_seed(0)
    plain = recommender().eval()
    model = build_model(CONFIG, 4).eval()
    assert list(model.state_dict()) == list(plain.state_dict())
    model.load_state_dict(plain.state_dict())
    ids, user = torch.from_numpy(made["x_test.ids"]), torch.from_numpy(made["x_test.user"])
    assert torch.equal(model(data.test.images), plain(ids=ids, user=user))


def test_it_is_cut_at_its_layer(tmp_path: Path) -> None:
    data = read_file(tmp_path / "own.npz")
    torch.manual_seed(0)
    model = build_model(CONFIG, 4).eval()
    puzzle, _ = make_puzzle(model, CONFIG, data, ThreatModel(images=5), 8, (0,))
    assert list(puzzle.model()(puzzle.images).shape) == [5, 4]
    split = split_at(model, ["up"])
    assert split.first == "up"
    with torch.inference_mode():
        read, *rest = split.head(data.test.images)
        assert torch.equal(split.tail(model.up(read), *rest), model(data.test.images))


def test_integers_are_not_made_up(tmp_path: Path) -> None:
    data = read_file(tmp_path / "own.npz")
    puzzle, _ = make_puzzle(build_model(CONFIG, 4).eval(), CONFIG, data, ThreatModel(images=0), 8, (0,))
    with pytest.raises(UserError, match="integers among several named inputs"):
        made_up_images(puzzle)


def test_an_audit_takes_the_names_from_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **arrays())
    assert read_victim(CONFIG.model, str(tmp_path / "own.npz")).config.inputs == INPUTS


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "one split": (
        {"x_test.user": None, "x_test.usr": np.zeros((40, 2))},
        r"x_train.user is there for one split alone \(nearest: x_test.usr\)",
    ),
    "another shape": (
        {"x_test.user": np.zeros((40, 6), np.float32)},
        r"x_test.user is float\[6\], expected float\[3,2\]",
    ),
    "fewer rows": (
        {"x_train.user": np.zeros((79, 3, 2))},
        r"x_train.user is \[79, 3, 2\], expected \[80, ...\] as x_train.ids",
    ),
    "both": ({"x_train": np.zeros((80, 2)), "x_test": np.zeros((40, 2))}, "has x_train and x_train.NAME"),
    "large": ({"x_train.ids": np.full((80, 6), 2**25)}, "x_train.ids has integers beyond"),
    "not finite": ({"x_train.user": np.full((80, 3, 2), np.nan)}, "x_train.user has nan"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    changed, expected = FILES[case]
    with pytest.raises(UserError, match=expected) as refused:
        read_file(tmp_path / "own.npz", **changed)
    assert "\n" not in str(refused.value)


STUDIES: dict[str, tuple[dict[str, str], str]] = {
    "none": ({}, r"holds several named inputs, expected victim.inputs: \{ids: 'int\[6\]', user: 'float\[3,2\]'\}"),
    "misspelt": ({"ids": "int[6]", "usr": "float[3,2]"}, r"victim.inputs 'usr': not in .*own.npz \(nearest: user\)"),
    "another shape": (INPUTS | {"ids": "int[7]"}, r"victim.inputs 'ids' is int\[7\], but in .*own.npz int\[6\]"),
    "too few": ({"ids": "int[6]"}, "victim.inputs lacks 'user' of"),
}


@pytest.mark.parametrize("case", STUDIES)
def test_a_study_of_other_names_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    inputs, expected = STUDIES[case]
    data = read_file(tmp_path / "own.npz")
    victim = {"model": CONFIG.model, "layer": "up", "inputs": inputs, "train": {"augment": "none"}}
    about = {"kind": "arrays", "path": str(tmp_path / "own.npz")}
    keys = {"study": "named", "block_sizes": [8], "prune": {"images": 5}}
    study = Study.model_validate(keys | {"victim": victim, "dataset": about})
    with pytest.raises(UserError, match=expected) as refused:
        check_study(study, data)
    assert "\n" not in str(refused.value)


def test_a_network_of_other_arguments_is_refused() -> None:
    with pytest.raises(UserError, match=r"has no argument 'usr' of victim.inputs \(nearest: user\)"):
        build_model(CONFIG.model_copy(update={"inputs": {"ids": "int[6]", "usr": "float[3,2]"}}), 4)
    with pytest.raises(UserError, match=r"its forward needs 'user', which victim.inputs lacks"):
        build_model(CONFIG.model_copy(update={"inputs": {"ids": "int[6]"}}), 4)
    with pytest.raises(ValueError, match="takes one input, expected MODULE:FUNCTION"):
        VictimConfig(model="vgg16", inputs=INPUTS)
