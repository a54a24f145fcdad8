"""What a network's answers are for, which the labels' type tells, and how right they are: a score from 0 to 1.

classification  int64 [N]: one class each; right where it has the largest logit.
multilabel      bool [N, K]: each of K labels holds or not; a logit above zero says that it does. The score is the share
                of an input's labels that are right.
regression      float32 [N, K]: K numbers; each is right within half a standard deviation of its targets. The score is
                the share of an input's numbers that are right.
embedding       float64 [N, d]: a unit vector each, the victim's own. The score is the cosine to it, 0 where that is
                negative.
"""

from typing import Literal, get_args

import torch
from torch.nn import functional as F

Task = Literal["classification", "multilabel", "regression", "embedding"]
TASKS: tuple[Task, ...] = get_args(Task)
WITHIN = 0.5  # standard deviations of the targets
STARTS, STEPS = 256, 20  # of the search for the single vector that scores most


def task_of(labels: torch.Tensor) -> Task:
    """By type and shape. Raises: ValueError."""
    if labels.dtype == torch.int64 and labels.ndim == 1:
        return "classification"
    if labels.dtype == torch.bool and labels.ndim == 2:
        return "multilabel"
    if labels.dtype == torch.float32 and labels.ndim == 2:
        return "regression"
    if labels.dtype == torch.float64 and labels.ndim == 2:
        return "embedding"
    raise ValueError(f"labels {labels.dtype} {list(labels.shape)}: of no task that is known")


def is_task(labels: torch.Tensor) -> bool:
    """Whether these are labels of a task."""
    return (labels.dtype, labels.ndim) in ((torch.int64, 1), (torch.bool, 2), (torch.float32, 2), (torch.float64, 2))


def outputs_of(labels: torch.Tensor) -> int:
    """How many outputs a network needs for them."""
    return int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]


def loss(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    task: Task,
    reduction: Literal["none", "mean", "sum"] = "mean",
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy, with this label smoothing; or binary cross-entropy or squared error, the mean over an input's
    labels; or one less the cosine. Of each input [N], or reduced over the inputs. labels: of a class also chances
    [N, classes]."""
    if task == "classification":
        return F.cross_entropy(outputs, labels, reduction=reduction, label_smoothing=smoothing)
    if task == "multilabel":
        each = F.binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype), reduction="none").mean(1)
    elif task == "embedding":
        each = 1 - F.cosine_similarity(outputs, labels.to(outputs.dtype))
    else:
        each = (outputs - labels).square().mean(1)
    return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()


def answers(outputs: torch.Tensor, task: Task) -> torch.Tensor:
    """What outputs [N, K] say: a class int64 [N], labels bool, numbers, or unit vectors float64 [N, K]."""
    if task == "embedding":
        return F.normalize(outputs.double(), dim=-1)
    return outputs.argmax(-1) if task == "classification" else outputs > 0 if task == "multilabel" else outputs


def spread(labels: torch.Tensor) -> torch.Tensor | None:
    """The standard deviation of each number; None for other tasks."""
    return labels.std(0, correction=0).clamp_min(1e-12) if task_of(labels) == "regression" else None


def agreement(answered: torch.Tensor, others: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """[N] from 0 to 1: how far answers are these others, or the labels themselves. scale: `spread` of all labels."""
    if scale is not None:
        return ((answered - others).abs() <= WITHIN * scale).double().mean(-1)
    if others.dtype == torch.float64:
        return (answered * others).sum(-1).clamp(0, 1)
    same = (answered == others).double()
    return same if others.dtype == torch.int64 else same.mean(-1)


def _chance_of_vectors(own: torch.Tensor) -> float:
    """The score of the best single vector that is found from the mean and from STARTS of the vectors themselves.

    A vector is replaced by the mean direction of those that lie on its side, which never lowers its score.
    """
    tried = torch.cat([own.mean(0, keepdim=True), own[:STARTS]])
    for _ in range(STEPS):
        tried = F.normalize(tried, dim=1)
        tried = (tried @ own.T > 0).to(own.dtype) @ own
    return float((F.normalize(tried, dim=1) @ own.T).clamp(0, 1).mean(1).max())


def chance(labels: torch.Tensor) -> float:
    """The best score of one and the same answer to every input."""
    task = task_of(labels)
    if task == "classification":
        return int(labels.bincount().max()) / len(labels)
    if task == "multilabel":
        held = labels.double().mean(0)
        return float(torch.maximum(held, 1 - held).mean())
    if task == "embedding":
        return _chance_of_vectors(labels)
    scale = spread(labels)
    assert scale is not None
    shares = []
    for column, width in zip(labels.double().T, 2 * WITHIN * scale.double(), strict=True):
        ordered = column.sort().values
        ends = torch.searchsorted(ordered, ordered + width, right=True)
        shares.append(float((ends - torch.arange(len(ordered))).max()) / len(ordered))
    return sum(shares) / len(shares)
