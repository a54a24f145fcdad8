"""The victim: trained here, epoch by epoch with checkpoints, or read from a checkpoint; and its accuracy."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from scatterproof.config.victim import INITIALISATION, TrainConfig, VictimConfig
from scatterproof.errors import UserError
from scatterproof.running.device import has_fast_bf16
from scatterproof.running.files import atomic
from scatterproof.running.identity import differing
from scatterproof.running.interrupt import stop_if_asked
from scatterproof.running.seeds import seed_of
from scatterproof.victims.data import Dataset, Split, to_input
from scatterproof.victims.inputs import input_kind
from scatterproof.victims.models import build_model, find_layer, load_base, read_victim
from scatterproof.victims.networks.frozen import freeze_layers
from scatterproof.victims.recipe.augment import augment
from scatterproof.victims.recipe.folding import fold, unfold
from scatterproof.victims.recipe.optimizer import make_optimizer
from scatterproof.victims.recipe.schedule import rate_factor
from scatterproof.victims.tasks import agreement, answers, loss, spread


class DivergenceError(UserError):
    """Training left the finite numbers."""


class ResumeError(UserError):
    """A checkpoint of another recipe or device stands where this run would write its own."""


@dataclass(frozen=True)
class Epoch:
    """One point of the curve: minutes of training so far, mean training loss, test accuracy."""

    epoch: int
    minutes: float
    train_loss: float
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """A victim and how it came about; the curve is empty where it was read from a checkpoint.

    minutes: of training; minutes_before: those of them that went before an interruption; folded: the layers that were
    trained folded over copies of their inputs, and how many copies.
    """

    model: nn.Module
    curve: list[Epoch]
    minutes: float
    minutes_before: float = 0.0
    folded: dict[str, int] = field(default_factory=dict)


def obtain_victim(
    config: VictimConfig, seed: int, dataset: Dataset, device: torch.device, threads: int, checkpoint: Path
) -> Trained:
    """Train the victim, resuming from `checkpoint` where it exists, or read the user's own.

    Raises: ModelError, DivergenceError, ResumeError.
    """
    if config.kind == "checkpoint":
        images = to_input(dataset.test.images[:2], config.input_size, dataset.mean, dataset.std)
        model = read_victim(config, seed, dataset.classes, images, input_kind(dataset.test.images))
        return Trained(model.to(device), [], 0.0)
    return train_victim(config, seed, dataset, device, threads, checkpoint)


def train_victim(
    config: VictimConfig,
    seed: int,
    dataset: Dataset,
    device: torch.device,
    threads: int,
    checkpoint: Path,
    key: str = "victim.train",
) -> Trained:
    """Train from random weights, or from a public base model.

    Bit-identical for one seed, device and thread count, however often interrupted. key: where the study has the recipe,
    for what is wrong with it. Raises: DivergenceError, ResumeError, Interrupted.
    """
    model = start_of(config, seed, dataset.classes)
    find_layer(model, config.layer)
    freeze_layers(model, config, checkpoint)
    recipe = config.train
    few = to_input(dataset.victim.images[[0, -1]], config.input_size, dataset.mean, dataset.std)
    folded = fold(model, few) if recipe.fold == "auto" else {}
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    steps = -(-len(dataset.victim.labels) // recipe.batch_size)
    optimizer = make_optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(recipe, steps))
    identity = training_identity(config, seed, device, threads, dataset, folded)
    curve = _restore(checkpoint, identity, model, optimizer, schedule)
    before = curve[-1].minutes if curve else 0.0
    dataset = _resident(dataset, device)
    progress = tqdm(
        range(len(curve), recipe.epochs), initial=len(curve), total=recipe.epochs, unit="epoch", mininterval=5
    )
    for epoch in progress:
        started = time.perf_counter()
        try:
            mean = _train_epoch(model, optimizer, schedule, config, dataset, device, seed, epoch, key)
        except DivergenceError:
            checkpoint.unlink(missing_ok=True)  # of a recipe that is about to be changed
            raise
        minutes = (time.perf_counter() - started) / 60 + (curve[-1].minutes if curve else 0.0)
        accuracy, _ = measure(model, dataset, dataset.test, config.input_size, device)
        curve.append(Epoch(epoch + 1, minutes, mean, accuracy))
        progress.set_postfix(loss=f"{mean:.3f}", accuracy=f"{accuracy:.3f}")
        _save(checkpoint, identity, model, optimizer, schedule, curve)
    unfold(model)
    return Trained(model.eval(), curve, curve[-1].minutes, before, folded)


def start_of(config: VictimConfig, seed: int, classes: int) -> nn.Module:
    """The network as its training starts: random weights, a public base model's laid over them where there is one.

    Raises: ModelError where the base does not fit.
    """
    torch.manual_seed(seed_of("weights", seed))
    model = build_model(config, classes)
    if config.base not in (None, INITIALISATION):
        path = config.base.replace("{seed}", str(seed))
        load_base(model, path)
    return model


def _resident(dataset: Dataset, device: torch.device) -> Dataset:
    """The dataset with the images that training reads on a GPU that has ample room for them."""
    if device.type != "cuda":
        return dataset
    parts = (dataset.victim, dataset.test)
    if sum(part.images.nbytes for part in parts) > torch.cuda.mem_get_info(device)[0] / 4:
        return dataset
    victim, test = (Split(part.images.to(device), part.labels.to(device)) for part in parts)
    return replace(dataset, victim=victim, test=test)


def measure(
    model: nn.Module, dataset: Dataset, split: Split, size: int, device: torch.device, chunk: int = 500
) -> tuple[float, float]:
    """Accuracy, or the task's score, and mean loss of a model on a split, in fp32."""
    model.eval()
    right, total, scale = 0.0, 0.0, spread(split.labels)
    scale = None if scale is None else scale.to(device)
    with torch.inference_mode():
        for images, labels in _chunks(split, chunk, device):
            logits = model(to_input(images, size, dataset.mean, dataset.std)).float()
            right += float(agreement(answers(logits, dataset.task), labels, scale).sum())
            total += float(loss(logits, labels, dataset.task, "sum"))
    return right / len(split.labels), total / len(split.labels)


def _chunks(split: Split, chunk: int, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for images, labels in zip(split.images.split(chunk), split.labels.split(chunk), strict=True):
        yield images.to(device), labels.to(device)


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    config: VictimConfig,
    dataset: Dataset,
    device: torch.device,
    seed: int,
    epoch: int,
    key: str,
) -> float:
    """One pass over the victim's images; every draw depends on (seed, epoch) alone, so a resume repeats it."""
    recipe = config.train
    torch.manual_seed(seed_of("epoch", seed, epoch))
    order = torch.randperm(len(dataset.victim.labels))
    model.train()
    total = torch.zeros((), device=device)
    batches = order.to(dataset.victim.images.device).split(recipe.batch_size)
    for batch in tqdm(batches, desc=f"epoch {epoch + 1}", leave=False, mininterval=5, unit="step"):
        if len(batch) == 1 and len(batches) > 1:  # batch norm has no variance over one image
            schedule.step()
            continue
        stop_if_asked(f"in epoch {epoch + 1}")
        images, labels = dataset.victim.images[batch].to(device), dataset.victim.labels[batch].to(device)
        lost = train_step(model, optimizer, config, dataset, images, labels)
        schedule.step()
        total += lost * len(batch)
    mean = float(total) / len(order)
    if not torch.isfinite(total) or not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise DivergenceError(f"training diverged in epoch {epoch + 1} (loss {mean}): lower {key}.lr, now {recipe.lr}")
    return mean


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: VictimConfig,
    dataset: Dataset,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """One update; the batch's mean loss. images: as the dataset has them, on the model's device."""
    recipe, device = config.train, images.device
    pixels = recipe.channels_last and input_kind(images) == "images"
    layout = torch.channels_last if pixels else torch.contiguous_format
    inputs = to_input(augment(images, recipe.augment), config.input_size, dataset.mean, dataset.std)
    with torch.autocast(device.type, torch.bfloat16, enabled=_mixed(recipe, device)):
        logits = model(inputs.contiguous(memory_format=layout))
    lost = loss(logits.float(), labels, dataset.task, smoothing=recipe.label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    lost.backward()
    optimizer.step()
    return lost.detach()


def _mixed(recipe: TrainConfig, device: torch.device) -> bool:
    """Whether the forward pass runs in bf16."""
    return recipe.precision == "bf16" or (recipe.precision == "auto" and has_fast_bf16(device))


def training_identity(
    config: VictimConfig,
    seed: int,
    device: torch.device,
    threads: int,
    dataset: Dataset,
    folded: dict[str, int] | None = None,
) -> str:
    """What must be equal for a resumed run to equal an uninterrupted one. folded: layers trained so, and copies."""
    what: dict[str, Any] = {
        "victim": config.model_dump(exclude={"seeds"}),
        "seed": seed,
        "device": device.type,
        "threads": threads,
        "bf16": _mixed(config.train, device),
        "torch": torch.__version__,
        "dataset": dataset.source,
        "split": [dataset.split_seed, *dataset.victim.images.shape],
    }
    return json.dumps(what | ({"folded": folded} if folded else {}), sort_keys=True)


def _save(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    curve: list[Epoch],
) -> None:
    state = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.last_epoch,
        "curve": [asdict(point) for point in curve],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        torch.save(state, temporary)


def _restore(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> list[Epoch]:
    """Load a checkpoint into model, optimizer and schedule, if there is one; the curve so far."""
    if not path.exists():
        return []
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        raise ResumeError(
            f"{path} belongs to another run: {differing(state['identity'], identity)}; delete it to train afresh"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.last_epoch = state["schedule"]
    for group, base, factor in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * factor(schedule.last_epoch)
    return [Epoch(**point) for point in state["curve"]]


def curve_table(curve: list[Epoch]) -> pd.DataFrame:
    """The curve as a table, one row an epoch; empty where nothing was trained."""
    return pd.DataFrame([asdict(point) for point in curve], columns=[field.name for field in fields(Epoch)])
