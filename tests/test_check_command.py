"""`scatterproof check`: all that a study names, looked at before it is run, and nothing left behind."""

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import small
import workflow
from scatterproof.command.main import main
from scatterproof.config.study import load_mapping

STUDY: dict[str, Any] = {
    "study": "own",
    "dataset": {"kind": "npz", "path": "own.npz", "pirate": 12},
    "victim": {"model": "small:tiny", "kind": "checkpoint", "checkpoint": "own.pt", "layer": "4"},
    "block_sizes": [16, 8],
    "prune": {"corrections": ["none"]},
    "search": {"grids": []},
    "plateau": {"correct": []},
    "stream": {"grids": []},
    "retraining": {"recipes": {}},
    "attacks": {"grids": [{"attacks": ["fingerprint"], "keep": [0.5, 1.0], "images": [4]}]},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint and images, each in a form that needs to be said."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8)) / 255
    labels = np.arange(60) % 5
    np.savez("own.npz", X_train=images[:40], y_train=labels[:40], X_test=images[40:], y_test=labels[40:])
    torch.save({"model": small.tiny().state_dict()}, "own.pt")
    return tmp_path


def write(study: dict[str, Any]) -> str:
    Path("study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    return "study.yaml"


def changed(path: str, value: Any) -> dict[str, Any]:
    study = deepcopy(STUDY)
    *sections, key = path.split(".")
    part = study
    for section in sections:
        part = part[section]
    part[key] = value
    return study


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_it_would_run_is_one_line_and_nothing_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(STUDY)
    before = files(folder)
    assert main(["check", "study.yaml"]) == 0
    said = capsys.readouterr()
    # One puzzle for each block size and each threat; `nothing` stands beside every attack.
    counts = "1 victim read from a checkpoint, 4 puzzles, 2 threats, 4 attacks"
    assert said.out == f"study.yaml: all fits; it would run {counts}\n"
    assert "own.npz: X_train is x_train" in said.err and "read under 'model'" in said.err
    assert files(folder) == before and not (folder / "results").exists()


def test_a_puzzle_of_several_stages_is_counted_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two sizes of three victims; further ones of two searches, five threats, and a third size of F."""
    assert main(["check", write(workflow.TINY)]) == 0
    assert "run 3 victims to train, 14 puzzles, 7 threats, 15 attacks, 5 searches\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("study", "line"),
    [
        (changed("victim.layerz", "4"), "study.yaml: victim.layerz: unknown key (nearest: layer)"),
        (changed("victm", {}), "study.yaml: victm: unknown key (nearest: victim)"),
        (changed("victim.train", {"epoch": 3}), "study.yaml: victim.train.epoch: unknown key (nearest: epochs)"),
        (changed("attacks.grids", [{"block": 1}]), "study.yaml: attacks.grids.0.block: unknown key"),
        (changed("block_sizes", [8, 17]), "error in check_study: block_sizes: block size 17 is larger than the layer"),
        (changed("victim.layer", "0"), "error in check_study: victim.layer '0' is Conv2d, expected a dense layer"),
        (changed("victim.checkpoint", "none.pt"), "error in check_study: victim.checkpoint 'none.pt': no such file"),
        (changed("victim.model", "small:tinny"), "module 'small' has no attribute 'tinny' (nearest: tiny)"),
        (changed("dataset.path", "none.npz"), "error in prepare_dataset: none.npz: No such file or directory"),
        (changed("dataset.pirate", 3), "error in check_study: attacks.grids.images is 4, but the pirate has 3 images"),
    ],
)
def test_what_does_not_fit_is_said_as_the_workflow_says_it(
    folder: Path, study: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", write(study)]) == 2
    said = capsys.readouterr()
    assert line in said.err.splitlines()[-1] and not said.out


def test_a_file_that_cannot_be_read_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "none.yaml"]) == 2
    assert capsys.readouterr().err == "none.yaml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"study: x\n  dataset: {kind: digits}\n", "line 2: mapping values are not allowed here"),
        (b"study: x\n\tdataset: {}\n", "line 2: found character '\\t' that cannot start any token"),
        (b"study: x\nvictim: {seeds: [0], width: 1, seeds: [1]}\n", "line 2: seeds is given twice"),
        (b"[study]\n", "expected a mapping of keys, got list"),
        (b"", "expected a mapping of keys, got NoneType"),
        (b"study: \xff\n", "not YAML: 'utf-8' codec can't decode byte 0xff in position 7: invalid start byte"),
    ],
)
def test_what_is_no_study_is_said_at_once(folder: Path, content: bytes, said: str) -> None:
    """Before torch is imported, which takes seconds."""
    Path("study.yaml").write_bytes(content)
    code = "import sys; from scatterproof.command.main import main; print(main(['check', 'study.yaml']))"
    code += "; assert not {'torch', 'pandas'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("2\n", f"study.yaml: {said}\n")


def test_keys_that_another_mapping_lends_are_not_given_twice(folder: Path) -> None:
    Path("study.yaml").write_text("one: &one {a: 1, b: 2}\ntwo: {<<: *one, b: 3}\n")
    assert load_mapping("study.yaml")["two"] == {"a": 1, "b": 3}


def test_cifar100_is_not_downloaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = changed("dataset", {"kind": "cifar100", "url": "http://127.0.0.1:9/none"})
    study["victim"] = {"width": 1 / 64}
    assert main(["check", write(study)]) == 0
    assert "CIFAR-100 is not here: it is downloaded first, and was not checked" in capsys.readouterr().out
    assert not (folder / "data").exists()
    study["dataset"]["pirate"] = 50_000
    assert main(["check", write(study)]) == 2
    assert "dataset.pirate 50000: expected fewer than the 50000 training images" in capsys.readouterr().err
