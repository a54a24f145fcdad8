"""Checkpoints: a state dict from a file of a user's, read without running anything in it, every value checked."""

import io
import json
import math
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from scatterproof.victims.filetype import PICKLE, SAFETENSORS, TORCH, file_type
from scatterproof.victims.forms.state_dicts import ModelError, dtype_name, state_dict_of

__all__ = ["FLOATS", "ModelError", "check_finite", "dtype_name", "read_checkpoint", "unshared"]

EXPECTED = "expected a safetensors file, or a state dict that torch.save wrote"
ADVICE = "save model.state_dict() as safetensors"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def read_checkpoint(
    path: Path | str, key: str = "victim.checkpoint", model: nn.Module | None = None
) -> dict[str, torch.Tensor]:
    """A state dict from safetensors, or from what torch.load(weights_only=True) accepts. key: of the study, for errors.

    model: the network it is for, untrained: its names say which weights of the file are meant, and what is infinite in
    its buffers, as in a mask, may be so in the file. Prints a line where more was done than reading the file.
    Raises: ModelError where the file is missing, damaged, or holds other objects, no tensors, NaN or infinity.
    """
    path = Path(path)
    where = f"{key} '{path}'"
    own = None if model is None else model.state_dict()
    state, words = state_dict_of(_content(path, where), own, where)
    buffers = {} if model is None else dict(model.named_buffers())
    for name, value in state.items():
        _check_plain(value, f"{where}: {name}")
        check_finite(value, buffers.get(name), f"{where}: {name}")
    if words and (own is None or own.keys() == state.keys()):  # else it is refused by `load_weights`
        print(f"{where}: {'; '.join(words)}")
    return state


def _content(path: Path, where: str) -> Any:
    """What the file holds, as its format says. Raises: ModelError."""
    if path.is_dir():
        raise ModelError(f"{where}: is a folder, {EXPECTED}")
    if not path.is_file():
        raise ModelError(f"{where}: no such file")
    try:
        if _checked_type(path, where) == SAFETENSORS:
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except pickle.UnpicklingError:
        raise _objects_error(path, where) from None
    except Exception as error:  # a damaged file fails in any way it likes
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{where}: cannot be read, or is damaged ({line}), {EXPECTED}") from None


def _checked_type(path: Path, where: str) -> str:
    """What the file is: whole, of the kind that its name says. Raises: ModelError."""
    what = file_type(path)
    named = path.suffix == ".safetensors"
    if what == SAFETENSORS and not named:
        raise ModelError(f"{where}: is {what}, but is named '{path.name}', expected a name that ends in .safetensors")
    if what == TORCH and named:
        raise ModelError(f"{where}: is {what}, but is named '{path.name}', expected a name such as '{path.stem}.pt'")
    if what == PICKLE:
        raise _objects_error(path, where)
    if what not in (SAFETENSORS, TORCH):
        raise ModelError(f"{where}: is {what}, {EXPECTED}")
    _check_length(path, where) if what == SAFETENSORS else _check_sums(path, where)
    return what


def _check_length(path: Path, where: str) -> None:
    """A safetensors file has as many bytes as its header says."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
    size, expected = path.stat().st_size, 8 + length
    if len(header) == length:
        ends = [about["data_offsets"][1] for name, about in json.loads(header).items() if name != "__metadata__"]
        expected += max(ends, default=0)
    if size != expected:
        state = "is cut off" if size < expected else "is damaged"
        raise ModelError(f"{where}: {state}: {size:,} bytes, expected {expected:,} as its header says")


def _check_sums(path: Path, where: str) -> None:
    """The checksums in a file of torch.save are right; torch.load does not compare them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ModelError(f"{where}: is damaged: the checksum of its part '{damaged}' is wrong")


def _objects_error(path: Path, where: str) -> ModelError:
    """What to say of a file that holds more than tensors; torch's own words advise to unpickle it, which runs it."""
    names, strings = _pickled(path)
    if {"_parameters", "_modules"} <= strings:
        return ModelError(f"{where}: is a pickled model, expected a state dict: {ADVICE}")
    foreign = sorted(name for name in names if not name.startswith(("torch.", "collections.")))
    held = f" ({', '.join(foreign[:3])})" if foreign else ""
    return ModelError(f"{where}: refused: holds pickled objects{held}, expected a state dict of tensors: {ADVICE}")


def _pickled(path: Path) -> tuple[set[str], set[str]]:
    """The names of classes and functions in a pickle, and its texts, up to any damage; nothing in it is run."""
    names, strings = set(), set()
    recent: list[str] = []
    try:
        data = io.BytesIO(_pickle_of(path))
        while True:  # torch.save wrote several before 1.6
            for code, value, _ in pickletools.genops(data):
                if code.name == "GLOBAL":
                    names.add(str(value).replace(" ", "."))
                elif code.name == "STACK_GLOBAL":
                    names.add(".".join(recent[-2:]))
                elif isinstance(value, str):
                    recent.append(value)
                    strings.add(value)
    except Exception:  # the end, or damage
        return names, strings


def _pickle_of(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def _check_plain(value: torch.Tensor, where: str) -> None:
    """A tensor is dense, has values, and no format of eight bits that needs scales beside it."""
    if value.layout != torch.strided or value.is_nested:
        raise ModelError(f"{where} is sparse or nested, expected a dense tensor")
    if value.is_meta:
        raise ModelError(f"{where} is a meta tensor, which has no values, expected a tensor with values")
    if value.is_quantized or (value.is_floating_point() and value.dtype not in FLOATS):
        names = ", ".join(map(dtype_name, FLOATS))
        raise ModelError(f"{where} is {dtype_name(value.dtype)}, expected one of {names}")


def check_finite(value: torch.Tensor, own: torch.Tensor | None, where: str) -> None:
    """Refuse NaN and infinity, but where the network's own tensor has the same infinity. Raises: ModelError."""
    bad = ~value.isfinite()
    if own is not None and own.shape == value.shape and not own.is_meta:
        bad &= value != own
    count = int(bad.sum())
    if count == 0:
        return
    first = int(bad.flatten().to(torch.uint8).argmax())
    index = [first // math.prod(value.shape[axis + 1 :]) % size for axis, size in enumerate(value.shape)]
    raise ModelError(
        f"{where} has {count:,} of {value.numel():,} values that are NaN or infinite, "
        f"the first {value.flatten()[first]} at {index}, expected finite numbers"
    )


def unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same on the CPU, each contiguous in memory of its own, as safetensors takes them: tied weights twice."""
    alone: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, value in tensors.items():
        plain = value.cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        alone[name] = plain.clone() if place in places and plain.numel() else plain
        places.add(place)
    return alone
