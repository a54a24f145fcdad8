"""The optimiser of a recipe."""

from typing import Any

import torch
from torch import nn

from scatterproof.config.victim import TrainConfig
from scatterproof.victims.recipe.folding import folded_layers, follow


def make_optimizer(model: nn.Module, recipe: TrainConfig) -> torch.optim.Optimizer:
    """Over all parameters; biases and norms have no weight decay. Folded layers have the last groups, one each."""
    layers = folded_layers(model)
    sums = {id(layer.weight) for layer in layers}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1 and id(p) not in sums]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        *(layer.group(recipe.lr, recipe.weight_decay) for layer in layers),
    ]
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    # Each of a step's operations reads all weights anew; fused they do once
    same: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": on_cpu or None}
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(groups, **same)
        if recipe.optimizer == "adamw"
        else torch.optim.SGD(groups, **same, momentum=0.9, nesterov=True)
    )
    follow(optimizer, layers)
    return optimizer
