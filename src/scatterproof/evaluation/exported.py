"""Networks that torch.fx can't trace: exported by torch.export, which runs them on an example, as graphs of modules.

A network that offers an example of its inputs, `example()`, is exported for any number of inputs, of any length where
these are token ids. Its dense layers and layer norms are made calls of its own modules again, so that a graph can be
cut at them; a size that an operation needs is read from that operation's own input, so that each part stands alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

aten = torch.ops.aten
LONGEST = 2**15  # inputs at once, for torch.export
_DROPPED = (aten._assert_tensor_metadata.default,)
_GRAPHS: dict[Any, tuple[fx.Graph, dict[str, torch.Tensor]]] = {}


def graph_of(model: nn.Module) -> fx.Graph | None:
    """The network's graph, by torch.fx or else by torch.export; None where neither can trace it."""
    if isinstance(model, fx.GraphModule) and model.meta.get("exported"):
        return model.graph
    try:
        return fx.Tracer().trace(model)
    except Exception:  # a user's model may fail to trace in any way it likes
        return _exported(model)


def is_exported(graph: fx.Graph) -> bool:
    """Whether torch.export made it, or what it was cut from."""
    return any(isinstance(node.target, torch._ops.OpOverload) for node in graph.nodes)


def _exported(model: nn.Module) -> fx.Graph | None:
    example = getattr(model, "example", None)
    if example is None:
        return None
    key = (model.architecture, str(next(model.parameters()).device))
    if key not in _GRAPHS:
        try:
            _GRAPHS[key] = _export(model, example())
        except Exception as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            print(f"the network can't be cut, and is run as a whole: torch.export fails: {line:.200}")
            _GRAPHS[key] = (fx.Graph(), {})
    graph, constants = _GRAPHS[key]
    for name, value in constants.items():
        if not hasattr(model, name):
            model.register_buffer(name, value, persistent=False)
    return graph if len(graph.nodes) else None


def _export(model: nn.Module, example: torch.Tensor) -> tuple[fx.Graph, dict[str, torch.Tensor]]:
    """Of an eval-mode network: its graph, and the constants that it reads by names of its own."""
    sizes = {0: torch.export.Dim("number", min=1, max=LONGEST)}
    if example.ndim == 2 and example.dtype == torch.int64:
        most = max(2, int(model.longest) - 1)  # type: ignore[arg-type]  # some treat their longest text apart
        sizes[1] = torch.export.Dim("length", min=1, max=most)
    was = [each.training for each in model.modules()]
    with torch.no_grad():
        program = torch.export.export(model.eval(), (example,), dynamic_shapes=(sizes,), strict=False)
        graph = program.module(check_guards=False).graph
    for module, training in zip(model.modules(), was, strict=True):
        module.training = training
    plain = _plain(graph)
    constants = _constants(plain, model, program.constants)
    _with_modules(plain, model)
    _with_own_sizes(plain)
    for node in reversed(list(plain.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            plain.erase_node(node)
    plain.lint()
    return plain, constants


def _constants(graph: fx.Graph, model: nn.Module, known: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a graph reads that is none of the network's own tensors, by names that a network can have."""
    own = set(dict(model.named_parameters(remove_duplicate=False))) | set(dict(model.named_buffers()))
    constants = {}
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target) not in own:
            value, name = known[str(node.target)], str(node.target).replace(".", "_")
            constants[name], node.target = value, name
    return constants


def _plain(graph: fx.Graph) -> fx.Graph:
    """A copy without checks and dropouts, and with a plain output."""
    plain = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.target in _DROPPED or (node.op == "call_module" and str(node.target).startswith("_guards")):
            continue
        if node.target is aten.dropout.default:
            copies[node] = copies[node.args[0]]
        elif node.op == "output":
            value = node.args[0]
            plain.output(copies[value[0] if isinstance(value, list | tuple) else value])
        else:
            copies[node] = plain.node_copy(node, lambda each: copies[each])
    return plain


def _with_modules(graph: fx.Graph, model: nn.Module) -> None:
    """Calls of the network's own dense layers and layer norms in place of the functions that they consist of."""
    for node in list(graph.nodes):
        if node.target is aten.linear.default:
            values, weight, bias = (*node.args, None)[:3]
            kind: type[nn.Module] = nn.Linear
        elif node.target is aten.layer_norm.default:
            values, weight, bias = node.args[0], *(*node.args[2:4], None, None)[:2]
            kind = nn.LayerNorm
        else:
            continue
        path = _owner(weight, bias)
        if path is None or type(model.get_submodule(path)) is not kind:
            continue
        with graph.inserting_before(node):
            call = graph.call_module(path, (values,))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.erase_node(node)


def _owner(weight: Any, bias: Any) -> str | None:
    """The path of the module whose weight, and bias if any, these nodes read."""
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    path, _, name = str(weight.target).rpartition(".")
    of_bias = f"{path}.bias" if bias is not None else None
    fits = name == "weight" and (bias is None or str(bias.target) == of_bias)
    return path if fits else None


def _with_own_sizes(graph: fx.Graph) -> None:
    """Sizes that an operation takes from elsewhere are taken from its own first input, where that has them."""
    for node in list(graph.nodes):
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node) or is_size(node):
            continue
        for size in [each for each in node.all_input_nodes if is_size(each) and each.args[0] is not first]:
            axis = axis_of(first, size)
            if axis is None:
                continue
            with graph.inserting_before(node):
                own = graph.call_function(aten.sym_size.int, (first, axis))
            own.meta = dict(size.meta)
            node.replace_input_with(size, own)


def is_size(node: fx.Node) -> bool:
    """Whether the node is a size of a tensor."""
    return node.target is aten.sym_size.int


def axis_of(tensor: fx.Node, size: fx.Node) -> int | None:
    """The axis of an exported graph's tensor that always has this size; None where none has."""
    shape = getattr(tensor.meta.get("val"), "shape", ())
    return next((axis for axis, each in enumerate(shape) if str(each) == str(size.meta.get("val"))), None)


def dataless(graph: fx.Graph) -> Iterator[fx.Node]:
    """Nodes that depend on no input but on its sizes, in the graph's order: positions, masks of what comes later."""
    free: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op in ("placeholder", "output", "call_module"):
            continue
        if is_size(node) or node.op == "get_attr" or free.issuperset(node.all_input_nodes):
            free.add(node)
            yield node
