"""The weights that read a dense layer's outputs, also further down a residual stream."""

import operator
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from scatterproof.evaluation.split import is_elementwise, module_of

aten = torch.ops.aten
# Joining a layer's outputs with something else, each feature with its own: a residual, a gate
ADDING = (operator.add, operator.iadd, torch.add, aten.add.Tensor, aten.sub.Tensor)
SCALING = (operator.mul, operator.imul, torch.mul, aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor)
# Of exported networks: changes of type, powers within a function of single values
CASTING = (
    aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default, aten.pow.Tensor_Scalar,
    aten.add.Scalar, aten.detach.default,
)  # fmt: skip
MEANS = ("mean", torch.mean, aten.mean.dim)
# Attention mixes a value's tokens, and leaves its features in their places
RESHAPING = (
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.transpose.int, aten.permute.default,
)  # fmt: skip
ATTENTION = (aten.scaled_dot_product_attention.default,)


@dataclass(frozen=True)
class Path:
    """What a layer's outputs have passed: norms and gains, the first one first; heads: whether they were reshaped."""

    node: fx.Node
    passed: tuple[nn.LayerNorm | torch.Tensor, ...] = ()
    heads: bool = False


@torch.no_grad()
def reading_weights(tail: nn.Module) -> torch.Tensor | None:
    """The weights [m, outputs] of all dense layers that read the cut layer's outputs, one below the other.

    They may read them through elementwise operations, and further down a residual stream: through sums and products
    with other values, means over tokens, layer norms, whose scale and centring are made part of the weights, gains of
    other norms, and, in an exported network, as the values of an attention. None where no dense layer reads them so, or
    the network can't be traced.
    """
    if not isinstance(tail, fx.GraphModule):
        return None
    first = next(iter(tail.graph.nodes))
    todo, seen = [Path(first)], {first}
    weights: dict[str, torch.Tensor] = {}
    while todo:
        path = todo.pop()
        for node in path.node.users:
            module = module_of(tail, node)
            if type(module) is nn.Linear:
                if _fits(first, module):
                    weights.setdefault(str(node.target), _through(path.passed, module.weight))
                continue
            ahead = None if node in seen else onward(tail, path, node, module)
            if ahead is not None:
                seen.add(node)
                todo.append(ahead)
    return torch.cat(list(weights.values())) if weights else None


def _fits(first: fx.Node, module: nn.Linear) -> bool:
    """Whether a layer reads as many values as the cut one puts out: behind heads that are shared, others do not."""
    value = first.meta.get("val")
    return value is None or int(value.shape[-1]) == module.in_features


def onward(tail: fx.GraphModule, path: Path, node: fx.Node, module: nn.Module | None) -> Path | None:
    """The path with a node, where each feature behind it is made of the same feature before it."""
    if isinstance(module, nn.LayerNorm):
        return None if path.heads else replace(path, node=node, passed=(*path.passed, module))
    if node.target in ATTENTION:
        return replace(path, node=node) if node.args[2] is path.node else None
    if node.target in RESHAPING:
        return replace(path, node=node, heads=True)
    if node.op == "call_function" and node.target in SCALING:
        gain = _gain(tail, path, node)
        return replace(path, node=node, passed=path.passed if gain is None else (*path.passed, gain))
    if _keeps_features(tail, node) or node.target in CASTING:
        return replace(path, node=node)
    return None


def _gain(tail: fx.GraphModule, path: Path, node: fx.Node) -> torch.Tensor | None:
    """The parameter, one value for each feature, that multiplies what comes along the path."""
    for other in node.all_input_nodes:
        if other is path.node or other.op != "get_attr":
            continue
        value: object = tail
        for name in str(other.target).split("."):
            value = getattr(value, name)
        if isinstance(value, torch.Tensor) and value.ndim == 1 and len(value) > 1:
            return value
    return None


def _through(passed: tuple[nn.LayerNorm | torch.Tensor, ...], weight: torch.Tensor) -> torch.Tensor:
    """A weight as it acts on what goes into these norms, the first one first, but for their division."""
    for norm in reversed(passed):
        if isinstance(norm, torch.Tensor):
            weight = weight * norm
            continue
        if norm.weight is not None:
            weight = weight * norm.weight
        weight = weight - weight.mean(1, keepdim=True)
    return weight


def _keeps_features(tail: fx.GraphModule, node: fx.Node) -> bool:
    """Whether each feature of the result is made from the same feature of the node's input."""
    if node.target in ADDING:
        return node.op == "call_function"
    if node.target in MEANS:
        over = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        axes = over if isinstance(over, list | tuple) else [over]
        return all(isinstance(axis, int) and axis in (1, -2) for axis in axes)
    return is_elementwise(tail, node)
