"""What placements are scored against: labels of any task, and logits that were asked for beforehand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from scatterproof.victims.tasks import Task, agreement, answers, loss, spread, task_of


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
class Outcomes:
    """Of each image [placements, images]: the loss, how right the answer is by the label, and how far it is that of the
    given logits; None where there is nothing to tell it by."""

    losses: torch.Tensor
    right: torch.Tensor | None
    agrees: torch.Tensor | None

    @classmethod
    def joined(cls, parts: Iterable["Outcomes"]) -> "Outcomes":
        """Those of several parts of the images as of all."""
        losses, right, agrees = zip(*((part.losses, part.right, part.agrees) for part in parts), strict=True)
        return cls(torch.cat(losses, dim=1), _joined(right), _joined(agrees))

    @property
    def scores(self) -> Scores:
        """Their means over the images."""
        losses = self.losses.double().mean(1).cpu()
        nothing = torch.full_like(losses, torch.nan)
        accuracy = nothing if self.right is None else self.right.double().mean(1).cpu()
        agreement = nothing if self.agrees is None else self.agrees.double().mean(1).cpu()
        return Scores(accuracy, losses, agreement)


@dataclass(frozen=True)
class Targets:
    """labels [images, ...] as their task has them (`victims.tasks`), logits [images, classes]; either may be missing,
    not both. Where there are no labels the task is classification. scale: the spread of all labels, of regression."""

    labels: torch.Tensor | None
    logits: torch.Tensor | None
    scale: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels is None and self.logits is None:
            raise ValueError("placements are scored against labels or logits, and there are neither")
        if self.labels is not None and self.scale is None:
            object.__setattr__(self, "scale", spread(self.labels))

    @property
    def task(self) -> Task:
        """Of the network."""
        return "classification" if self.labels is None else task_of(self.labels)

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """The task's loss of each image: logits [images * n, classes] in image-minor order -> [images * n]."""
        if self.labels is not None:
            times = len(logits) // len(self.labels)
            return loss(logits, self.labels.repeat(times, *[1] * (self.labels.ndim - 1)), self.task, "none")
        assert self.logits is not None
        soft = self.logits.float().softmax(1).repeat(len(logits) // len(self.logits), 1)
        return F.cross_entropy(logits, soft, reduction="none")

    def of(self, begin: int, end: int) -> "Targets":
        """Those of some of the images."""
        labels, logits = (None if each is None else each[begin:end] for each in (self.labels, self.logits))
        return Targets(labels, logits, self.scale)

    def outcomes(self, logits: torch.Tensor) -> Outcomes:
        """Of logits [placements, images, classes], image by image."""
        logits = logits.float()
        of_each = self.loss(logits.flatten(0, 1)).view(logits.shape[:2])
        said = answers(logits, self.task)
        right = None if self.labels is None else agreement(said, self.labels, self.scale)
        others = None if self.logits is None else answers(self.logits.float(), self.task)
        return Outcomes(of_each, right, None if others is None else agreement(said, others, self.scale))

    def score(self, logits: torch.Tensor) -> Scores:
        """Scores of logits [placements, images, classes]."""
        return self.outcomes(logits).scores


def _joined(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known, dim=1) if known else None
