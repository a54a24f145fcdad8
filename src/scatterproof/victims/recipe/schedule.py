"""Learning rates over the run."""

from collections.abc import Callable

import torch

from scatterproof.config.victim import TrainConfig


def rate_factor(recipe: TrainConfig, steps: int) -> Callable[[int], float]:
    """The learning rate's factor at each step of a run with so many steps an epoch.

    `onecycle` is linear up for 30 %, then linear down.
    """
    total = steps * recipe.epochs

    def factor(step: int) -> float:
        done = step / total
        if recipe.schedule == "step":
            passed: int = sum(step >= milestone * steps for milestone in recipe.milestones)
            return float(recipe.gamma**passed)
        if recipe.schedule == "cosine":
            return float((1 + torch.cos(torch.tensor(torch.pi * done)).item()) / 2)
        if recipe.schedule == "onecycle":
            return max(1e-3, min(done / 0.3, (1 - done) / 0.7))
        return 1.0

    return factor
