"""Checkpoints of a user's: what is no state dict of finite numbers is refused in one line, and nothing in it is run."""

import argparse
import gzip
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import small
from scatterproof.check import check_study
from scatterproof.config.study import PruneConfig, Study
from scatterproof.config.victim import VictimConfig
from scatterproof.victims.checkpoints import ModelError, read_checkpoint
from scatterproof.victims.models import load_base, load_checkpoint
from scatterproof.victims.training import obtain_victim

State = dict[str, torch.Tensor]
NAN, INF = float("nan"), float("inf")


def refusal(path: Path, key: str = "victim.checkpoint") -> str:
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path, key)
    message = str(caught.value)
    assert message.startswith(f"{key} '{path}': ")
    assert "\n" not in message and "weights_only" not in message
    return message


def saved(folder: Path, state: State, suffix: str = ".safetensors") -> Path:
    path = folder / f"x{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    return path


def tiny(**changed: torch.Tensor) -> State:
    """The tiny network's weights, some changed: `tiny(_7_bias=...)`."""
    torch.manual_seed(3)
    state: State = small.tiny().state_dict()
    return state | {name.strip("_").replace("_", ".", 1): value for name, value in changed.items()}


def own(path: Path) -> VictimConfig:
    return VictimConfig(kind="checkpoint", model="small:tiny", checkpoint=str(path), layer="4", input_size=32)


def check(config: VictimConfig) -> None:
    check_study(
        Study(study="s", victim=config, block_sizes=[16], prune=PruneConfig(corrections=["none"])), small.dataset()
    )


# Values


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_values_that_are_no_numbers_are_counted_and_named(tmp_path: Path, suffix: str, value: float) -> None:
    weight = torch.ones(3, 5)
    weight[1, 4] = weight[2, 0] = value
    path = saved(tmp_path, {"a": torch.ones(2), "4.weight": weight}, suffix)
    for key in ("victim.checkpoint", "victim.base"):
        counted = "4.weight has 2 of 15 values that are NaN or infinite"
        assert refusal(path, key).endswith(f": {counted}, the first {value} at [1, 4], expected finite numbers")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=3), st.integers(0, 63), st.sampled_from([torch.float16, torch.float64]))
def test_the_place_named_is_the_first(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], place: int, dtype: torch.dtype
) -> None:
    value = torch.ones(shape, dtype=dtype)
    place %= value.numel()
    value.view(-1)[place:] = NAN
    index = [int(i) for i in np.unravel_index(place, shape)] if shape else []
    path = saved(tmp_path_factory.getbasetemp(), {"w": value})
    assert f"the first nan at {index}, expected finite numbers" in refusal(path)


class Masked(nn.Module):
    """A network with a mask among its buffers, as attention has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("mask", torch.full((3, 3), -INF).triu(1))


def test_a_mask_of_the_networks_own_may_be_infinite(tmp_path: Path) -> None:
    path = saved(tmp_path, Masked().state_dict())
    load_checkpoint(Masked(), str(path), "victim.checkpoint")
    state = Masked().state_dict()
    state["mask"][2, 0] = -INF
    with pytest.raises(
        ModelError, match=r"mask has 1 of 9 values that are NaN or infinite, the first -inf at \[2, 0\]"
    ):
        load_checkpoint(Masked(), str(saved(tmp_path, state)), "victim.checkpoint")


ODD: list[tuple[State, str]] = [
    (tiny(_4_weight=torch.full((16, 512), NAN)), "4.weight has 8,192 of 8,192 values that are NaN or infinite"),
    (tiny(_1_running_var=torch.tensor([1.0, -INF] + [1.0] * 6)), "1.running_var has 1 of 8 values that are NaN"),
    (tiny(_1_running_var=-torch.ones(8)), "the model answers NaN or infinity, expected finite logits"),
    (tiny(_4_weight=torch.zeros(16, 512)), "4.weight is 0.0 throughout, expected weights that differ"),
    (tiny(_4_weight=torch.ones(16, 512, dtype=torch.int64)), "4.weight is int64, expected float32 as in the model"),
    (tiny(_4_weight=torch.ones(16, 512, dtype=torch.uint8)), "4.weight is uint8, expected float32 as in the model"),
    (tiny(_4_weight=torch.ones(16, 512) > 0), "4.weight is bool, expected float32 as in the model"),
    (tiny(_4_weight=1j * torch.ones(16, 512)), "4.weight is complex64, expected float32 as in the model"),
    (
        tiny(_7_bias=torch.full((5,), 1e300, dtype=torch.float64)),
        "7.bias, float64 as float32, has 5 of 5 values that are NaN or inf",
    ),
    (
        tiny(_7_bias=torch.ones(5).to(torch.float8_e5m2)),
        "7.bias is float8_e5m2, expected one of float64, float32, float16",
    ),
    (
        tiny(_1_num_batches_tracked=torch.tensor(1.5)),
        "1.num_batches_tracked is float32, expected int64 as in the model",
    ),
]


@pytest.mark.parametrize(("state", "named"), ODD, ids=[named for _, named in ODD])
def test_odd_weights_are_refused_before_anything_runs_and_again_in_the_job(
    tmp_path: Path, state: State, named: str
) -> None:
    path = saved(tmp_path, state, ".pt")
    jobs: list[Callable[[], Any]] = [
        lambda: check(own(path)),
        lambda: obtain_victim(own(path), 0, small.dataset(), torch.device("cpu"), 1, tmp_path / "none"),
    ]
    for job in jobs:
        with pytest.raises(ModelError) as caught:
            job()
        assert str(caught.value).startswith(f"victim.checkpoint '{path}': {named}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", [ODD[0][0], ODD[4][0], ODD[8][0]])
def test_a_base_is_held_to_the_same(tmp_path: Path, state: State) -> None:
    path = saved(tmp_path, state)
    config = VictimConfig(model="small:tiny", base=str(path), layer="4", input_size=32)
    with pytest.raises(ModelError, match=rf"^victim\.base '{path}': [47]\.\w+[ ,]"):
        check(config)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) for name, value in tiny().items()}
    path = saved(tmp_path, state)
    check(own(path))
    model = obtain_victim(own(path), 0, small.dataset(), torch.device("cpu"), 1, tmp_path / "none").model
    for name, value in model.state_dict().items():
        assert value.dtype == tiny()[name].dtype
        assert torch.equal(value, state[name].to(value.dtype))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8), "w is qint8, expected one of float64"),
        (lambda: torch.eye(3).to_sparse(), "w is sparse or nested, expected a dense tensor"),
        (lambda: torch.empty(3, device="meta"), "w is a meta tensor, which has no values"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_plain_are_refused(tmp_path: Path, make: Callable[[], torch.Tensor], named: str) -> None:
    assert named in refusal(saved(tmp_path, {"w": make()}, ".pt"))


# Files of another kind


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.txt", "1 2 3")


def cut(path: Path) -> None:
    torch.save(tiny(), path)
    path.write_bytes(path.read_bytes()[:-300])


def flipped(path: Path) -> None:
    """One bit of a weight is another: torch.load alone does not see it."""
    torch.save({"w": torch.full((50,), 7.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(np.full(50, 7, np.float32).tobytes()) + 9] ^= 1
    path.write_bytes(data)
    assert not (torch.load(path)["w"] == 7).all()


def script(path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(path)


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (
        lambda path: path.touch(),
        "is empty, expected a safetensors file, or a state dict that torch.save wrote",
    ),
    "folder": (lambda path: path.mkdir(), "is a folder, expected a safetensors file"),
    "text": (lambda path: path.write_text("epoch 12\n"), "is text that begins 'epoch 12', expected a safetensors file"),
    "json": (
        lambda path: path.write_text('{"weight_map": {}}'),
        "is text that begins '{\"weight_map\": {}}', expected",
    ),
    "html": (
        lambda path: path.write_text("\n<!DOCTYPE html>\n<html>"),
        "is an HTML page, as a failed download leaves it",
    ),
    "lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a git-LFS pointer and not the file itself: run git lfs pull, expected",
    ),
    "zip": (zipped, "is a zip archive of other files, expected a safetensors file"),
    "npz": (lambda path: np.savez(path.open("wb"), w=np.ones(2)), "is an .npz of arrays, expected a safetensors file"),
    "npy": (lambda path: np.save(path.open("wb"), np.ones(2)), "is a numpy array (.npy), expected a safetensors file"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"weights")), "is a gzip archive, expected"),
    "bytes": (lambda path: path.write_bytes(bytes(range(128, 256)) * 3), "is a file of an unknown type, expected"),
    "cut": (cut, "is a zip archive that is cut off or damaged, expected"),
    "torchscript": (script, "is a TorchScript program, expected"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("case", FILES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_file_of_another_kind_is_said_to_be_what_it_is(tmp_path: Path, case: str, suffix: str) -> None:
    write, named = FILES[case]
    path = tmp_path / f"x{suffix}"
    write(path)
    assert named in refusal(path)


def test_a_changed_bit_is_seen(tmp_path: Path) -> None:
    flipped(tmp_path / "x.pt")
    assert "is damaged: the checksum of its part 'x/data/0' is wrong" in refusal(tmp_path / "x.pt")


def test_names_that_say_another_format_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, tiny()).rename(tmp_path / "a.pt")
    assert refusal(tmp_path / "a.pt").endswith(
        "is a safetensors file, but is named 'a.pt', expected a name that ends in .safetensors"
    )
    saved(tmp_path, tiny(), ".pt").rename(tmp_path / "b.safetensors")
    assert refusal(tmp_path / "b.safetensors").endswith(
        "is a file of torch.save, but is named 'b.safetensors', expected a name such as 'b.pt'"
    )


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_safetensors_cut_off_anywhere_are_refused(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = saved(tmp_path_factory.getbasetemp(), {"w": torch.ones(40)})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    message = refusal(path)
    if int(share * len(data)) > 8:
        assert "is cut off: " in message and "as its header says" in message


def test_safetensors_with_more_behind_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": torch.ones(40)})
    path.write_bytes(path.read_bytes() + b"more")
    assert "is damaged: 236 bytes, expected 232 as its header says" in refusal(path)


# Other objects


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("whole", [small.tiny(), {"model": small.tiny(), "epoch": 3}, Masked()])
def test_a_pickled_model_is_refused_in_our_words(tmp_path: Path, whole: Any, old: bool) -> None:
    torch.save(whole, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
    assert refusal(tmp_path / "x.pt").endswith(
        "is a pickled model, expected a state dict: save model.state_dict() as safetensors"
    )


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_other_pickles_are_refused(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(small.tiny(), protocol))
    assert "is a pickled model, expected a state dict" in refusal(path)
    path.write_bytes(pickle.dumps({"w": Path("a")}, protocol))
    assert "refused: holds pickled objects (pathlib." in refusal(path)
    torch.save({"w": torch.ones(2), "where": Path("a")}, path, pickle_protocol=protocol)
    assert "refused: holds pickled objects (pathlib." in refusal(path)


def test_a_state_dict_of_old_torch_is_read(tmp_path: Path) -> None:
    torch.save(tiny(), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "x.pt").keys() == tiny().keys()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([torch.ones(2)], "holds list, expected a state dict of tensors"),
        ({}, "holds no tensors, expected a state dict of tensors"),
        ({"w": torch.ones(2), "lr": 0.1}, "'lr' is float, expected a state dict of tensors"),
        (
            {"epoch": 3, "weights": {"w": torch.ones(2)}},
            "'epoch' is int, expected a state dict of tensors, bare or under 'state_dict' or 'model', "
            "not under 'weights'",
        ),
    ],
)
def test_what_is_no_state_dict_is_named(tmp_path: Path, content: Any, named: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert refusal(tmp_path / "x.pt").endswith(named)


# The containers, names and leavings of trainings


def named(prefix: str, state: State | None = None) -> State:
    return {prefix + name: value for name, value in (state or tiny()).items()}


def without(ending: str) -> State:
    return {name: value for name, value in tiny().items() if not name.endswith(ending)}


def other() -> State:
    return {name: value + 1 for name, value in tiny().items()}


def counted() -> State:
    """What a profiler leaves in a model."""
    counters = {"total_ops": torch.zeros(1, dtype=torch.float64), "total_params": torch.zeros(1, dtype=torch.float64)}
    inside = {f"{layer}.{name}": value for layer in "047" for name, value in counters.items()}
    return tiny() | dict(sorted((counters | inside).items()))


class Trained(nn.Module):
    """As a training keeps a network: under an attribute, beside its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small.tiny()
        self.criterion = nn.CrossEntropyLoss(torch.ones(5))


def averaged() -> State:
    return dict(torch.optim.swa_utils.AveragedModel(small.tiny()).state_dict()) | named("module.")


def wrapped_inside() -> State:
    return {name.replace("4.", "4._orig_mod.").replace("7.", "7.module."): value for name, value in tiny().items()}


OPTIMIZER = torch.optim.AdamW(small.tiny().parameters()).state_dict()
# What is saved, and what is printed of it; what is read is the tiny network
USUAL: dict[str, tuple[Callable[[], Any], str]] = {
    "bare": (tiny, ""),
    **{
        key: (lambda key=key: {key: tiny(), "epoch": 3}, f"read under '{key}'; left out epoch")
        for key in ("state_dict", "model", "model_state_dict", "module", "ema", "net", "params")
    },
    "optimizer": (
        lambda: {"epoch": 9, "model": tiny(), "optimizer": OPTIMIZER},
        "read under 'model'; left out epoch, optimizer",
    ),
    "container in a container": (
        lambda: {"ema": {"module": tiny(), "updates": 3}, "loss": 0.1},
        "read under 'ema.module'; left out loss, updates",
    ),
    "two that are the same": (lambda: {"model": tiny(), "ema": tiny()}, "read under 'model'; left out ema"),
    "two of which one fits": (
        lambda: {"model": {"w": torch.ones(2)}, "ema": tiny()},
        "read under 'ema'; left out model",
    ),
    "two of which one has the shapes": (
        lambda: {"model": tiny(_7_bias=torch.ones(9)), "ema": tiny()},
        "read under 'ema'; left out model",
    ),
    "DataParallel": (lambda: named("module."), "names without module"),
    "compiled": (lambda: named("_orig_mod."), "names without _orig_mod"),
    "compiled DataParallel": (lambda: named("_orig_mod.module."), "names without module, _orig_mod"),
    "DataParallel compiled": (lambda: named("module._orig_mod."), "names without module, _orig_mod"),
    "a strategy's": (lambda: named("_forward_module.module."), "names without module, _forward_module"),
    "wrapped inside": (wrapped_inside, "names without module, _orig_mod"),
    "model": (lambda: named("model."), "read under the prefix 'model.'"),
    "backbone": (lambda: named("backbone."), "read under the prefix 'backbone.'"),
    "Lightning": (
        lambda: {"state_dict": named("model."), "global_step": 7, "hyper_parameters": {"lr": 0.1}},
        "read under 'state_dict' and the prefix 'model.'; left out global_step, hyper_parameters",
    ),
    "Lightning compiled": (
        lambda: {"state_dict": named("net._orig_mod.")},
        "read under 'state_dict' and the prefix 'net.'; names without _orig_mod",
    ),
    "prefixes in each other": (
        lambda: {"model": named("module.model.backbone.")},
        "read under 'model' and the prefix 'model.backbone.'; names without module",
    ),
    "a loss beside": (
        lambda: Trained().state_dict() | named("net."),
        "read under the prefix 'net.'; left out criterion.weight",
    ),
    "averaged": (averaged, "names without module; left out n_averaged"),
    "a profiler's": (counted, "left out 0.total_ops, 0.total_params, 4.total_ops and 5 more"),
    "no counts": (lambda: without("num_batches_tracked"), "set to 0 1.num_batches_tracked"),
    "half": (lambda: {n: v.half() if v.is_floating_point() else v for n, v in rounded().items()}, "float16 converted"),
    "bfloat16": (
        lambda: {"model": {n: v.bfloat16() if v.is_floating_point() else v for n, v in rounded().items()}},
        "read under 'model'; bfloat16 converted to float32",
    ),
}


def rounded() -> State:
    """Weights that stay the same in eight bits of mantissa."""
    return {name: value.bfloat16().half().to(value.dtype) for name, value in tiny().items()}


def flat(content: dict[str, Any]) -> bool:
    """Whether safetensors, which hold tensors alone, can hold it."""
    return all(isinstance(value, torch.Tensor) for value in content.values())


FORMS = [(case, ".pt") for case in USUAL]
FORMS += [(case, ".safetensors") for case, (make, _) in USUAL.items() if flat(make())]


@pytest.mark.parametrize(("case", "suffix"), FORMS)
def test_weights_in_other_usual_forms_are_read_alike(
    tmp_path: Path, case: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = USUAL[case]
    content = make()
    if suffix == ".safetensors":  # where no two may share their memory
        content = {name: value.clone() for name, value in content.items()}
    path = saved(tmp_path, content, suffix)
    model = small.tiny()
    load_checkpoint(model, str(path), "victim.checkpoint")
    expected = tiny() if "float16" not in said else {n: v.bfloat16().half() for n, v in tiny().items()}
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name].to(value.dtype)), name
    printed = capsys.readouterr().out
    assert said in printed and printed.count("\n") == (1 if said else 0)
    assert printed.startswith(f"victim.checkpoint '{path}': {said}") or not said


class Nested(nn.Module):
    """A network whose own names begin as a wrapper's and a prefix do."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Sequential()
        self.module.model = small.tiny()


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod."])
def test_a_networks_own_names_stay(tmp_path: Path, prefix: str) -> None:
    model = Nested()
    path = saved(tmp_path, named(prefix, model.state_dict()))
    again = Nested()
    load_checkpoint(again, str(path), "victim.checkpoint")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "two containers": (
        lambda: {"model": tiny(), "ema": other()},
        "the weights under 'model' and those under 'ema' both fit and differ, in 0.bias for one; expected one set",
    ),
    "two prefixes": (
        lambda: named("model.") | named("ema.", other()),
        "the weights under the prefix 'ema.' and those under the prefix 'model.' both fit and differ, in 0.bias",
    ),
    "bare and a prefix": (
        lambda: tiny() | named("model.", other()),
        "the weights without a prefix and those under the prefix 'model.' both fit and differ, in 0.bias",
    ),
    "one wrapped as well": (
        lambda: tiny() | {"7.module.bias": torch.zeros(5)},
        "7.bias stands there twice, once as 7.module.bias, expected each weight once",
    ),
    "missing": (
        lambda: without("7.bias"),
        "checkpoint of another architecture: 7.bias is missing",
    ),
    "misnamed": (
        lambda: {"4.weights" if name == "4.weight" else name: value for name, value in tiny().items()},
        "another architecture: 4.weight is missing (nearest: 4.weights); 4.weights is not in the model",
    ),
    "a batch norm's mean is missing": (lambda: without("running_mean"), "architecture: 1.running_mean is missing"),
    "surplus": (lambda: tiny() | {"9.weight": torch.ones(2)}, "architecture: 9.weight is not in the model"),
    "surplus beside a prefix": (
        lambda: named("model.") | {"head.weight": torch.ones(2)},
        "architecture: head.weight is not in the model",
    ),
    "a weight beside a prefix": (
        lambda: named("model.") | {"4.weight": torch.ones(2)},
        "4.weight stands there twice, once as model.4.weight, expected it once",
    ),
    "shape": (
        lambda: {"model": tiny(_7_bias=torch.ones(9))},
        "another architecture: 7.bias is [9], the model has [5]",
    ),
    "NaN under a prefix": (
        lambda: {"model": named("module.", tiny(_7_bias=torch.full((5,), NAN)))},
        "7.bias has 5 of 5 values that are NaN or infinite",
    ),
    "objects beside": (
        lambda: {"model": tiny(), "args": argparse.Namespace(lr=0.1)},
        "refused: holds pickled objects (argparse.Namespace), expected a state dict of tensors: save model.state",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_are_not_surely_the_networks_are_refused(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, line = REFUSED[case]
    path = saved(tmp_path, make(), ".pt")
    with pytest.raises(ModelError) as caught:
        load_checkpoint(small.tiny(), str(path), "victim.checkpoint")
    assert str(caught.value).startswith(f"victim.checkpoint '{path}': ")
    assert line in str(caught.value) and "\n" not in str(caught.value)
    assert capsys.readouterr().out == "" or case == "shape"


def test_a_base_in_a_container_is_read_and_its_head_left_out(tmp_path: Path) -> None:
    state = tiny(_7_weight=torch.ones(9, 16), _7_bias=torch.ones(9))
    torch.save({"model": named("module.", state)}, tmp_path / "x.pt")
    model = small.tiny()
    head = model.state_dict()["7.bias"].clone()
    load_base(model, str(tmp_path / "x.pt"))
    assert torch.equal(model.state_dict()["4.weight"], state["4.weight"])
    assert torch.equal(model.state_dict()["7.bias"], head)
