"""Networks and checkpoints: torchvision's own names, and one line for everything that does not fit."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from scatterproof.config.victim import VictimConfig
from scatterproof.victims.models import ModelError, build_model, dense_layers, find_layer, load_weights, read_checkpoint
from scatterproof.victims.vision import torchvision
from small import network, vgg

OWN = """
from torch import nn
def net(hidden=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, hidden), nn.Linear(hidden, 5))
def number(): return 17
def broken(): raise KeyError("no such thing")
constant = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the study is run from, with a module of the user's own in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_networks.py").write_text(OWN)
    (tmp_path / "own_unfinished.py").write_text("def net(:\n")
    yield tmp_path
    for name in ("own_networks", "own_unfinished"):
        sys.modules.pop(name, None)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def error(config: VictimConfig) -> str:
    with pytest.raises(ModelError) as caught:
        build_model(config, 5)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The VGG family


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
@pytest.mark.parametrize("size", [28, 32, 224])
def test_at_width_1_the_names_and_shapes_are_torchvisions(name: str, size: int) -> None:
    with torch.device("meta"):
        own = build_model(VictimConfig(model=name, input_size=size), 100)
        theirs = torchvision.models.get_model_builder(name)(num_classes=100)
    assert list(shapes(own).items()) == list(shapes(theirs).items())
    if name == "vgg16":
        assert sum(p.numel() for p in own.parameters()) == 134_670_244
    load_weights(own, theirs.state_dict(), "torchvision's")


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_with_torchvisions_weights_it_is_torchvisions_network(name: str) -> None:
    torch.manual_seed(0)
    own = network(vgg(model=name))
    plan = [1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M"]
    with torch.device("meta"):
        theirs = torchvision.models.vgg.VGG(nn.Identity(), 5, init_weights=False).eval()
    theirs.features = torchvision.models.vgg.make_layers(plan, batch_norm=name == "vgg16_bn").eval()
    for i, layer in dense_layers(own).items():
        theirs.classifier[int(i.rpartition(".")[2])] = nn.Linear(layer.in_features, layer.out_features)
    load_weights(theirs, own.state_dict(), "own")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(own(images), theirs(images))


@pytest.mark.parametrize(("size", "copied"), [(28, False), (32, True)])
def test_the_layer_reads_7_by_7_features(size: int, copied: bool) -> None:
    model = network(vgg(input_size=size, width=1 / 16))
    features = model.features(torch.randn(3, 3, size, size))
    assert features.shape[2:] == ((1, 1) if copied else (7, 7))
    pooled = model.avgpool(features)
    assert pooled.shape[2:] == (7, 7)
    assert bool((pooled == pooled[..., :1, :1]).all()) == copied
    assert list(shapes(model)) == list(shapes(network(vgg(width=1 / 16))))


def test_widths_keep_the_grid_of_blocks() -> None:
    with torch.device("meta"):
        for width, block in [(1 / 32, 8), (1 / 16, 16), (1 / 4, 64), (1.0, 256)]:
            weight = dense_layers(build_model(VictimConfig(width=width), 100))["classifier.0"].weight
            assert weight.shape == (16 * block, 98 * block)


def test_weights_depend_on_torchs_seed() -> None:
    found = [network(vgg(), seed=seed).state_dict()["features.0.weight"] for seed in (1, 2, 1)]
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


# Other networks


def test_torchvisions_classifiers_take_the_classes_and_own_arguments() -> None:
    config = VictimConfig(model="torchvision:squeezenet1_1", model_args={"dropout": 0.2})
    assert build_model(config, 7)(torch.randn(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.usefixtures("here")
def test_a_users_own_function_is_found_where_the_study_is_run() -> None:
    model = build_model(VictimConfig(model="own_networks:net", model_args={"hidden": 3}), 5)
    assert [layer.out_features for layer in dense_layers(model).values()] == [3, 5]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "line",
    [
        "import torchvision",
        "from torchvision import models",
        "from torchvision.ops import nms, MLP",
        "import own_library",
    ],
)
def test_a_users_own_module_may_import_torchvision(tmp_path: Path, line: str) -> None:
    """In a Python of its own, where nothing has imported torchvision yet; at the module's top and in the function."""
    (tmp_path / "own_library.py").write_text("import torchvision.transforms\n")
    (tmp_path / "own_vision.py").write_text(f"{line}\n{OWN}")
    (tmp_path / "own_late.py").write_text(f"{OWN}\ndef late():\n    {line}\n    return net()\n")
    build = "from scatterproof.victims.models import build_model; from scatterproof.config.victim import VictimConfig"
    for model in ("own_vision:net", "own_late:late"):
        run = f"{build}; print(type(build_model(VictimConfig(model={model!r}), 5)).__name__)"
        done = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout == "Sequential\n", done.stderr


def test_torchvision_is_not_imported_until_it_is_asked_for() -> None:
    run = "import sys; from scatterproof.victims.models import allow_torchvision; allow_torchvision();"
    run += "print('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", run], capture_output=True, text=True).stdout == "False\n"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": "torchvision:vgg17"}, "torchvision has no classifier 'vgg17'"),
    ({"model": "torchvision:fasterrcnn_resnet50_fpn"}, "no classifier"),
    ({"model": "torchvision:resnet18", "model_args": {"depth": 3}}, "depth"),
    ({"model": "no_such_module:net"}, "No module named 'no_such_module'"),
    ({"model": "own_networks:missing"}, "missing"),
    ({"model": "own_unfinished:net"}, "invalid syntax"),
    ({"model": ":net"}, "MODULE:FUNCTION"),
    ({"model": "own_networks:number"}, "returned int, expected an nn.Module"),
    ({"model": "own_networks:broken"}, "no such thing"),
    ({"model": "own_networks:constant"}, "not callable"),
    ({"model": "own_networks:net", "model_args": {"width": 1}}, "width"),
]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("keys", "named"), BAD, ids=[str(i) + case[0]["model"] for i, case in enumerate(BAD)])
def test_models_that_cannot_be_built(keys: dict[str, Any], named: str) -> None:
    message = error(VictimConfig(**keys))
    assert message.startswith(f"victim.model '{keys['model']}'")
    assert named in message


# The layer


def test_the_largest_layer_is_found() -> None:
    assert find_layer(network(vgg()), "largest") == "classifier.0"
    assert find_layer(network(vgg()), "classifier.6") == "classifier.6"


@pytest.mark.parametrize(("path", "what"), [("features.0", "Conv2d"), ("classifier.9", "nothing"), ("fc", "nothing")])
def test_a_path_that_is_no_dense_layer_is_refused_with_those_that_are(path: str, what: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_layer(network(vgg()), path)
    assert str(caught.value) == (
        f"victim.layer '{path}' is {what}, expected a dense layer, one of: classifier.0, classifier.3, classifier.6"
    )


def test_a_network_without_dense_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="no dense layer"):
        find_layer(nn.Conv2d(3, 3, 1), "largest")


# Checkpoints


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("form", ["safetensors", "plain", "state_dict", "model"])
def test_checkpoints_load_as_they_are_commonly_written(tmp_path: Path, prefix: str, form: str) -> None:
    model = network(vgg())
    state = {prefix + name: value for name, value in model.state_dict().items()}
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pt")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if form == "plain" else {form: state, "epoch": 3}, path)
    other = network(vgg(), seed=1)
    load_weights(other, read_checkpoint(path), str(path))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_checkpoint_that_runs_code_is_refused_and_does_not_run_it(tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "x.pt"
    torch.save({"weight": torch.ones(2), "evil": Malicious(ran)}, path)
    with pytest.raises(ModelError, match="refused") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    path.write_bytes(pickle.dumps(Malicious(ran), protocol=2))
    with pytest.raises(ModelError):
        read_checkpoint(path)
    assert not ran.exists()
    pickle.loads(path.read_bytes())
    assert ran.exists()  # it would have run


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_missing_and_damaged_checkpoints_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path, state = tmp_path / name, {"weight": torch.ones(200)}
    whole = tmp_path / "whole"
    save_file(state, whole) if name.endswith("safetensors") else torch.save(state, whole)
    for content in (None, b"", b"no checkpoint", whole.read_bytes()[:-300]):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            read_checkpoint(path)
        assert str(caught.value).startswith(f"victim.checkpoint '{path}': ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"a": 3}, {0: torch.ones(2)}, torch.ones(2)])
def test_files_of_something_else_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ModelError, match="expected a state dict of tensors"):
        read_checkpoint(tmp_path / "x.pt")


def test_a_checkpoint_of_another_architecture_names_the_tensors_that_differ() -> None:
    state = network(vgg(), classes=6).state_dict()
    state["extra"] = state.pop("features.0.bias")
    with pytest.raises(ModelError) as caught:
        load_weights(network(vgg()), state, "x.pt")
    assert str(caught.value) == (
        "x.pt: checkpoint of another architecture: features.0.bias is missing; extra is not in the model; "
        "classifier.6.weight is [6, 64], the model has [5, 64]; classifier.6.bias is [6], the model has [5]"
    )
    with pytest.raises(ModelError, match=r"; and 26 more$"):
        load_weights(nn.Linear(3, 3), state, "x.pt")
