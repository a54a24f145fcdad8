"""Features and token ids: read, learned, scattered and attacked as images are; what does not fit is one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import other_inputs
import workflow
from other_inputs import CLASSES, LENGTH, MODELS, VOCABULARY, arrays, dataset, victim, write
from scatterproof.attacks import ATTACKS
from scatterproof.attacks.base import AttackError, Placed
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import MADE_UP, made_up_images
from scatterproof.attacks.training.surrogate import Surrogate
from scatterproof.check import check_study
from scatterproof.config.attacks import NEEDS, AttackSettings
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.settings.ceilings import FORMS
from scatterproof.config.study import Study, parse_study
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import logits_on, make_puzzle
from scatterproof.defences.network import seen_under
from scatterproof.errors import UserError
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.ceilings.forms import ToldPirate
from scatterproof.judging.ceilings.rows import ceiling_rows
from scatterproof.judging.ceilings.told import tell
from scatterproof.judging.controls import planted
from scatterproof.judging.judge import Judge, copied, placed
from scatterproof.judging.victim_metrics import victim_metrics
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.data import Dataset, DatasetError, load_dataset, read_dataset, save_dataset, to_input
from scatterproof.victims.inputs import input_kind, vocabulary
from scatterproof.victims.models import build_model
from scatterproof.victims.training import obtain_victim
from test_every_attack import HERE, TINY, make, threat

KINDS = ("tokens", "features")
CPU = torch.device("cpu")
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("victims")


def cut(kind: str, model: nn.Module, size: int = 8, **granted: Any) -> tuple[Puzzle, Answer]:
    return make_puzzle(model, MODELS[kind], dataset(kind), ThreatModel(**granted), size, (0,))


def read(path: Path, **keys: Any) -> Dataset:
    return read_dataset(DatasetConfig(kind="arrays", path=str(path), **keys))


@each_kind
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_inputs_are_read_as_they_are(kind: str, ending: str, tmp_path: Path) -> None:
    data, own = read(write(tmp_path / f"own.{ending}", kind), pirate=0), arrays(kind)
    assert (data.classes, data.mean, data.std, input_kind(data.test.images)) == (CLASSES, (), (), kind)
    assert torch.equal(data.test.images, torch.from_numpy(own["x_test"]))
    assert sorted(data.victim.images.flatten().tolist()) == sorted(own["x_train"].flatten().tolist())
    assert to_input(data.test.images, 32, data.mean, data.std) is data.test.images


@each_kind
def test_a_dataset_is_saved_and_read_again(kind: str, tmp_path: Path) -> None:
    data = read(write(tmp_path / "own.npz", kind))
    save_dataset(data, tmp_path / "saved.safetensors")
    again = load_dataset(tmp_path / "saved.safetensors")
    assert again.source == data.source
    assert all(getattr(again, part).images.equal(getattr(data, part).images) for part in ("victim", "pirate", "test"))


def test_what_was_done_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = arrays("tokens")
    path = write(tmp_path / "own.npz", "tokens", **{name: own[name].astype(np.int16) for name in ("x_train", "x_test")})
    assert read(path).test.images.dtype == torch.int64
    assert capsys.readouterr().out == f"{path}: x_train: int16 as int64; x_test: int16 as int64\n"
    half = {name: torch.from_numpy(value) for name, value in arrays("features").items()}
    half |= {name: half[name].bfloat16() for name in ("x_train", "x_test")}
    save_file(half, tmp_path / "half.safetensors")
    assert torch.equal(read(tmp_path / "half.safetensors").test.images, half["x_test"].float())


def test_the_key_says_what_the_type_leaves_open(tmp_path: Path) -> None:
    ids = write(tmp_path / "ids.npz", "tokens")
    assert input_kind(read(ids).test.images) == "tokens"
    assert input_kind(read(ids, inputs="features").test.images) == "features"
    square = {
        name: arrays("tokens")[name][:, :, None].repeat(LENGTH, 2).astype(np.uint8) for name in ("x_train", "x_test")
    }
    pixels = write(tmp_path / "pixels.npz", "tokens", **square)
    assert read(pixels).test.images.shape == (120, 1, LENGTH, LENGTH)
    assert input_kind(read(pixels, inputs="features").test.images) == "features"


def changed(kind: str, name: str, row: int, value: float, dtype: type = np.float64) -> dict[str, Any]:
    values = arrays(kind)[name].astype(dtype)
    values[row, 2] = value
    return {name: values}


IDS, NUMBERS = arrays("tokens"), arrays("features")
BAD: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "NaN": ("features", changed("features", "x_test", 3, np.nan), {}, "x_test has nan in row 3, expected finite"),
    "infinity": ("features", changed("features", "x_train", 5, -np.inf), {}, "x_train has -inf in row 5, expected"),
    "beyond float32": ("features", changed("features", "x_train", 0, 1e60), {}, "x_train has 1e+60 in row 0, expected"),
    "negative id": (
        *("tokens", changed("tokens", "x_train", 7, -2, np.int64), {}),
        "x_train has the token id -2 in row 7, expected 0 or more",
    ),
    "one axis": ("features", {"x_train": NUMBERS["x_train"][:, 0]}, {}, "x_train is float32 [600], expected numbers"),
    "ids of three axes": ("tokens", {"x_train": IDS["x_train"][:, None]}, {}, "x_train is int64 [600, 1, 12], "),
    "words": ("tokens", {"x_train": IDS["x_train"].astype("U4")}, {}, "x_train is <U4 [600, 12], expected floats"),
    "two kinds": ("tokens", {"x_test": NUMBERS["x_test"]}, {}, "x_test is float32, features, expected inputs of"),
    "floats as ids": ("features", {}, {"inputs": "tokens"}, "x_train is float32 [600, 20], expected integers [N, T]"),
    "floats as images": ("features", {}, {"inputs": "images"}, "x_train is float32 [600, 20], expected uint8"),
    "another length": ("tokens", {"x_test": IDS["x_test"][:, 1:]}, {}, "x_test has tokens of [11], expected [12] as"),
    "none": ("tokens", {"x_test": IDS["x_test"][:0]}, {}, "x_test [0, 12] is empty, expected at least one input"),
    "no ids": ("tokens", {"x_train": IDS["x_train"][:, :0]}, {}, "x_train [600, 0] is empty, expected at least"),
    "too few labels": ("tokens", {"y_test": IDS["y_test"][1:]}, {}, "x_test has 120 inputs, but y_test has 119 labels"),
    "a class without": ("tokens", {"y_test": IDS["y_test"] % 3}, {}, "y_test has no input of class 3, expected some"),
    "all the same": ("features", {"x_test": 0 * NUMBERS["x_test"]}, {}, "x_test: all 120 inputs are the same, "),
    "missing": ("tokens", {"y_test": None}, {}, "missing y_test (present: "),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_bad_file_is_refused_in_one_line(case: str, ending: str, tmp_path: Path) -> None:
    kind, changes, keys, expected = BAD[case]
    if ending == "safetensors" and case == "words":
        ending = "npz"  # the other holds none
    path = write(tmp_path / f"own.{ending}", kind, **changes)
    with pytest.raises(DatasetError) as caught:
        read(path, **keys)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and expected in line and "\n" not in line


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_text("no arrays")
    with pytest.raises(DatasetError, match=r"own\.npz: not an \.npz or \.safetensors of plain arrays: it is text"):
        read(tmp_path / "own.npz")
    whole = write(tmp_path / "own.safetensors", "tokens").read_bytes()
    (tmp_path / "own.safetensors").write_bytes(whole[:-8])
    with pytest.raises(
        DatasetError, match=r"own\.safetensors: not an \.npz or \.safetensors of plain arrays, or damaged"
    ):
        read(tmp_path / "own.safetensors")


STUDY: dict[str, Any] = {
    "study": "tiny",
    "victim": {"model": "other_inputs:reader", "layer": "up", "train": {"epochs": 2}},
    "block_sizes": [16],
    "prune": {"corrections": ["none"]},
}
AUGMENTED: dict[str, dict[str, Any]] = {
    "victim.train.augment": {"victim": STUDY["victim"] | {"train": {"augment": "crop"}}},
    "further_victims.other.train.augment": {"further_victims": {"other": {"train": {"augment": "crop"}}}},
    "retraining.recipes.other.augment": {"retraining": {"recipes": {"other": {"augment": "crop"}}}},
    "attacks.surrogate.train.augment": {"attacks": {"surrogate": {"train": {"augment": "crop"}}}},
}


@pytest.mark.parametrize("key", AUGMENTED)
def test_an_augmentation_is_refused_where_it_is_set(key: str) -> None:
    expected = f"{key} 'crop': the inputs are tokens, expected none: images alone are augmented"
    declared = {"dataset": {"kind": "arrays", "path": "x.npz", "inputs": "tokens"}}
    with pytest.raises(UserError, match=f"^x.yaml: {expected}$"):
        parse_study(STUDY | AUGMENTED[key] | declared, "x.yaml")
    with pytest.raises(UserError, match=f"^{expected}$"):
        check_study(Study.model_validate(STUDY | AUGMENTED[key]), dataset("tokens"))
    check_study(Study.model_validate(STUDY), dataset("tokens"))


MISFITS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "vocabulary": (
        *("tokens", {"model_args": {"vocabulary": VOCABULARY - 1}}, {}),
        "victim.model 'other_inputs:reader' has an embedding of 39 tokens, but tokens.npz has the token id 39: ",
    ),
    "shape": (
        *("features", {"model_args": {"features": 21}}, {}),
        "victim.model 'other_inputs:perceptron' fails on features of features.npz [2, 20]: mat1 and mat2 shapes",
    ),
    "VGG": (
        *("tokens", {"model": "vgg16", "layer": "largest"}, {}),
        "victim.model 'vgg16' takes images, but tokens.npz has tokens: expected MODULE:FUNCTION of a network that "
        "takes tokens [12]",
    ),
    "torchvision": (
        *("tokens", {"model": "torchvision:alexnet", "layer": "largest"}, {}),
        "victim.model 'torchvision:alexnet' fails on tokens of tokens.npz [2, 12]: ",
    ),
    "further": (
        *("features", {}, {"further_victims": {"other": {"model": "vgg16_bn", "layer": "largest"}}}),
        "further_victims.other.model 'vgg16_bn' takes images, but features.npz has features",
    ),
    "surrogate": (
        *("tokens", {}, {"attacks": {"surrogate": {"models": [{}, {"model": "vgg16"}]}}}),
        "attacks.surrogate.models 'vgg16' takes images, but tokens.npz has tokens",
    ),
    "vocabulary of a function": (
        *("tokens", {"model": "test_other_inputs:looking_up", "layer": "1"}, {}),
        "victim.model 'test_other_inputs:looking_up' fails on tokens of tokens.npz [2, 12]: index out of range",
    ),
    "layer": ("tokens", {"layer": "upp"}, {}, "victim.layer 'upp' is nothing, expected a dense layer, one of: query,"),
    "no embedding": (
        *("tokens", {"model": "test_other_inputs:counting", "layer": "1"}, {"attacks": {"grids": [{"images": [0]}]}}),
        "victim.model 'test_other_inputs:counting': no nn.Embedding reads the token ids, by which a pirate without any",
    ),
}  # fmt: skip


class Counts(nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(ids, VOCABULARY).float().mean(1)


def counting() -> nn.Module:
    return nn.Sequential(Counts(), nn.Linear(VOCABULARY, CLASSES))


class LooksUp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(VOCABULARY - 1, 8))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.table).mean(1)


def looking_up() -> nn.Module:
    return nn.Sequential(LooksUp(), nn.Linear(8, CLASSES))


@pytest.mark.parametrize("case", MISFITS)
def test_a_model_that_does_not_fit_is_refused_in_one_line(case: str) -> None:
    kind, keys, others, expected = MISFITS[case]
    study = STUDY | {"victim": MODELS[kind].model_dump() | {"train": {"epochs": 2}} | keys} | others
    with pytest.raises(UserError) as caught:
        check_study(Study.model_validate(study), dataset(kind))
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"kind": "npz", "path": "x.npz", "inputs": "tokens"},
            "dataset.inputs 'tokens': kind 'npz' has images, expected",
        ),
        ({"kind": "arrays"}, "dataset.path is required for kind 'arrays'"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=f"^x.yaml: {expected}"):
        parse_study(STUDY | {"dataset": keys}, "x.yaml")


def test_an_older_studys_dataset_is_handed_on_as_it_was() -> None:
    assert "inputs" not in DatasetConfig().model_dump_json()
    assert '"inputs":"tokens"' in DatasetConfig(kind="arrays", path="x", inputs="tokens").model_dump_json()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    config = DatasetConfig(kind="arrays", path=str(write(tmp_path / "own.npz", "tokens")))
    before = config.stamp()
    write(tmp_path / "own.npz", "features")
    assert before and config.stamp() != before


@each_kind
@pytest.mark.parametrize("scatter", ["layer", "dense"])
def test_a_trained_victim_learns_and_is_put_together_again(kind: str, scatter: str, folder: Path) -> None:
    model = victim(kind, folder)
    puzzle, answer = cut(kind, model, 12, images=20, scatter=scatter)
    test = dataset(kind).test
    wanted = logits_on(model, MODELS[kind], dataset(kind), test.images)
    made = PlacementEvaluator(puzzle, test.images, test.labels, CPU).logits(answer.placement.positions)
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)
    assert float((wanted.argmax(1) == test.labels).float().mean()) > 0.85
    metrics = victim_metrics(puzzle, answer, dataset(kind), CPU, 50)
    assert metrics["accuracy"] == float((wanted.argmax(1) == test.labels).double().mean())
    assert metrics["input_size"] is None


@each_kind
@pytest.mark.parametrize("images", [100, 0])
def test_the_fingerprint_places_blocks_of_a_trained_layer(
    kind: str, images: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    puzzle, answer = cut(kind, victim(kind, folder), images=images)
    reached = Fingerprint().run(puzzle, HERE)[-1].reached
    assert isinstance(reached, Placed)
    accuracy = placed(reached, puzzle, answer)["position_accuracy"]
    assert accuracy > (0.9 if images else 0.5)
    words = {"tokens": "ids drawn evenly from the vocabulary", "features": "standard normal values"}[kind]
    assert (f"no inputs: {MADE_UP} made up, {words}\n" in capsys.readouterr().out) == (images == 0)


@each_kind
def test_the_fingerprint_places_next_to_no_block_of_an_untrained_layer(kind: str) -> None:
    accuracies = []
    for seed in range(3):
        torch.manual_seed(seed)
        puzzle, answer = cut(kind, build_model(MODELS[kind], CLASSES).eval(), images=100)
        reached = Fingerprint().run(puzzle, HERE)[-1].reached
        assert isinstance(reached, Placed)
        accuracies.append(placed(reached, puzzle, answer)["position_accuracy"])
    assert sum(accuracies) / 3 < 0.1


def test_a_leak_planted_behind_a_norm_shows_though_one_feature_is_far_larger(folder: Path) -> None:
    """As in published transformers: else that feature's column would hold nearly all of the leak."""
    model = victim("tokens", folder)
    with torch.no_grad():
        model.get_submodule("between").weight[3] *= 200  # type: ignore[operator]
    puzzle, _ = cut("tokens", model, 16, images=100)
    leaky, answer = cut("tokens", planted(model, puzzle, ("test",)), 16, images=100)
    reached = Fingerprint().run(leaky, HERE)[-1].reached
    assert isinstance(reached, Placed)
    assert placed(reached, leaky, answer)["position_accuracy"] > 0.8


def test_a_network_that_cannot_read_what_a_mask_hides_is_refused() -> None:
    data = dataset("tokens")
    ids = data.victim.images.clone()
    ids[3, -2:] = -1
    hiding = replace(data, victim=replace(data.victim, images=ids))
    study = STUDY | {"victim": MODELS["tokens"].model_dump() | {"train": {"epochs": 2}}}
    with pytest.raises(UserError, match="the token ids that it hides are -1, which the network must read"):
        check_study(Study.model_validate(study), hiding)


@each_kind
def test_a_checkpoint_of_ones_own_is_read(kind: str, folder: Path, tmp_path: Path) -> None:
    save_file(victim(kind, folder).state_dict(), tmp_path / "own.safetensors")
    own = {"kind": "checkpoint", "checkpoint": str(tmp_path / "own.safetensors")}
    config = VictimConfig.model_validate(MODELS[kind].model_dump() | own)
    facts = check_study(Study.model_validate(STUDY | {"victim": config.model_dump(exclude={"train"})}), dataset(kind))
    assert list(facts["victims"][0]["layers"]) == [MODELS[kind].layer]
    read_model = obtain_victim(config, 0, dataset(kind), CPU, 1, tmp_path / "none.pt").model
    test = dataset(kind).test.images
    assert torch.equal(read_model(test), victim(kind, folder)(test))


@each_kind
def test_a_saved_puzzle_without_inputs_knows_what_to_make_up(kind: str, folder: Path, tmp_path: Path) -> None:
    puzzle, _ = cut(kind, victim(kind, folder), images=0)
    puzzle.save(tmp_path / "puzzle.safetensors")
    made = made_up_images(Puzzle.load(tmp_path / "puzzle.safetensors"))
    assert (
        made.shape == (MADE_UP, *dataset(kind).test.images.shape[1:]) and made.dtype == dataset(kind).test.images.dtype
    )
    assert torch.equal(made, made_up_images(puzzle))
    if kind == "tokens":
        assert (int(made.min()), int(made.max())) == (0, VOCABULARY - 1)
    else:
        assert abs(float(made.mean())) < 0.1 and abs(float(made.std()) - 1) < 0.1


class Segmented(nn.Module):
    """Embeddings of the ids, of their places, of a mask and of a segment: of these the first alone reads the ids."""

    def __init__(self, branches: bool) -> None:
        super().__init__()
        self.branches = branches
        self.mask, self.segment, self.places = nn.Embedding(2, 4), nn.Embedding(1, 4), nn.Embedding(9, 4)
        self.ids, self.again = nn.Embedding(7, 4), nn.Embedding(8, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self.branches and int(ids.max()) < 0:
            return ids
        x = self.mask((ids != 0).long()) + self.segment(torch.zeros_like(ids)) + self.places(torch.arange(ids.shape[1]))
        made: torch.Tensor = (x + self.ids(input=ids) + self.again(ids.int())).mean(1)
        return made


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_the_vocabulary_is_that_of_the_smallest_embedding_that_reads_the_ids(branches: bool, length: int) -> None:
    assert vocabulary(Segmented(branches), length) == 7


def test_two_ids_are_a_vocabulary_and_a_network_that_fails_has_none() -> None:
    assert vocabulary(nn.Sequential(nn.Embedding(2, 4), nn.Linear(4, 2)), 5) == 2
    assert vocabulary(nn.Sequential(nn.Embedding(1, 4)), 5) is None
    assert vocabulary(counting(), LENGTH) is None


@each_kind
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_runs(name: str, kind: str, folder: Path) -> None:
    model, granted = victim(kind, folder), threat(name)
    base = build_model(MODELS[kind], CLASSES)
    seen = seen_under(granted, model, MODELS[kind], dataset(kind), None)
    puzzle, _ = make_puzzle(model, MODELS[kind], dataset(kind), granted, 16, (0,), base, seen=seen)
    reached = make(name).run(puzzle, HERE)[-1].reached
    if isinstance(reached, Placed):
        assert len(reached.placement.unique()) == len(puzzle.blocks)
    else:
        assert copied(reached, puzzle)(puzzle.inputs(puzzle.images)).isfinite().all()


BLIND = [name for name in ATTACKS if not NEEDS[name].missing(ThreatModel(images=0))]


@pytest.mark.parametrize("name", BLIND)
@each_kind
def test_attacks_without_inputs_run(name: str, kind: str, folder: Path) -> None:
    puzzle, _ = cut(kind, victim(kind, folder), 16, images=0)
    assert make(name).run(puzzle, HERE)


def test_a_network_that_cannot_be_traced_is_attacked_all_the_same() -> None:
    torch.manual_seed(0)
    config, data = MODELS["tokens"].model_copy(update={"model": "other_inputs:branching"}), dataset("tokens")
    model = build_model(config, CLASSES).eval()
    puzzle, answer = make_puzzle(model, config, data, ThreatModel(images=30, knows="labels"), 16, (0,))
    made = PlacementEvaluator(puzzle, data.test.images, data.test.labels, CPU).logits(answer.placement.positions)
    torch.testing.assert_close(made, model(data.test.images), rtol=1e-4, atol=1e-4)
    for name in ("fingerprint", "nothing", "layer", "finetune"):
        assert make(name).run(puzzle, HERE), name
    with pytest.raises(AttackError, match=r"^probe needs a network that torch\.fx can trace and cut before the layer$"):
        make("probe").run(puzzle, HERE)


@each_kind
def test_the_told_pirate_runs(kind: str, folder: Path) -> None:
    model, data = victim(kind, folder), dataset(kind)
    granted = ThreatModel(share=0.5, images=40, knows="labels")
    puzzle, answer = make_puzzle(model, MODELS[kind], data, granted, 16, (0,))
    config = AttackSettings.model_validate({name: TINY.get(name, {}) for name in ("layer", "finetune", "blocks")})
    pirate = ToldPirate(puzzle, tell(puzzle, answer), config, ["blocks", "finetune"], HERE)
    rows = ceiling_rows(Judge(puzzle, answer, model, data, CPU), pirate, FORMS)
    assert [row["attack"] for row in rows] == list(FORMS)
    assert all(row["accuracy"] > 2 * data.chance for row in rows)


@each_kind
def test_the_default_surrogate_is_of_the_victims_own_architecture(kind: str, folder: Path) -> None:
    puzzle, _ = cut(kind, victim(kind, folder), images=60, knows="labels")
    (config,) = Surrogate().configs(puzzle)
    assert (config.model, config.width) == (MODELS[kind].model, 1.0)
    given = replace(puzzle, config=puzzle.config.model_copy(update={"model_args": {"a": 1}}))
    assert Surrogate().configs(given)[0].model_args == {"a": 1}
    (other,) = Surrogate(models=[{"model": "other_inputs:other"}]).configs(puzzle)
    assert other.model == "other_inputs:other"


TOKENS: dict[str, Any] = {
    "study": "tiny",
    "dataset": {"kind": "arrays", "path": "own.npz"},
    "victim": {
        "model": "other_inputs:reader",
        "layer": "up",
        "train": {"optimizer": "adamw", "lr": 0.005, "epochs": 8, "batch_size": 50, "schedule": "constant"},
    },
    "block_sizes": [16],
    "prune": {"keep": [1.0], "repeats": 1, "corrections": ["none"]},
    "shuffle": {"keep": [1.0], "repeats": 1},
    "attacks": {
        "control_shuffles": 10,
        "threats_per_job": 2,
        "grids": [{"attacks": ["fingerprint", "surrogate"], "images": [0, 60], "knows": ["labels"]}],
        "surrogate": {"updates": 20},
    },
    "run": {"device": "cpu"},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_of_tokens_ends_in_verdicts(tmp_path: Path) -> None:
    write(tmp_path / "own.npz", "tokens")
    status, output = workflow.snakemake(tmp_path, TOKENS, path=Path(other_inputs.__file__).parent)
    assert status == 0, output
    assert set(workflow.table(tmp_path, "verdict")["images"]) == {"0", "60"}
    assert workflow.table(tmp_path, "victim")["input_size"].tolist() == [""]
    attacks = workflow.table(tmp_path, "attacks")
    assert {"fingerprint", "surrogate", "nothing", "layer"} <= set(attacks["attack"])
    placed_by = attacks[(attacks["attack"] == "fingerprint") & (attacks["images"] == "60")]
    assert placed_by["position_accuracy"].astype(float).max() > 0.9
    assert list((tmp_path / workflow.RESULTS).glob("**/*.html"))
