"""A network cut at a dense layer says what the whole network says; one that can't be cut stays whole."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scatterproof.config.victim import VictimConfig
from scatterproof.evaluation.readers import reading_weights
from scatterproof.evaluation.split import split_at
from scatterproof.victims.models import build_model
from small import network, vgg


class Token(nn.Module):
    """A residual around a dense layer on tokens [N, T, d], as a vision transformer has it."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 12, 8, 8)
        self.norm = nn.LayerNorm(12)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.position = nn.Parameter(torch.randn(1, 16, 12))
        self.head = nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.project(images).flatten(2).transpose(1, 2) + self.position
        x = x + self.down(F.gelu(self.up(self.norm(x)))) + self.position
        logits: torch.Tensor = self.head(x.mean(1))
        return logits


class Dense(nn.Module):
    """The base of the small networks below: dense layers registered in another order than they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.side = nn.Linear(6, 5), nn.Linear(7, 6)
        self.second, self.first = nn.Linear(7, 6), nn.Linear(12, 7)
        self.relu, self.overwrite = nn.ReLU(), nn.ReLU(inplace=True)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(images, 2).flatten(1)


class Scattered(Dense):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.first(self.features(images)))
        return self.out(F.relu(self.second(hidden))) + F.pad(self.side(hidden), (0, -1))


class Parallel(Dense):
    """A branch beside the first layer holds another."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.features(images)
        return self.out(self.second(F.relu(self.first(x))) + self.side(x[:, :7]))


class Branching(Dense):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(self.features(images))
        return self.out(self.second(x) if x.sum() > 0 else self.side(x))


class Twice(Dense):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(self.features(images))
        return self.out(self.second(x) + self.second(F.relu(x)))


class ReadsWeight(Dense):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.features(images)
        return self.out(self.second(self.first(x) @ self.first.weight[:, :7]))


class ByKeyword(Dense):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.out(self.second(self.first(input=self.features(images))))


class AddsInPlace(Dense):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.features(images)
        x += F.pad(self.first(x), (0, 5))
        return self.out(self.second(x[:, :7]))


class OverwritesLater(Dense):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.features(images)
        y = self.first(x)
        return self.out(self.second(y) + self.overwrite(x)[:, :6])


class OverwritesUnseen(Dense):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.features(images)
        y = self.first(x)
        x.relu_()
        return self.out(self.second(y) + x[:, :6])


def agree(model: nn.Module, layers: list[str], size: int = 32) -> str | None:
    """Hold the cut network to the whole one, twice on the same features; the layer it was cut at."""
    model = model.eval()
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = model(images.clone())
        split = split_at(model, layers)
        features = split.head(images.clone())
        for _ in range(2):
            if split.first is None:
                found = split.tail(features[0].clone())
            else:
                found = split.tail(model.get_submodule(split.first)(features[0]), *features[1:])
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    assert wanted.std(0).max() > 1e-3  # the images matter
    return split.first


@pytest.mark.parametrize("layer", ["classifier.0", "classifier.3", "classifier.6"])
def test_vgg(layer: str) -> None:
    assert agree(network(vgg()), [layer]) == layer


def test_torchvisions_resnet18() -> None:
    torch.manual_seed(0)
    model = build_model(VictimConfig(model="torchvision:resnet18"), 5)
    assert agree(model, ["fc"]) == "fc"


@pytest.mark.parametrize("layer", ["up", "down", "head"])
def test_a_residual_passes_around_a_layer_on_tokens(layer: str) -> None:
    torch.manual_seed(0)
    assert agree(Token(), [layer]) == layer


@pytest.mark.parametrize(
    ("network", "layers", "first"),
    [
        (Scattered, ["out", "side", "second", "first"], "first"),
        (Scattered, ["second", "side"], "second"),
        (Parallel, ["side", "first"], "first"),
        (Parallel, ["out", "side"], "side"),
        (AddsInPlace, ["first"], "first"),
    ],
)
def test_of_several_layers_the_cut_is_at_the_first_to_run(network: type[Dense], layers: list[str], first: str) -> None:
    torch.manual_seed(0)
    assert agree(network(), layers) == first


def test_layers_scattered_in_parallel_branches_are_all_in_the_tail() -> None:
    """No scattered layer's output may be kept with the features, whichever branch runs first."""
    torch.manual_seed(0)
    model = Parallel().eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        split = split_at(model, ["side", "first"])
        features = split.head(images)
        nn.init.ones_(model.side.weight)
        assert split.first == "first"
        found = split.tail(model.first(features[0]), *features[1:])
        torch.testing.assert_close(found, model(images))


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (Branching, ["first"]),
        (Twice, ["second"]),
        (Twice, ["first", "second"]),
        (ReadsWeight, ["first"]),
        (ByKeyword, ["first"]),
        (OverwritesLater, ["first"]),
        (OverwritesUnseen, ["first"]),
    ],
)
def test_a_network_that_cannot_be_cut_stays_whole(network: type[Dense], layers: list[str]) -> None:
    torch.manual_seed(0)
    assert agree(network(), layers) is None


def test_the_head_holds_no_scattered_layer() -> None:
    split = split_at(network(vgg()), ["classifier.0", "classifier.3"])
    assert isinstance(split.head, nn.Module)
    assert not [name for name, _ in split.head.named_modules() if name.startswith("classifier.")]


class Stream(nn.Module):
    """A residual stream that two feed-forward blocks read and write, then a head over its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.norm, self.gate, self.value, self.back = (
            nn.LayerNorm(12),
            *(nn.Linear(12, 9) for _ in "gv"),
            nn.Linear(9, 12),
        )
        self.head = nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(2).unfold(2, 4, 64).transpose(1, 2).flatten(2)
        x = x + F.dropout(self.down(F.gelu(self.up(x), approximate="tanh")), 0.1, self.training)
        y = self.norm(x)
        x = x + self.back(F.silu(self.gate(y)) * self.value(y))
        logits: torch.Tensor = self.head(x.mean(dim=1))
        return logits


def test_layers_that_read_the_outputs_are_found_down_the_residual_stream() -> None:
    torch.manual_seed(0)
    model = Stream().eval()
    nn.init.normal_(model.norm.weight)

    def read(layer: str) -> torch.Tensor | None:
        return reading_weights(split_at(model, [layer]).tail)

    assert agree(model, ["down"]) == "down"
    assert torch.equal(read("up"), model.down.weight)
    assert torch.equal(read("value"), model.back.weight), "through the gate"
    found = read("down")
    assert found is not None and len(found) == 9 + 9 + 5
    direction = torch.randn(12)
    centred = model.norm.weight * (direction - direction.mean())
    wanted = torch.cat([model.gate.weight @ centred, model.value.weight @ centred, model.head.weight @ direction])
    torch.testing.assert_close((found @ direction).sort().values, wanted.sort().values)
    assert read("head") is None


def test_a_network_that_cannot_be_traced_has_no_known_readers() -> None:
    torch.manual_seed(0)
    assert reading_weights(split_at(Token().eval(), ["up"]).tail) is not None
    assert reading_weights(split_at(Branching().eval(), ["first"]).tail) is None
