"""Cut a network in two at a dense layer, so that everything before it is computed once.

The network is traced with torch.fx, or exported. Whatever does not depend on the layer's output is the head, the rest
the tail; values that pass around the layer (a residual, say) are handed from head to tail. A network that can't be
traced is cut before its first operation: right, only slower.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from scatterproof.evaluation.exported import axis_of, dataless, graph_of, is_exported, is_size

aten = torch.ops.aten
# Acting on each value by itself, whatever its place
ELEMENTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus,
    nn.Hardswish, nn.Identity, nn.Dropout,
)  # fmt: skip
ELEMENTWISE_FUNCTIONS = (
    F.relu, torch.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, F.mish, F.tanh, torch.tanh, F.sigmoid,
    torch.sigmoid, F.softplus, F.hardswish, F.dropout,
    aten.relu.default, aten.gelu.default, aten.silu.default, aten.tanh.default, aten.sigmoid.default,
    aten.leaky_relu.default, aten.elu.default, aten.mish.default, aten.softplus.default, aten.hardswish.default,
    aten.contiguous.default, aten.clone.default,
)  # fmt: skip
ELEMENTWISE_METHODS = ("relu", "tanh", "sigmoid", "contiguous", "clone")
# Of these the ones that let positive scales through
HOMOGENEOUS_MODULES = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Dropout)
HOMOGENEOUS_FUNCTIONS = (
    F.relu, torch.relu, F.leaky_relu, F.dropout, aten.relu.default, aten.leaky_relu.default, aten.contiguous.default,
    aten.clone.default,
)  # fmt: skip
HOMOGENEOUS_METHODS = ("relu", "contiguous", "clone")


@dataclass(frozen=True)
class SplitModel:
    """`features = head(images)`, then `logits = tail(layer(features[0]), *features[1:])`.

    Where `first` (the path of `layer`) is None, `tail` is the whole model, to be called on the images.
    """

    head: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    tail: nn.Module
    first: str | None


def split_at(model: nn.Module, layers: Collection[str]) -> SplitModel:
    """Split an eval-mode model at the first of these dense layers; the others end up in the tail."""
    graph = graph_of(model)
    if graph is None:
        return whole(model)
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target in layers]
    if sorted(str(node.target) for node in calls) != sorted(layers):  # a layer is called twice, or inside a leaf
        return whole(model)
    if any(_reads_weight(node, layers) or _overwrites(node, model) for node in graph.nodes):
        return whole(model)
    first = calls[0]
    if not first.args:  # called by keyword
        return whole(model)
    after, free = _dependants(calls), _for_the_tail(graph, first)
    crossing = [n for n in graph.nodes if n not in after and n not in free and _feeds(n, after, first)]
    head, tail = _head(model, graph, first, crossing), _tail(model, graph, first, crossing, after, free)
    return SplitModel(head, tail, str(first.target))


def whole(model: nn.Module) -> SplitModel:
    """The model uncut: its tail takes the images."""
    return SplitModel(lambda images: (images,), model, None)


def features(split: SplitModel, parts: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...] | None:
    """What the head hands to layer and tail, for all images, given in parts as the network takes them.

    None where something else than one row per image passes around the layer (a batch size, say): that can't be kept.
    """
    by_part = []
    with torch.inference_mode():
        for part in parts:
            values = split.head(part)
            if not all(isinstance(value, torch.Tensor) and value.shape[:1] == part.shape[:1] for value in values):
                return None
            by_part.append(values)
    return tuple(torch.cat(column) for column in zip(*by_part, strict=True))


@dataclass(frozen=True)
class NextLayer:
    """A tail taken apart: `tail(y) = rest(linear(activation(y)))`, the activation elementwise."""

    activation: Callable[[torch.Tensor], torch.Tensor]
    linear: nn.Linear
    rest: nn.Module


def next_layer(tail: nn.Module) -> NextLayer | None:
    """The dense layer that follows in an eval-mode tail of `split_at`, if only elementwise operations lie between."""
    if not isinstance(tail, fx.GraphModule) or sum(node.op == "placeholder" for node in tail.graph.nodes) > 1:
        return None
    name = following_layer(tail)
    if name is None:
        return None
    linear = tail.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return _next_layer(split_at(tail, [name]), linear)


def following_layer(tail: nn.Module) -> str | None:
    """The path of the dense layer that reads the cut layer's outputs through elementwise operations alone, if one does.

    Unlike `next_layer`, whatever else passes around the two layers.
    """
    path = _path_to_reader(tail)
    return None if path is None else str(path[-1].target)


def is_homogeneous(tail: nn.Module) -> bool:
    """Whether all that lies between the cut layer and `following_layer` lets positive scales of single values through:
    f(s x) = s f(x)."""
    path = _path_to_reader(tail)
    if path is None or not isinstance(tail, fx.GraphModule):
        return False
    return all(
        isinstance(module_of(tail, node), HOMOGENEOUS_MODULES)
        or (node.op == "call_function" and node.target in HOMOGENEOUS_FUNCTIONS)
        or (node.op == "call_method" and node.target in HOMOGENEOUS_METHODS)
        for node in path[:-1]
    )


def _path_to_reader(tail: nn.Module) -> list[fx.Node] | None:
    """The nodes after the cut layer's output, up to the dense layer that reads it through elementwise ones alone."""
    if not isinstance(tail, fx.GraphModule):
        return None
    node, path = next(iter(tail.graph.nodes)), []
    while len(users := [user for user in node.users if not is_size(user)]) == 1:
        node = users[0]
        path.append(node)
        if type(module_of(tail, node)) is nn.Linear:
            return path
        if not is_elementwise(tail, node):
            return None
    return None


def module_of(tail: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return tail.get_submodule(str(node.target)) if node.op == "call_module" else None


def is_elementwise(tail: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node acts on each value of its only input by itself."""
    if len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_method":
        return node.target in ELEMENTWISE_METHODS
    function = node.op == "call_function" and node.target in ELEMENTWISE_FUNCTIONS
    module = module_of(tail, node)
    one_slope = isinstance(module, nn.PReLU) and module.num_parameters == 1
    return function or one_slope or isinstance(module, ELEMENTWISE_MODULES)


def _next_layer(split: SplitModel, linear: nn.Linear) -> NextLayer | None:
    return None if split.first is None else NextLayer(lambda y: split.head(y)[0], linear, split.tail)


def _reads_weight(node: fx.Node, layers: Collection[str]) -> bool:
    """Whether a layer's weight is used but by calling the layer."""
    return node.op == "get_attr" and str(node.target).rpartition(".")[0] in layers


def _overwrites(node: fx.Node, model: nn.Module) -> bool:
    """Whether the node writes in place into what others read, or for nobody to read: order matters, a cut loses it."""
    if not node.op.startswith("call") or not node.all_input_nodes:
        return False
    if node.op == "call_module":
        in_place = bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    else:
        name = getattr(node.target, "__name__", str(node.target)).partition(".")[0]  # of aten's without the overload
        in_place = (name.endswith("_") and not name.endswith("__")) or node.kwargs.get("inplace") is True
    if not in_place:
        return False
    return not node.users or len(node.all_input_nodes[0].users) > 1


def _dependants(nodes: list[fx.Node]) -> set[fx.Node]:
    return _reachable(nodes, lambda node: node.users)


def _ancestors(nodes: list[fx.Node]) -> set[fx.Node]:
    return _reachable(nodes, lambda node: node.all_input_nodes)


def _reachable(nodes: list[fx.Node], following: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    """These nodes, and all that lie on from them."""
    reachable, todo = set(nodes), list(nodes)
    while todo:
        ahead = [node for node in following(todo.pop()) if node not in reachable]
        reachable.update(ahead)
        todo += ahead
    return reachable


def _feeds(node: fx.Node, after: set[fx.Node], first: fx.Node) -> bool:
    return any(user in after and user is not first for user in node.users)


def _for_the_tail(graph: fx.Graph, first: fx.Node) -> dict[fx.Node, int | None]:
    """What the tail makes by itself: tensors of the network; in an exported graph also what depends on sizes alone,
    and the sizes that the cut layer's outputs have, each with its axis there."""
    if not is_exported(graph):
        return {node: None for node in graph.nodes if node.op == "get_attr"}
    made: dict[fx.Node, int | None] = {}
    for node in dataless(graph):
        axis = axis_of(first, node) if is_size(node) else None
        if axis is not None or (not is_size(node) and all(each in made for each in node.all_input_nodes)):
            made[node] = axis
    return made


def _head(model: nn.Module, graph: fx.Graph, first: fx.Node, crossing: list[fx.Node]) -> fx.GraphModule:
    head = fx.Graph()
    wanted = [first.args[0], *crossing]
    copies: dict[fx.Node, fx.Node] = {}
    needed = _ancestors([n for n in wanted if isinstance(n, fx.Node)])
    for original in graph.nodes:
        if original in needed or original.op == "placeholder":
            copies[original] = head.node_copy(original, lambda n: copies[n])
    head.output(tuple(copies[n] for n in wanted if isinstance(n, fx.Node)))
    return _module_of(model, head)


def _tail(
    model: nn.Module,
    graph: fx.Graph,
    first: fx.Node,
    crossing: list[fx.Node],
    after: set[fx.Node],
    free: Mapping[fx.Node, int | None],
) -> fx.GraphModule:
    tail = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {first: tail.placeholder("layer_output")}
    copies[first].meta = dict(first.meta)
    for index, original in enumerate(crossing):
        copies[original] = tail.placeholder(f"crossing_{index}")
        copies[original].meta = dict(original.meta)
    needed = _ancestors([node for node in after if node is not first])
    for original in graph.nodes:
        if original in free and original in needed and original not in after:
            if free[original] is None:
                copies[original] = tail.node_copy(original, lambda n: copies[n])
            else:
                copies[original] = tail.call_function(original.target, (copies[first], free[original]))
                copies[original].meta = dict(original.meta)
        elif original in after and original is not first:
            copies[original] = tail.node_copy(original, lambda n: copies[n])
    return _module_of(model, tail)


def _module_of(model: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(model, graph)
    kept = model.state_dict()
    for name, _ in module.named_buffers():
        if name not in kept:  # fx makes every buffer one that is kept
            path, _, own = name.rpartition(".")
            module.get_submodule(path)._non_persistent_buffers_set.add(own)
    if is_exported(graph):
        module.meta["exported"] = True
    return module
