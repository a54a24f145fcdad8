"""What does not fit is said before anything is trained."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file

from scatterproof.analysis.tables import read_grids
from scatterproof.check import CheckError, check_study
from scatterproof.config.study import PruneConfig, Study
from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.running.files import write_json
from scatterproof.victims.data import Split
from scatterproof.victims.models import ModelError
from small import dataset, network, vgg

DATA = dataset()


def check(
    *victims: VictimConfig,
    sizes: tuple[int, ...] = (16,),
    scatter: Literal["layer", "dense"] = "layer",
    images: int = 0,
) -> dict[str, Any]:
    first, *others = victims or [vgg()]
    study = Study(
        study="check",
        victim=first,
        controls={f"other{i}": other.model_dump() for i, other in enumerate(others)},
        block_sizes=list(sizes),
        scatter=scatter,
        prune=PruneConfig(corrections=["mean"], images=images) if images else PruneConfig(corrections=["none"]),
    )
    return check_study(study, DATA)


def test_a_search_with_more_images_than_the_pirate_holds_is_refused() -> None:
    study = {"study": "check", "victim": vgg().model_dump(), "block_sizes": [16], "prune": {"corrections": ["none"]}}
    with pytest.raises(CheckError) as caught:
        check_study(Study.model_validate(study | {"search": {"grids": [{"images": [5, 13]}]}}), DATA)
    line = str(caught.value)
    assert line.startswith("search.grids.images is 13, but the pirate has 12 images") and "\n" not in line


def test_more_images_than_the_pirate_holds_are_refused() -> None:
    study = {"study": "check", "victim": vgg().model_dump(), "block_sizes": [16], "prune": {"corrections": ["none"]}}
    with pytest.raises(CheckError, match=r"^retraining.pirate_images is 13, but the pirate has 12 images: lower it"):
        check_study(Study.model_validate(study | {"retraining": {"pirate_images": [4, 13]}}), DATA)


def test_grids_are_found_for_each_victim_layer_and_block_size(tmp_path: Path) -> None:
    found = check(vgg(), vgg(input_size=28), vgg(width=1 / 32), vgg(), sizes=(16, 60))
    assert len(found["victims"]) == 4
    assert found["disk_bytes"] > 4 * found["victims"][0]["parameters"] * (1 + 2)
    assert found["victims"][0] == {
        "model": "vgg16",
        "parameters": sum(value.numel() for value in network(vgg()).parameters()),
        "layers": {"classifier.0": [64, 392]},
        "grids": {"16": {"classifier.0": [4, 25]}, "60": {"classifier.0": [2, 7]}},
    }
    paths = [str(tmp_path / f"{i}.json") for i in range(4)]
    for path, about in zip(paths, found["victims"], strict=True):
        write_json(path, about)
    assert read_grids(paths) == [
        ("classifier.0", 16, 4, 25),
        ("classifier.0", 60, 2, 7),
        ("classifier.0", 16, 8, 49),
        ("classifier.0", 60, 3, 14),
    ]


def test_all_dense_layers_are_cut_where_all_are_scattered() -> None:
    assert check(scatter="dense")["victims"][0]["grids"]["16"] == {
        "classifier.0": [4, 25], "classifier.3": [4, 4], "classifier.6": [1, 4],
    }  # fmt: skip


def test_full_size_victims_are_checked_without_their_memory() -> None:
    found = check(VictimConfig(), sizes=(256,))
    assert found["victims"][0]["grids"] == {"256": {"classifier.0": [16, 98]}}


BAD: list[tuple[str, VictimConfig, dict[str, Any], type[UserError], str]] = [
    ("block", vgg(), {"sizes": (16, 65)}, CheckError, "block_sizes: block size 65 is larger than the layer: class"),
    ("path", vgg(layer="features.0"), {}, ModelError, "victim.layer 'features.0' is Conv2d, expected a dense layer"),
    ("dense", vgg(layer="fc"), {"scatter": "dense"}, ModelError, "victim.layer 'fc' is nothing"),
    ("images", vgg(), {"images": 13}, CheckError, "prune.images is 13, but the pirate has 12 images"),
    ("model", vgg(model="torchvision:nothing"), {}, ModelError, "no classifier 'nothing'"),
    ("none", vgg(model="test_check:convolutions", layer="largest"), {"scatter": "dense"}, ModelError, "no dense layer"),
    ("file", vgg(kind="checkpoint", checkpoint="/nowhere/{seed}.pt"), {}, ModelError, "/nowhere/0.pt': no such file"),
]


def convolutions() -> torch.nn.Module:
    return torch.nn.Conv2d(3, 3, 1)


@pytest.mark.parametrize(("victim", "keys", "kind", "named"), [case[1:] for case in BAD], ids=[c[0] for c in BAD])
def test_what_does_not_fit_is_one_line(
    victim: VictimConfig, keys: dict[str, Any], kind: type[UserError], named: str
) -> None:
    with pytest.raises(kind) as caught:
        check(victim, **keys)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_seeds_checkpoint_is_held_to_the_architecture(tmp_path: Path) -> None:
    config = vgg(kind="checkpoint", checkpoint=str(tmp_path / "{seed}.safetensors"), seeds=[1, 2])
    save_file(network(vgg()).state_dict(), tmp_path / "1.safetensors")
    save_file(network(vgg(), classes=6).state_dict(), tmp_path / "2.safetensors")
    with pytest.raises(ModelError) as caught:
        check(config)
    assert "2.safetensors': checkpoint of another architecture: " in str(caught.value)
    assert "classifier.6.weight is [6, 64], the model has [5, 64]" in str(caught.value)
    save_file(network(vgg(), seed=1).state_dict(), tmp_path / "2.safetensors")
    assert check(config)["victims"][0]["grids"] == {"16": {"classifier.0": [4, 25]}}


def test_a_pirate_that_leaves_the_victim_a_class_without_images_is_refused() -> None:
    data = dataset()
    few = Split(data.victim.images[:4], data.victim.labels[:4])
    study = Study(study="check", victim=vgg(), block_sizes=[16], prune=PruneConfig(corrections=["none"]))
    with pytest.raises(CheckError) as caught:
        check_study(study, dataclasses.replace(data, victim=few))
    line = "dataset.pirate is 12, which leaves the victim no image of class 4: expected some of each of the 5 classes"
    assert str(caught.value) == f"{line}, lower it"
