"""How the dense layers of a network stand to each other: partners within a neuron, writers of one residual stream.

Neuron alignment: the weights with which a trained neuron reads a residual stream and those with which it writes to it
point along each other, or against. So does what a head's value reads with what its output writes, and a query with its
key. Pairing by products of two such weights: *I Dropped a Neural Net*, https://arxiv.org/abs/2602.19845.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx, nn

from scatterproof.evaluation.exported import graph_of
from scatterproof.evaluation.readers import ATTENTION, Path, onward
from scatterproof.evaluation.split import module_of

Axis = Literal["rows", "columns"]


@dataclass(frozen=True)
class Partner:
    """A known weight [outputs, inputs] each of whose numbers stands beside one of a layer's own; neurons: its rows, or
    its columns."""

    weight: torch.Tensor
    neurons: Axis


@dataclass(frozen=True)
class _Reach:
    """What a dense layer's outputs reach: nodes, each feature made of the same one; the layers that read them, and
    whether without a norm or another value between; queries and keys that they are."""

    nodes: frozenset[fx.Node]
    readers: Mapping[str, bool]
    attends: Mapping[fx.Node, int]


class Streams:
    """Of a network that can be traced; of another it knows nothing."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        graph = graph_of(model)
        self._module = None if graph is None else fx.GraphModule(model, graph)
        self._calls: dict[str, fx.Node] = {}
        for node in self._module.graph.nodes if self._module is not None else ():
            if node.op == "call_module" and type(model.get_submodule(str(node.target))) is nn.Linear:
                self._calls.setdefault(str(node.target), node)
        self._reached: dict[str, _Reach] = {}

    def partner(self, name: str) -> Partner | None:
        """What a layer's neurons do besides, as far as it is known: not zero throughout."""
        if name not in self._calls:
            return None
        for weight, neurons in self._partners(name):
            if bool(weight.any()):
                return Partner(weight, neurons)
        return None

    def writers(self, name: str) -> list[str]:
        """Other layers that write to the residual stream which this one writes to."""
        if name not in self._calls:
            return []
        mine, outputs = self._reach(name), self._weight(name).shape[0]
        return [
            other
            for other in self._calls
            if other != name and self._weight(other).shape[0] == outputs and self._reach(other).nodes & mine.nodes
        ]

    def pairs(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Of these layers the pairs (up, down) of which the second alone reads the first, and writes back as many."""
        pairs = []
        for name in (each for each in names if each in self._calls):
            shape = self._weight(name).T.shape
            direct = [other for other, near in self._reach(name).readers.items() if near and other in names]
            pairs += [(name, other) for other in direct if self._weight(other).shape == shape][:1]
        return pairs

    def _partners(self, name: str) -> Iterator[tuple[torch.Tensor, Axis]]:
        weight, reach = self._weight(name), self._reach(name)
        for other, direct in reach.readers.items():
            if direct and self._weight(other).shape == weight.T.shape:
                yield self._weight(other).T, "rows"
        for other in self._calls:
            if self._weight(other).shape == weight.T.shape and self._reach(other).readers.get(name):
                yield self._weight(other).T, "columns"
        for other in self._calls if reach.attends else ():
            both = reach.attends.keys() & self._reach(other).attends.keys()
            if other != name and both and self._weight(other).shape == weight.shape:
                yield self._weight(other), "rows"

    def _weight(self, name: str) -> torch.Tensor:
        layer = self._model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        return layer.weight.detach()

    def _reach(self, name: str) -> _Reach:
        if name not in self._reached:
            self._reached[name] = self._followed(self._calls[name])
        return self._reached[name]

    def _followed(self, first: fx.Node) -> _Reach:
        assert self._module is not None
        todo, seen = [(Path(first), True)], {first}
        readers: dict[str, bool] = {}
        attends: dict[fx.Node, int] = {}
        while todo:
            path, direct = todo.pop()
            for node in path.node.users:
                module = module_of(self._module, node)
                if type(module) is nn.Linear:
                    readers[str(node.target)] = readers.get(str(node.target), False) or direct
                elif node.target in ATTENTION and path.node in node.args[:2]:
                    attends[node] = node.args.index(path.node)
                else:
                    ahead = None if node in seen else onward(self._module, path, node, module)
                    if ahead is not None:
                        seen.add(node)
                        todo.append((ahead, direct and not isinstance(module, nn.LayerNorm) and not _joins(node, seen)))
        return _Reach(frozenset(seen - {first}), readers, attends)


def _joins(node: fx.Node, seen: set[fx.Node]) -> bool:
    """Whether something else than the layer's own outputs comes in by adding: a residual stream begins."""
    added = "add" in str(node.target)
    return added and any(other not in seen and other.op != "get_attr" for other in node.all_input_nodes)
