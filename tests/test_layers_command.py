"""`scatterproof layers`: what each dense layer is of its network, and what an attack reads of it."""

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import small
from scatterproof.command.main import main


class Tokens(nn.Module):
    """A stream of four tokens of 8 features: attention, then a feed-forward pair without a bias above."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(48, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 32, bias=False), nn.Linear(32, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(images.flatten(1).reshape(-1, 4, 48))
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        tokens = tokens + self.down(self.up(self.norm(tokens)).relu())
        logits: torch.Tensor = self.head(tokens.mean(1))
        return logits


def tokens() -> nn.Module:
    return Tokens()


class Twice(nn.Module):
    """Calls one layer twice, and another never."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle, self.head = nn.Linear(192, 192), nn.Linear(3, 3), nn.Linear(192, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1)
        logits: torch.Tensor = self.head(self.layer(self.layer(x).relu()))
        return logits


def twice() -> nn.Module:
    return Twice()


def layers(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, str]]:
    assert main(["layers", *arguments, "--csv"]) == 0
    return {row["layer"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["layers", *arguments]) == 1
    line = capsys.readouterr().err
    assert line.startswith("scatterproof: error: ") and line.count("\n") == 1
    return line


def test_shares_are_those_of_the_full_network(capsys: pytest.CaptureFixture[str]) -> None:
    """VGG16 at 32 pixels: 313,196,544 products in its convolutions, 119,578,624 in its dense layers."""
    rows = layers(capsys, "vgg16", "--classes", "10")
    assert [(row["outputs"], row["inputs"]) for row in rows.values()] == [
        ("4096", "25088"),
        ("4096", "4096"),
        ("10", "4096"),
    ]
    products = 313_196_544 + 102_760_448 + 16_777_216 + 40_960
    for row, weights, biases in zip(rows.values(), (102_760_448, 16_777_216, 40_960), (4096, 4096, 10), strict=True):
        assert float(row["flop_share"]) == pytest.approx(weights / products)
        assert float(row["parameter_share"]) == pytest.approx((weights + biases) / 134_301_514)
    assert [row["outputs_read_by"] for row in rows.values()] == [
        "classifier.3", "classifier.6", "nothing: they give the logits",
    ]  # fmt: skip
    assert {row["inputs_seen"] for row in rows.values()} == {"on the pirate's images"}
    assert [row["kind"] for row in rows.values()] == ["hidden layer", "hidden layer", "last layer"]


def test_what_is_found_of_a_token_model_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = layers(capsys, "test_layers_command:tokens", "--input-size", "8")
    assert list(rows) == ["embed", "attention.in_proj", "attention.out_proj", "up", "down", "head"]
    assert rows["up"]["kind"] == "hidden layer, of 4 tokens an input, without a bias"
    assert rows["up"]["outputs_read_by"] == "down"
    assert rows["down"]["outputs_read_by"] == "10 outputs of dense layers further down"
    for name, outputs in (("in_proj", "24"), ("out_proj", "8")):
        row = rows[f"attention.{name}"]
        assert row["outputs"] == outputs and row["inputs_seen"] == "on the pirate's images"
        assert row["kind"] == "hidden layer, of 4 tokens an input"


def test_layers_that_are_not_called_once_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    rows = layers(capsys, "test_layers_command:twice", "--input-size", "8")
    assert rows["layer"]["kind"] == "hidden layer, called 2 times"
    assert rows["layer"]["outputs_read_by"] == "unknown: the network can't be cut at this layer"
    assert float(rows["layer"]["flop_share"]) == pytest.approx(2 * 192 / (2 * 192 + 10))
    assert rows["idle"]["kind"] == "not called"


def test_the_table_has_a_line_a_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "vgg16_bn", "--width", "0.015625", "--input-size", "28", "--classes", "100"]) == 0
    title, empty, head, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith("vgg16_bn: ") and "FLOPs for an image of 28 x 28" in title and not empty
    assert head.split("  ")[0] == "layer" and "outputs x inputs" in head
    assert [line.split()[0] for line in lines] == ["classifier.0", "classifier.3", "classifier.6"]
    assert "100 x 64" in lines[2]


def test_a_checkpoint_must_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(small.tiny().state_dict(), tmp_path / "x.safetensors")
    model = ["small:tiny", "--checkpoint", str(tmp_path / "x.safetensors")]
    assert set(layers(capsys, *model)) == {"4", "7"}
    save_file({"7.bias": torch.ones(5)}, tmp_path / "x.safetensors")
    assert f"--checkpoint '{tmp_path}/x.safetensors': checkpoint of another architecture" in refusal(capsys, *model)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["vgg61"], "vgg16, vgg16_bn, torchvision:NAME, hf:FOLDER or MODULE:FUNCTION (nearest: vgg16)"),
        (["resnet18"], "MODULE:FUNCTION (nearest: torchvision:resnet18)"),
        (["torchvision:resnet81"], "torchvision has no classifier 'resnet81' (nearest: resnet18)"),
        (["small:tinny"], "module 'small' has no attribute 'tinny' (nearest: tiny)"),
        (["smal:tiny"], "expected MODULE:FUNCTION that can be imported: No module named 'smal'"),
        (["vgg16", "--input-size", "64"], "victim.input_size 64: the VGG family takes 28, 32 or 224"),
        (["vgg16", "--width", "0"], "victim.width: Input should be greater than 0, got 0.0"),
        (["small:tiny", "--input-size", "16"], "victim.model 'small:tiny' fails on images [1, 3, 16, 16]"),
        (["test_check:convolutions"], "has no dense layer (nn.Linear)"),
        (["vgg16", "--checkpoint", "none.pt"], "--checkpoint 'none.pt': no such file"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in refusal(capsys, *arguments)
