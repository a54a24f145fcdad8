"""Training what is missing of a layer without a label: so that statistics fit, and on the network's own guesses.

The guesses' loss is that of SHOT (Liang, Hu & Feng 2020, https://arxiv.org/abs/2002.08546): each answer is to be sure,
and all together even over the classes.
"""

from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from scatterproof.attacks.training.fitting import Fit, Tensors
from scatterproof.evaluation.readers import reading_weights
from scatterproof.judging.ceilings.supports import CoreTask


def guessing_loss(logits: torch.Tensor) -> torch.Tensor:
    """Mean entropy of the answers less the entropy of their mean."""
    answers = logits.float().softmax(1)
    mean = answers.mean(0)
    each = -(answers * logits.float().log_softmax(1)).sum(1).mean()
    return each + (mean * mean.clamp(min=1e-12).log()).sum()


def statistics_loss(outputs: torch.Tensor, tail: nn.Module) -> torch.Tensor:
    """How far a layer's outputs [n, outputs] are from what its tail expects; zero where nothing is known of that.

    By the running mean and variance of a batch norm that reads them; else one less the cosine between their second
    moments and the Gram matrix of the weights that read them.
    """
    norm = _batch_norm(tail)
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None
        mean, spread = outputs.mean(0), outputs.var(0).clamp(min=1e-12)
        shift = (mean - norm.running_mean).square() / norm.running_var.clamp(min=1e-12)
        return (shift + (spread / norm.running_var.clamp(min=1e-12)).log().square()).mean()
    reader = reading_weights(tail)
    if reader is None:
        return outputs.new_zeros(())
    centred = outputs - outputs.mean(0)
    return 1 - F.cosine_similarity((centred.T @ centred).flatten(), (reader.T @ reader).flatten(), dim=0)


def _batch_norm(tail: nn.Module) -> nn.BatchNorm1d | None:
    """The batch norm that alone reads the cut layer's outputs, if one does."""
    if not isinstance(tail, fx.GraphModule):
        return None
    users = list(next(iter(tail.graph.nodes)).users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    module = tail.get_submodule(str(users[0].target))
    return module if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None else None


@dataclass
class LabelFreeFit(Fit):
    """A `Fit` of cores by unlabelled images; `statistics` and `guesses` weigh the two losses."""

    statistics: float = 1.0
    guesses: float = 1.0

    def loss(self, parameters: Tensors, inputs: tuple[torch.Tensor, ...], index: torch.Tensor) -> torch.Tensor:
        """Both losses together."""
        assert isinstance(self.task, CoreTask)
        cached, total = self.task.cached, self.task.cached.targets.new_zeros((), dtype=torch.float32)
        if self.guesses:
            total = total + self.guesses * guessing_loss(self.task.logits(parameters, inputs))
        first = cached.split.first
        if self.statistics and first is not None:
            outputs = F.linear(inputs[0], self.task.weights(parameters)[first], cached.biases[first])
            total = total + self.statistics * statistics_loss(outputs.flatten(0, -2), cached.split.tail)
        return total

    def held_out_loss(self, parameters: Tensors, held: torch.Tensor) -> float:
        """The same on images that were not trained on."""
        loss = float(self.loss(parameters, self.task.inputs(held, False), held))
        return loss if loss == loss else float("inf")
