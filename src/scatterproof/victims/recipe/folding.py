"""Dense layers trained folded over the copies of their inputs: unfolded training's weights but for rounding, sooner.

Where a pooling blows one pixel up, as in VGG at 32 x 32 pixels, a dense layer reads each channel many times. The
weights of all copies have one gradient, so a step moves them alike. What they differ in, weight decay alone changes, in
proportion. So the sums of the copies' weights are trained, and one number says how much is left of the differences.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from scatterproof.victims.models import dense_layers

_POOLINGS = ("AdaptiveAvgPool2DBackward0", "AdaptiveMaxPool2DBackward0")
_RESHAPES = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "CloneBackward0")
_DROPOUTS = ("MulBackward0", "NativeDropoutBackward0")
_ROWS = 256  # of a weight that are expanded at a time, in double precision


class FoldedLinear(nn.Module):
    """A dense layer [..., inputs * copies] -> [..., outputs] each of whose inputs stands `copies` times side by side.

    weight [outputs, inputs] holds the sums over the copies. left: what is left of the copies' differences from their
    mean, as a share of those at the start; momentum: its momentum buffer, likewise.
    """

    left: torch.Tensor
    momentum: torch.Tensor

    def __init__(self, layer: nn.Linear, copies: int) -> None:
        super().__init__()
        self.copies = copies
        self.start = layer.weight.detach().cpu()  # no buffer: a checkpoint need not hold it
        sums = self.start.double().unflatten(1, (-1, copies)).sum(2)
        self.weight = nn.Parameter(sums.to(layer.weight))
        self.bias = layer.bias
        self.register_buffer("left", torch.ones((), dtype=torch.float64, device=layer.weight.device))
        self.register_buffer("momentum", torch.zeros((), dtype=torch.float64, device=layer.weight.device))

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # named as by nn.Linear
        return F.linear(input[..., :: self.copies], self.weight, self.bias)

    def group(self, lr: float, weight_decay: float) -> dict[str, Any]:
        """The optimiser's group in which the sums move as far as all copies together would."""
        return {"params": [self.weight], "lr": lr * self.copies, "weight_decay": weight_decay / self.copies}

    @torch.no_grad()
    def decay(self, group: Mapping[str, Any]) -> None:
        """What the optimiser's step does to the differences, whose gradient is none. group: the optimiser's.

        Raises: ValueError where the optimiser is neither AdamW nor SGD without dampening.
        """
        lr, decay = group["lr"], group["weight_decay"]
        if group.get("decoupled_weight_decay"):
            self.left.mul_(1 - lr * decay)
            return
        if group.get("dampening") != 0:
            raise ValueError("folded training needs AdamW, or SGD without dampening")
        pulled = decay * self.left
        self.momentum.mul_(group["momentum"]).add_(pulled)
        pulled = pulled + group["momentum"] * self.momentum if group["nesterov"] else self.momentum
        self.left.sub_(lr * pulled)

    @torch.no_grad()
    def unfolded(self) -> nn.Linear:
        """The layer with a weight for each copy: their common mean, and what is left of their differences."""
        outputs, inputs = self.start.shape
        meta = {"device": "meta", "dtype": self.weight.dtype}
        layer = nn.Linear(inputs, outputs, bias=self.bias is not None, **meta)
        weight, sums, left = torch.empty_like(self.start), self.weight.detach().cpu(), float(self.left)
        for rows, start, total in zip(*(each.split(_ROWS) for each in (weight, self.start, sums)), strict=True):
            copied = start.double().unflatten(1, (-1, self.copies))
            mean = total.double()[..., None] / self.copies
            rows.copy_((mean + left * (copied - copied.mean(2, keepdim=True))).flatten(1))
        layer.weight, layer.bias = nn.Parameter(weight.to(self.weight.device)), self.bias
        return layer.train(self.training)


def fold(model: nn.Module, inputs: torch.Tensor) -> dict[str, int]:
    """Replace, in place, each dense layer whose inputs are copies by a folded one; how many copies, by path.

    inputs: a few of the network's, on its device.
    """
    layers = dense_layers(model)
    copied = copied_inputs(model, inputs).items()
    folded = {name: copies for name, copies in copied if layers[name].weight.requires_grad}
    for name, copies in folded.items():
        _replace(model, layers[name], FoldedLinear(layers[name], copies))
    return folded


def unfold(model: nn.Module) -> None:
    """Replace, in place, each folded layer by a plain one."""
    for layer in folded_layers(model):
        _replace(model, layer, layer.unfolded())


def folded_layers(model: nn.Module) -> list[FoldedLinear]:
    return [module for module in model.modules() if isinstance(module, FoldedLinear)]


def follow(optimizer: torch.optim.Optimizer, layers: Sequence[FoldedLinear]) -> None:
    """Let the layers, whose groups are the optimiser's last, know of its every step."""

    def stepped(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for layer, group in zip(reversed(layers), reversed(optimizer.param_groups), strict=False):
            layer.decay(group)

    optimizer.register_step_post_hook(stepped)


def copied_inputs(model: nn.Module, inputs: torch.Tensor) -> dict[str, int]:
    """Dense layers whose every input stands several times side by side by construction, and how many times.

    That is read off the graph of one training pass over a few inputs: the layer reads what an adaptive pooling made of
    a single pixel, reshaped at most, and neither the layer nor its weight is used a second time. Equal values alone
    would not do: gradients must be equal too. The network is left as it was.
    """
    if not inputs.is_floating_point():
        return {}
    layers = {name: layer for name, layer in dense_layers(model).items() if type(layer) is nn.Linear}
    read: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    handles = [
        layer.register_forward_pre_hook(partial(_see, read[name]), with_kwargs=True) for name, layer in layers.items()
    ]
    buffers, training = [(buffer, buffer.clone()) for buffer in model.buffers()], model.training
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            output = model.train()(inputs.clone().requires_grad_() * 1)  # in-place work needs no leaf
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
        for buffer, before in buffers:
            buffer.copy_(before)
    uses = _uses(output)
    counts = {name: _copies(name, seen[0]) for name, seen in read.items() if len(seen) == 1}
    return {name: copies for name, copies in counts.items() if copies > 1 and uses[id(layers[name].weight)] == 1}


def _see(
    read: list[torch.Tensor], _: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]
) -> None:
    read.append((*given, *named.values())[0])


def _copies(name: str, read: torch.Tensor) -> int:
    """How often each input stands in what the layer read [n, inputs]; 1 if it does not."""
    between = []
    for node in _path(read):
        if node.name() in _POOLINGS:
            break
        between.append(node.name())
    else:
        return 1
    pixels: torch.Tensor = node._saved_self
    if pixels.ndim != 4 or pixels.shape[2:] != (1, 1) or read.ndim != 2 or len(read) != len(pixels):
        return 1
    copies, changed = read.shape[1] // pixels.shape[1], set(between) - {*_RESHAPES}
    if changed and changed <= {*_DROPOUTS} and copies > 1:
        print(f"{name} is not trained folded: its inputs are {copies} copies each, but dropout tells them apart")
    return 1 if changed else copies


def _path(value: torch.Tensor) -> Iterator[Any]:
    """What made a value: its node in the graph, and from there back along first arguments."""
    node: Any = value.grad_fn
    while node is not None:
        yield node
        node = node.next_functions[0][0] if node.next_functions else None


def _uses(output: torch.Tensor) -> Counter[int]:
    """How often each parameter, by its id, entered the graph of an output."""
    counts: Counter[int] = Counter()
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [each for each, _ in node.next_functions if each is not None]
        counts.update(id(each.variable) for each in following if hasattr(each, "variable"))
        waiting += following
    return counts


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Under every name: modules may be shared."""
    for parent in list(model.modules()):
        for name in [name for name, child in parent._modules.items() if child is old]:
            parent.add_module(name, new)
