"""What placements are scored against: labels, and logits that were asked for beforehand."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Scores:
    """accuracy, loss, agreement: float64 [placements]; NaN where there is nothing to measure it by.

    loss is the mean cross-entropy against the labels or, without labels, against the softmax of the given logits;
    agreement is the share of images whose class is that of the given logits.
    """

    accuracy: torch.Tensor
    loss: torch.Tensor
    agreement: torch.Tensor

    @classmethod
    def joined(cls, parts: Iterable["Scores"]) -> "Scores":
        """Several batches' scores one after the other."""
        columns = zip(*((part.accuracy, part.loss, part.agreement) for part in parts), strict=True)
        return cls(*(torch.cat(column) for column in columns))


@dataclass(frozen=True)
class Targets:
    """labels int64 [images], logits [images, classes]; either may be missing, not both."""

    labels: torch.Tensor | None
    logits: torch.Tensor | None

    def __post_init__(self) -> None:
        if self.labels is None and self.logits is None:
            raise ValueError("placements are scored against labels or logits, and there are neither")

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each image: logits [images * n, classes] in image-minor order -> [images * n]."""
        if self.labels is not None:
            return F.cross_entropy(logits, self.labels.repeat(len(logits) // len(self.labels)), reduction="none")
        assert self.logits is not None
        soft = self.logits.float().softmax(1).repeat(len(logits) // len(self.logits), 1)
        return F.cross_entropy(logits, soft, reduction="none")

    def score(self, logits: torch.Tensor) -> Scores:
        """Scores of logits [placements, images, classes]."""
        logits = logits.float()
        losses = self.loss(logits.flatten(0, 1)).view(logits.shape[:2]).double().mean(1).cpu()
        predicted = logits.argmax(2)
        nothing = torch.full_like(losses, torch.nan)
        accuracy = nothing if self.labels is None else (predicted == self.labels).double().mean(1).cpu()
        agreement = nothing if self.logits is None else (predicted == self.logits.argmax(1)).double().mean(1).cpu()
        return Scores(accuracy, losses, agreement)
