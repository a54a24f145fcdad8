"""A puzzle holds what the threat model grants and nothing else; the answer is another file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.puzzle import Answer, Puzzle, PuzzleError
from scatterproof.victims.data import save_dataset, to_input
from scatterproof.victims.models import ModelError, dense_layers
from small import dataset, network, puzzle, vgg

DATA = dataset()
CONFIG = vgg()
MODEL = network(CONFIG)


def multiset(blocks: torch.Tensor) -> list[bytes]:
    return sorted(block.numpy().tobytes() for block in blocks)


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight


def tied() -> nn.Module:
    return Tied()


def normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(192, 8)), nn.Linear(8, 5))


# What it holds


@pytest.mark.parametrize("scatter", ["layer", "dense"])
def test_scattered_weights_are_in_no_tensor_but_the_blocks(scatter: str) -> None:
    found, _ = puzzle(MODEL, CONFIG, DATA, scatter=scatter)
    hidden = {f"{name}.weight" for name in (["classifier.0"] if scatter == "layer" else dense_layers(MODEL))}
    own = MODEL.state_dict()
    assert set(found.state) == set(own) - hidden
    for name, value in found.state.items():
        assert torch.equal(value, own[name])
        assert all(value.data_ptr() != own[key].data_ptr() for key in hidden)
    assert all(
        int(layer.weight.count_nonzero()) == 0
        for name, layer in dense_layers(found.model()).items()
        if f"{name}.weight" in hidden
    )


@pytest.mark.parametrize(("scatter", "size"), [("layer", 16), ("layer", 11), ("dense", 7)])
def test_all_blocks_are_there_in_another_order_and_the_answer_puts_them_back(scatter: str, size: int) -> None:
    found, answer = puzzle(MODEL, CONFIG, DATA, size, scatter=scatter)
    weights = {name: dense_layers(MODEL)[name].weight.detach() for name in found.layout.grids}
    cut = found.layout.cut(weights)
    assert multiset(found.blocks) == multiset(cut)
    assert not torch.equal(found.blocks, cut)
    assert torch.equal(found.shapes, found.layout.shapes()[answer.placement.positions])
    lines = found.blocks.reshape(-1, size)
    for name, weight in found.layout.assemble(lines, answer.placement.blocks()).items():
        assert torch.equal(weight, weights[name])


@pytest.mark.parametrize(("share", "held"), [(0.0001, 1), (0.1, 10), (0.5, 50), (1.0, 100)])
def test_of_the_blocks_the_share_granted_is_held(share: float, held: int) -> None:
    found, answer = puzzle(MODEL, CONFIG, DATA, share=share)
    assert found.layout.positions == 100
    assert len(found.blocks) == len(found.shapes) == len(answer.placement) == held
    cut = found.layout.cut({"classifier.0": dense_layers(MODEL)["classifier.0"].weight.detach()})
    assert torch.equal(found.blocks, cut[answer.placement.positions])


@pytest.mark.parametrize("knows", ["none", "labels", "logits"])
@pytest.mark.parametrize("images", [0, 5])
def test_labels_and_logits_only_where_granted(knows: str, images: int) -> None:
    found, _ = puzzle(MODEL, CONFIG, DATA, images=images, knows=knows)
    assert torch.equal(found.images, DATA.pirate.images[:images])
    assert (found.labels is not None, found.logits is not None) == (knows == "labels", knows == "logits")
    if found.labels is not None:
        assert torch.equal(found.labels, DATA.pirate.labels[:images])
    if found.logits is not None:
        with torch.inference_mode():
            wanted = MODEL(to_input(DATA.pirate.images[:images], 32, DATA.mean, DATA.std))
        assert found.logits.shape == (images, DATA.classes)
        torch.testing.assert_close(found.logits, wanted)


def test_more_images_than_the_pirate_has_are_refused() -> None:
    with pytest.raises(ValueError, match="grants 13 images, the pirate has 12"):
        puzzle(MODEL, CONFIG, DATA, images=13)


def test_the_shuffle_depends_on_the_key_alone() -> None:
    orders = [puzzle(MODEL, CONFIG, DATA, key=key)[1].placement.positions for key in (1, 2, 1)]
    torch.manual_seed(99)
    orders.append(puzzle(network(CONFIG, seed=3), CONFIG, DATA, key=1)[1].placement.positions)
    assert torch.equal(orders[0], orders[2])
    assert torch.equal(orders[0], orders[3])
    assert not torch.equal(orders[0], orders[1])


def test_the_draw_is_told_by_what_names_the_victim_the_block_size_and_what_is_scattered_and_held() -> None:
    """Nothing but that: what is known of the images, and how many, changes no block."""
    positions = [
        puzzle(MODEL, CONFIG, DATA, size, **threat)[1].placement.positions.tolist()
        for size, threat in (
            *((16, {"share": 0.5}), (16, {"share": 0.5, "images": 5, "knows": "labels"}), (16, {"share": 0.4})),
            *((15, {"share": 0.5}), (16, {"share": 0.5, "scatter": "dense"})),
        )
    ]
    assert positions[0] == positions[1]
    others = [sorted(each) for each in positions[1:]]
    assert all(one != other for number, one in enumerate(others) for other in others[:number])
    assert positions[2] != positions[0][: len(positions[2])]


def test_it_does_not_say_where_the_whole_model_lies(tmp_path: Path) -> None:
    config = vgg(kind="checkpoint", checkpoint="/secret/victim.safetensors")
    puzzle(MODEL, config, DATA)[0].save(tmp_path / "p")
    assert b"secret" not in (tmp_path / "p").read_bytes()
    assert Puzzle.load(tmp_path / "p").model() is not None


@pytest.mark.parametrize(("function", "message"), [("tied", "first.*also second.weight"), ("normed", "largest|'1'")])
def test_weights_that_another_tensor_gives_away_are_not_scattered(function: str, message: str) -> None:
    config = VictimConfig(model=f"test_puzzle:{function}", layer="first" if function == "tied" else "1")
    with pytest.raises(ModelError, match=message):
        puzzle(globals()[function](), config, DATA, 2)


# Files


def same(one: Puzzle, other: Puzzle) -> bool:
    for name, value in vars(one).items():
        found = getattr(other, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, found), name
            assert value.dtype == found.dtype, name
        elif name == "state":
            assert value.keys() == found.keys()
            assert all(torch.equal(value[key], found[key]) for key in value)
        else:
            assert value == found, name
    return True


@pytest.mark.parametrize("threat", [{}, {"share": 0.3, "images": 4, "knows": "labels"}, {"scatter": "dense"}])
def test_files_hold_everything_and_their_bytes_repeat(tmp_path: Path, threat: dict[str, Any]) -> None:
    for folder in ("a", "b"):
        found, answer = puzzle(MODEL, CONFIG, DATA, **threat)
        found.save(tmp_path / folder / "puzzle")
        answer.save(tmp_path / folder / "answer")
    assert same(found, Puzzle.load(tmp_path / "a" / "puzzle"))
    read = Answer.load(tmp_path / "a" / "answer")
    assert torch.equal(read.placement.positions, answer.placement.positions)
    assert (read.layout, read.placement.slots) == (answer.layout, answer.placement.slots)
    for name in ("puzzle", "answer"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_no_key_of_a_puzzle_file_is_an_answer(tmp_path: Path) -> None:
    puzzle(MODEL, CONFIG, DATA, images=3)[0].save(tmp_path / "p")
    rest = {key for key in load_file(tmp_path / "p") if not key.startswith("state/")}
    assert rest == {"blocks", "shapes", "images"}
    with safe_open(tmp_path / "p", "pt") as file:
        assert "placement" not in str(file.metadata())


def wrong_files(folder: Path) -> dict[str, Path]:
    found, answer = puzzle(MODEL, CONFIG, DATA)
    files = {name: folder / name for name in ("garbage", "empty", "missing", "answer", "dataset", "other", "cut")}
    files["garbage"].write_bytes(b"\x93no puzzle at all" * 9)
    files["empty"].write_bytes(b"")
    answer.save(files["answer"])
    save_dataset(DATA, files["dataset"])
    save_file({"x": torch.ones(2)}, files["other"], {"scatterproof": "not JSON"})
    found.save(files["cut"])
    files["cut"].write_bytes(files["cut"].read_bytes()[:-8])
    return files | {"folder": folder}


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    for name, path in wrong_files(tmp_path).items():
        with pytest.raises(PuzzleError) as caught:
            Puzzle.load(path)
        assert str(caught.value).startswith(f"{path}: "), name
        assert "\n" not in str(caught.value), name
        assert "puzzle" in str(caught.value), name
    found, _ = puzzle(MODEL, CONFIG, DATA)
    found.save(tmp_path / "puzzle")
    with pytest.raises(PuzzleError, match="no answer, found puzzle"):
        Answer.load(tmp_path / "puzzle")


# Threat models


def test_names_of_threat_models() -> None:
    assert ThreatModel().name == "layer-1-0-none"
    assert ThreatModel(share=0.25, images=100, knows="labels").name == "layer-0.25-100-labels"
    assert ThreatModel(scatter="dense", share=0.1, base_model=True).name == "dense-0.1-0-none-base"


@pytest.mark.parametrize("keys", [{"share": 0.0}, {"share": 1.1}, {"images": -1}, {"knows": "all"}, {"what": 1}])
def test_threat_models_that_make_no_sense_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ThreatModel(**keys)


def test_a_block_larger_than_the_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"block size 65 is larger than the layer: classifier\.0 is 64 x 392"):
        make_puzzle(MODEL, CONFIG, DATA, ThreatModel(), 65, (0,))
