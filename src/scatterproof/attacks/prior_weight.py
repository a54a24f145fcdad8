"""A layer that the pirate trains itself on its own images: weights expected, and so evidence of where the blocks lie.

The layer's blocks in any order are a random initialisation of it. What training adds to it, everything around frozen,
resembles what training had added to the victim's: the layers around ask for the same. The prior weight is that change,
and a block's product with it at a place is evidence like any other.
"""

import torch
from torch.nn import functional as F

from scatterproof.blocks import invert
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.evaluation.targets import Targets
from scatterproof.running.interrupt import stop_if_asked

MOMENTUM, BATCH = 0.9, 128


def trained_change(
    evaluator: PlacementEvaluator, placement: torch.Tensor, steps: int, rate: float, generator: torch.Generator
) -> torch.Tensor:
    """What `steps` of SGD on the evaluator's images add to the layer as placed [blocks]: [outputs, channels], folded.

    rate: the change of the layer's outputs by the first step, as a share of their spread.
    """
    layer = evaluator.trainable(invert(placement.to(evaluator.device), evaluator.layout.positions))
    change = torch.zeros_like(layer.weight, requires_grad=True)
    count = len(layer.features[0])
    step_size = 0.0
    optimizer = torch.optim.SGD([change], lr=1.0, momentum=MOMENTUM)
    for step in range(steps):
        batch = torch.randint(count, (min(BATCH, count),), generator=generator).to(evaluator.device)
        features = tuple(feature[batch] for feature in layer.features)
        output = F.linear(features[0], layer.weight + change, layer.bias)
        loss = _chosen(evaluator.targets, batch).loss(layer.tail(output, *features[1:]).flatten(0, -2)).mean()
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert change.grad is not None
            moved = F.linear(features[0], change.grad)
            step_size = rate * float(output.detach().std()) / max(float(moved.detach().std()), 1e-30)
            optimizer.param_groups[0]["lr"] = step_size
        optimizer.step()
        if step % 10 == 0:
            stop_if_asked("while training a prior weight")
    return change.detach() / layer.scale[:, None]


@torch.inference_mode()
def trained_losses(evaluator: PlacementEvaluator, placement: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """The loss on each of the evaluator's images with the layer as placed and so changed, float [images]."""
    layer = evaluator.trainable(invert(placement.to(evaluator.device), evaluator.layout.positions))
    output = F.linear(layer.features[0], layer.weight + change * layer.scale[:, None], layer.bias)
    return evaluator.targets.loss(layer.tail(output, *layer.features[1:]).flatten(0, -2))


def _chosen(targets: Targets, batch: torch.Tensor) -> Targets:
    return Targets(
        None if targets.labels is None else targets.labels[batch],
        None if targets.logits is None else targets.logits[batch],
    )
