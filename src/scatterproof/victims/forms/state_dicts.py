"""Weights as people save them: in a training's container, under a wrapper's names, with what a profiler left there.

A container and a prefix are taken where with them every weight of the network is there; where two sets are, and
differ, none is.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from scatterproof.errors import UserError
from scatterproof.victims.networks.attention import FUSED

State = dict[str, torch.Tensor]
CONTAINERS = (
    "state_dict", "model_state_dict", "model", "module", "net", "network", "params",
    "ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema",
)  # fmt: skip
DEPTH = 3  # containers in each other
# Parts of names that a wrapper puts in, wherever it wraps: DataParallel, torch.compile, Lightning's strategies, FSDP
WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Attributes under which a network lies in what was saved
PREFIXES = ("model", "net", "network", "backbone", "module", "ema", "ema_model", "model_ema")
TRACKED = "num_batches_tracked"  # of a batch norm: counts, and is not read in inference
COUNTERS = (TRACKED, "total_ops", "total_params", "n_averaged")  # the next two are a profiler's, then averaging's
BESIDE = ("criterion", "loss", "loss_fn", "optimizer")  # of a training, beside the network
SHOWN = 3  # names in one phrase


class ModelError(UserError):
    """A network or checkpoint that does not fit the study, in one line."""


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` and the like."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class _Weights:
    """One set of tensors of a file, and where it lies there: under which keys, and which prefix of its names."""

    keys: tuple[str, ...]
    prefix: str
    tensors: State
    others: State  # under the same keys, without the prefix

    @property
    def place(self) -> str:
        parts = [f"'{'.'.join(self.keys)}'" if self.keys else "", f"the prefix '{self.prefix}'" if self.prefix else ""]
        return f"under {' and '.join(filter(None, parts))}" if any(parts) else "without a prefix"


def state_dict_of(content: Any, own: Mapping[str, torch.Tensor] | None, where: str) -> tuple[State, list[str]]:
    """The network's tensors by its own names, and what was done for that, in words.

    own: the network's state; without it only containers and wrappers are known. where: key and file, for errors.
    What is neither the network's nor known to be harmless is left for `load_weights` to refuse. Raises: ModelError.
    """
    containers = list(_containers(content))
    states = {keys: state for keys, state in containers if _is_state(state)}
    if not states:
        raise _no_state(containers[0][1] if containers else content, where)
    wrappers = _wrappers(own or {})
    plain = {keys: _unwrapped(state, wrappers, where) for keys, state in states.items()}
    chosen = _chosen([each for keys, state in plain.items() for each in _parts(keys, state, own)], own, where)
    words = [f"read {chosen.place}"] if chosen.keys or chosen.prefix else []
    words += _listed(
        "names without", [part for part in wrappers if any(part in _split(n) for n in states[chosen.keys])]
    )
    words += _listed("left out", list(_beside(content, chosen.keys)))
    if own is None:
        return chosen.tensors, words
    state, more = _mended(chosen, own, where)
    return state, words + more


def _containers(
    content: Any, keys: tuple[str, ...] = (), depth: int = DEPTH
) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """The innermost dicts that are reached by the usual keys, with the keys to them."""
    if not isinstance(content, dict):
        return
    inner = [key for key in CONTAINERS if isinstance(content.get(key), dict)] if depth else []
    for key in inner:
        yield from _containers(content[key], (*keys, key), depth - 1)
    if not inner:
        yield keys, content


def _is_state(content: dict[Any, Any]) -> bool:
    return bool(content) and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items())


def _no_state(content: Any, where: str) -> ModelError:
    """What to say of a file without a state dict."""
    if not isinstance(content, dict):
        return ModelError(f"{where}: holds {type(content).__name__}, expected a state dict of tensors")
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            continue
        nested = [repr(key) for key, part in content.items() if isinstance(part, dict) and _is_state(part)]
        hint = f", bare or under 'state_dict' or 'model', not under {nested[0]}" if nested else ""
        return ModelError(f"{where}: {name!r:.80} is {type(value).__name__}, expected a state dict of tensors{hint}")
    return ModelError(f"{where}: holds no tensors, expected a state dict of tensors")


def _beside(content: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """What else the file holds, on the way to its weights."""
    for key in keys:
        yield from (str(other) for other in content if other != key)
        content = content[key]


def _split(name: str) -> list[str]:
    return name.split(".")


def _wrappers(own: Iterable[str]) -> list[str]:
    """The parts of names that can't be the network's own."""
    parts = {part for name in own for part in _split(name)}
    return [part for part in WRAPPERS if part not in parts]


def _unwrapped(state: State, wrappers: list[str], where: str) -> State:
    """The tensors by their names without a wrapper's parts. Raises: ModelError."""
    plain: State = {}
    for name, value in state.items():
        short = ".".join(part for part in _split(name) if part not in wrappers) or name
        if short in plain:
            raise ModelError(f"{where}: {short} stands there twice, once as {name}, expected each weight once")
        plain[short] = value
    return plain


def _parts(keys: tuple[str, ...], state: State, own: Mapping[str, torch.Tensor] | None) -> Iterator[_Weights]:
    """Every set of weights that these may hold: all, and those under each usual prefix."""
    prefixes = {""} | ({prefix for name in state for prefix in _prefixes(name)} if own is not None else set())
    for prefix in sorted(prefixes, key=len):
        under = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        inside = {_projected(name, own or {}): value for name, value in under.items()}
        yield _Weights(keys, prefix, inside, {n: v for n, v in state.items() if not n.startswith(prefix)})


def _projected(name: str, own: Mapping[str, torch.Tensor]) -> str:
    """PyTorch's name of a weight of its attention as that of the network's dense layer, where it has one."""
    path, _, last = name.rpartition(".")
    dense = ".".join(filter(None, (path, FUSED.get(last, last))))
    return dense if name not in own and dense in own else name


def _prefixes(name: str) -> Iterator[str]:
    prefix = ""
    for part in _split(name)[:-1]:
        if part not in PREFIXES:
            return
        prefix += f"{part}."
        yield prefix


def _chosen(candidates: list[_Weights], own: Mapping[str, torch.Tensor] | None, where: str) -> _Weights:
    """The set that has every weight of the network; where none has, that with the most. Raises: ModelError."""
    required = {name for name in own or {} if not name.endswith(TRACKED)}
    fitting = [each for each in candidates if required <= each.tensors.keys()]
    if not fitting:
        return max(candidates, key=lambda each: len(required & each.tensors.keys()))

    def of_right_shape(each: _Weights) -> int:
        return sum(each.tensors[name].shape == own[name].shape for name in required) if own else 0

    most = max(map(of_right_shape, fitting))
    first, *others = (each for each in fitting if of_right_shape(each) == most)
    for other in others:
        names = sorted(required) if own else sorted(first.tensors.keys() | other.tensors.keys())
        odd = next((name for name in names if not _same(first.tensors.get(name), other.tensors.get(name))), None)
        if odd is not None:
            raise ModelError(
                f"{where}: the weights {first.place} and those {other.place} both fit and differ, in {odd} for one; "
                "expected one set: save alone those that are meant"
            )
    return first


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    plain = not any(each.is_meta or each.layout != torch.strided for each in (one, other))
    return plain and torch.equal(one, other)


def _mended(chosen: _Weights, own: Mapping[str, torch.Tensor], where: str) -> tuple[State, list[str]]:
    """The set without harmless surplus, with what is harmless to lack. Raises: ModelError."""
    state = dict(chosen.tensors)
    for name, value in chosen.others.items():
        if _harmless(name):
            continue
        if name in state:
            raise ModelError(f"{where}: {name} stands there twice, once as {chosen.prefix}{name}, expected it once")
        state[name] = value
    surplus = [name for name in chosen.others if _harmless(name)]
    surplus += [name for name in state if name not in own and _harmless(name)]
    absent = [name for name in own if name.endswith(TRACKED) and name not in state]
    state = {name: value for name, value in state.items() if name in own or not _harmless(name)}
    state |= {name: torch.zeros_like(own[name], device="cpu") for name in absent}
    widths = {
        f"{dtype_name(state[name].dtype)} converted to {dtype_name(own[name].dtype)}": None
        for name in own
        if name in state
        and own[name].is_floating_point()
        and state[name].is_floating_point()
        and state[name].dtype != own[name].dtype
    }
    return state, [*_listed("left out", surplus), *_listed("set to 0", absent), *widths]


def _harmless(name: str) -> bool:
    """Whether a tensor that the network has not says nothing of what it answers."""
    return _split(name)[-1] in COUNTERS or _split(name)[0] in BESIDE


def _listed(what: str, names: list[str]) -> list[str]:
    """One phrase of what was done to these, the first few named; none where there are none."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{what} {', '.join(names[:SHOWN])}{more}"] if names else []
