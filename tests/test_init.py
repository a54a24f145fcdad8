"""`scatterproof init`: a study that fits the model and the data that it was made for, or one line."""

from pathlib import Path

import pytest
import yaml

import transformers_folders as folders
from scatterproof.command.main import main
from scatterproof.config.study import read_study

DIGITS = ["vgg16_bn", "--data", "digits", "--width", "0.0625"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["init", *arguments]) == 1
    line = capsys.readouterr().err
    assert line.startswith("scatterproof: error: ") and line.count("\n") == 1
    return line


def test_a_model_to_be_trained_gets_five_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And blocks of which the layer has a hundred or more; `check` finds nothing wrong."""
    monkeypatch.chdir(tmp_path)
    assert main(["init", *DIGITS, "--out", "My study.yaml"]) == 0
    study = read_study("My study.yaml")
    assert study.study == "my-study" and study.victim.layer == "classifier.0" and study.block_sizes == [64]
    assert study.victim.seeds == [0, 1, 2, 3, 4] and study.attacks.draws == 1
    assert main(["check", "My study.yaml"]) == 0


def test_a_model_of_which_there_is_one_gets_ten_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders.write_folder(tmp_path / "gpt2", "gpt2")
    folders.write_text(tmp_path / "text.txt", 200)
    assert main(["init", "hf:gpt2", "--data", "text.txt", "--length", "16"]) == 0
    study = read_study("study.yaml")
    assert study.victim.kind == "checkpoint" and study.victim.seeds == [0] and study.attacks.draws == 10
    assert study.dataset.tokenizer == "gpt2" and study.dataset.length == 16
    text = Path("study.yaml").read_text()
    for line in text.splitlines():
        assert len(line) < 140
    assert "transformer.h.0.mlp.c_fc" in text
    assert main(["check", "study.yaml"]) == 0


def test_nothing_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("mine")
    assert "is there already" in refusal(capsys, *DIGITS, "--out", str(file))
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["vgg16_bn", "--data", "nowhere.npz"], "no such file or folder"),
        (["vgg16_bm", "--data", "digits"], "vgg16_bm"),
        (["vgg16_bn", "--data", "digits", "--layer", "classifier.9"], "expected a dense layer, one of: classifier.0"),
        (["vgg16_bn", "--data", "digits", "--checkpoint", "none.pt"], "no such file"),
        (["torchvision:vit_b_32", "--data", "digits"], "fails on images [2, 3, 32, 32]"),
        (["torchvision:resnet18", "--data", "digits", "--model-args", "{dim: 1}"], "unexpected keyword argument"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refusal(capsys, *arguments, "--out", str(tmp_path / "study.yaml"))
    assert not (tmp_path / "study.yaml").exists()


def test_an_encoder_wants_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders.write_folder(tmp_path / "encoder", "bert")
    folders.write_text(tmp_path / "text.txt", 50)
    model, data = f"hf:{tmp_path / 'encoder'}", str(tmp_path / "text.txt")
    assert "expected --index FILE" in refusal(capsys, model, "--data", data, "--out", str(tmp_path / "study.yaml"))


def test_arguments_of_a_model_are_keys_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["init", *DIGITS, "--model-args", "classes"])
    assert "expected keys and values" in capsys.readouterr().err


def test_the_text_is_a_study_as_its_comments_say(tmp_path: Path) -> None:
    """Keys of the file are those of a study: none is ignored."""
    assert main(["init", *DIGITS, "--out", str(tmp_path / "a.yaml")]) == 0
    keys = yaml.safe_load((tmp_path / "a.yaml").read_text())
    assert set(keys) == {"study", "dataset", "victim", "block_sizes", "prune", "shuffle", "attacks"}
