"""What can only be checked with the dataset read and the models built, still before anything is trained."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from scatterproof.blocks import Layout
from scatterproof.config.dataset import refuse_augment
from scatterproof.config.fineness import LEAST_BLOCKS
from scatterproof.config.puzzles import protected_layers, puzzle_parts
from scatterproof.config.settings.ceilings import AS_IS
from scatterproof.config.settings.training import SurrogateSettings
from scatterproof.config.study import Study
from scatterproof.config.victim import INITIALISATION, VGG, VictimConfig
from scatterproof.cutting import scattered_layers
from scatterproof.defences.network import check_defence
from scatterproof.errors import UserError
from scatterproof.evaluation.split import following_layer, split_at
from scatterproof.judging.fineness import sizes_of
from scatterproof.victims.arrays import missing_classes
from scatterproof.victims.data import Dataset, to_input
from scatterproof.victims.inputs import input_kind, vocabulary
from scatterproof.victims.models import answer, build_model, dense_layers, find_layers, load_base, read_victim
from scatterproof.victims.networks.named_inputs import check_named, parts_of


class CheckError(UserError):
    """A study whose parts do not fit each other."""


def check_study(study: Study, dataset: Dataset) -> dict[str, Any]:
    """Build every victim and attack, read every checkpoint, cut every layer; the grids found, as plain data.

    Raises: UserError that names the key and what was expected.
    """
    for key, count in study.images_needed.items():
        if count > len(dataset.pirate.labels):
            raise CheckError(
                f"{key} is {count}, but the pirate has {len(dataset.pirate.labels)} images: "
                "lower it, or raise dataset.pirate"
            )
    _check_inputs(study, dataset)
    _check_task(study, dataset)
    victims = [study.victim_config(name) for name in study.names]
    # Not every token of a vocabulary follows somewhere, nor is each text of an index the nearest of one
    few = study.dataset.kind == "text" or dataset.task != "classification"
    missing = "" if few else missing_classes(dataset.victim, dataset.classes)
    if missing and any(config.kind == "train" for config in victims):
        raise CheckError(
            f"dataset.pirate is {len(dataset.pirate)}, which leaves the victim no image of {missing}: "
            f"expected some of each of the {dataset.classes} classes, lower it"
        )
    blind = any(0 in grid.images for grid in study.attacks.grids) or 0 in (study.fineness.images, study.stream.images)
    _check_named(victims, dataset, blind)
    facts = [_check_victim(config, dataset, study.block_sizes, study.scatter, blind) for config in victims]
    _check_fineness(study, dataset)
    _check_defences(study, dataset)
    # Of each seed: a model, its checkpoint with momentum, and the puzzles.
    copies = 4 + sum(map(len, puzzle_parts(study).values()))
    needed = sum(
        4 * about["parameters"] * copies * len(config.seeds) for config, about in zip(victims, facts, strict=True)
    )
    return {"victims": facts, "disk_bytes": needed}


def _check_inputs(study: Study, dataset: Dataset) -> None:
    """What is asked of images alone is not asked of features or token ids."""
    kind = input_kind(dataset.test.images)
    if kind == "images":
        return
    try:
        refuse_augment(study.model_dump(exclude_unset=True), kind)
    except ValueError as error:
        raise CheckError(str(error)) from None
    models = study.attacks.surrogate.models
    asked = [("victim.model", study.victim.model)]
    asked += [(f"further_victims.{name}.model", study.victim_config(name).model) for name in study.further_victims]
    if models != SurrogateSettings().models:
        asked += [("attacks.surrogate.models", str(each.model)) for each in models]
    for key, model in asked:
        if model in VGG:
            raise CheckError(
                f"{key} '{model}' takes images, but {_file(dataset)} has {kind}: expected MODULE:FUNCTION of a network "
                f"that takes {kind} {list(dataset.test.images.shape[1:])}"
            )


def _check_named(victims: Sequence[VictimConfig], dataset: Dataset, blind: bool) -> None:
    """Several named inputs are the same in the data and in the study."""
    for config in victims:
        check_named(config.inputs, dataset.named, _file(dataset))
    if blind and any(part.whole for part in parts_of(dataset.named)):
        raise CheckError(
            f"{_file(dataset)}: has integers among several named inputs, which a pirate without any can't make up: "
            "expected no threat with 0 images"
        )


def _check_task(study: Study, dataset: Dataset) -> None:
    """What is made for classes alone is not asked of other tasks."""
    if dataset.task == "classification":
        return
    asked: dict[str, Any] = {"search.grids": study.search.grids, "plateau.correct": study.plateau.correct}
    for number, grid in enumerate(study.attacks.grids):
        key = f"attacks.grids.{number}"
        asked[f"{key}.knows"] = [each for each in grid.knows if each != "none"]
        asked[f"{key}.defences"] = [each.label for each in grid.defences if each.label != "none"]
        asked[f"{key}.ceilings"] = [each for each in grid.ceilings if each != AS_IS]
    for name in study.names:
        asked[f"{name}.train.label_smoothing"] = study.victim_config(name).train.label_smoothing
    for key, value in asked.items():
        if value:
            raise CheckError(
                f"{key}: is for classes, but {_file(dataset)} has labels for {dataset.task}, expected none; what runs "
                "is prune, shuffle, fineness, attacks without labels, their controls and verdicts"
            )


def _check_fineness(study: Study, dataset: Dataset) -> None:
    """Every victim of F has a size that cuts its layer into enough blocks."""
    for name in study.fineness.victims if study.fineness.block_sizes else []:
        config = study.victim_config(name)
        if not sizes_of(_built(config, dataset), config, study.fineness.block_sizes):
            raise CheckError(
                f"fineness.block_sizes {study.fineness.block_sizes}: none cuts the layer of {name} into at least "
                f"{LEAST_BLOCKS} blocks"
            )


def _check_defences(study: Study, dataset: Dataset) -> None:
    """Every layer attacked can be protected by each of the study's defences, and shows what a threat grants of it."""
    threats = [cut.threat for cuts in puzzle_parts(study).values() for cut in cuts]
    both = any(threat.activations == "both" for threat in threats)
    for name in study.attacks.victims:
        config = study.victim_config(name)
        model = _built(config, dataset)
        names = scattered_layers(model, config, study.scatter)
        shapes = {each: dense_layers(model)[each].weight.shape for each in names}
        for settings, cuts in protected_layers(study).values():
            for size in dict.fromkeys(size for size, _ in cuts):
                check_defence(model, Layout.square(shapes, size), settings)
        if both and following_layer(split_at(model, names).tail) is None:
            raise CheckError(
                f"attacks.grids.activations: both, but no dense layer alone reads the outputs of {names[0]}, through "
                "functions of single values: expected inputs"
            )


def _built(config: VictimConfig, dataset: Dataset) -> nn.Module:
    """The network untrained; a large VGG without its memory."""
    if config.model not in VGG:
        return build_model(config, dataset.classes)
    with torch.device("meta"):
        return build_model(config, dataset.classes)


def _check_victim(
    config: VictimConfig, dataset: Dataset, block_sizes: Sequence[int], scatter: str, blind: bool
) -> dict[str, Any]:
    tokens = input_kind(dataset.test.images) == "tokens"
    known = _known_tokens(config, dataset) if tokens else None
    if config.kind == "checkpoint":
        images = _two_images(config, dataset)
        for seed in config.seeds:
            model = read_victim(config, seed, dataset.classes, images, _what(dataset))
    else:
        model = _built(config, dataset)
    if tokens:
        _check_hidden(model, config, dataset)
    if config.base not in (None, INITIALISATION):
        for path in {config.base.replace("{seed}", str(seed)) for seed in config.seeds}:
            load_base(build_model(config, dataset.classes), path)
    if config.frozen_layers:
        find_layers(model, config.frozen_layers, "victim.frozen_layers")
    names = scattered_layers(model, config, scatter)
    if config.model not in VGG:
        _check_output(model, config, dataset)
    if tokens and known is None and blind:
        raise CheckError(
            f"victim.model '{config.model}': no nn.Embedding reads the token ids, by which a pirate without any draws "
            "its own: expected one, or no threat with 0 images"
        )
    layers = dense_layers(model)
    shapes = {name: tuple(layers[name].weight.shape) for name in names}
    grids = {}
    for size in block_sizes:
        try:
            layout = Layout.square(shapes, size)
        except ValueError as error:
            raise CheckError(f"block_sizes: {error}") from None
        grids[str(size)] = {name: [grid.rows, grid.columns] for name, grid in layout.grids.items()}
    return {
        "model": config.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": {name: list(shape) for name, shape in shapes.items()},
        "grids": grids,
    }


def _check_hidden(model: nn.Module, config: VictimConfig, dataset: Dataset) -> None:
    """The network reads -1 where the data's mask hides a token."""
    hiding = [split.images[(split.images < 0).any(1)] for split in (dataset.test, dataset.victim, dataset.pirate)]
    images = torch.cat(hiding)[:2]
    if not len(images):
        return
    try:
        answer(model.eval(), config, images, _what(dataset))
    except UserError as error:
        raise CheckError(
            f"victim.model '{config.model}': {_file(dataset)} has a mask, and the token ids that it hides are -1, "
            f"which the network must read: expected hf:FOLDER of an encoder or classifier, or no mask ({error})"
        ) from None


def _check_output(model: nn.Module, config: VictimConfig, dataset: Dataset) -> None:
    """The model must take the study's images and answer one logit per class."""
    images = _two_images(config, dataset)
    what = _what(dataset)
    logits, trained = answer(model.eval(), config, images, what), answer(model.train(), config, images, what)
    for when, value in (("", logits), (" in training", trained)):
        if not isinstance(value, torch.Tensor):
            raise CheckError(
                f"victim.model '{config.model}' answers {type(value).__name__}{when}, expected a tensor of logits: "
                "models with auxiliary heads are not supported (victim.model_args may switch them off)"
            )
    shape = list(logits.shape)
    if shape != [len(images), dataset.classes]:
        raise CheckError(
            f"victim.model '{config.model}' answers {shape} to {len(images)} {_what(dataset)}, expected "
            f"[{len(images)}, {dataset.classes}]: "
            "one logit per class"
        )


def _known_tokens(config: VictimConfig, dataset: Dataset) -> int | None:
    """The size of the model's embedding, which has a row for every token id; None without one."""
    known = vocabulary(_built(config, dataset).eval(), dataset.test.images.shape[1])
    highest = int(_two_images(config, dataset).max())
    if known is not None and highest >= known:
        raise CheckError(
            f"victim.model '{config.model}' has an embedding of {known} tokens, but {_file(dataset)} has the token id "
            f"{highest}: expected 0 to {known - 1}"
        )
    return known


def _two_images(config: VictimConfig, dataset: Dataset) -> torch.Tensor:
    """Two inputs as the network takes them; of token ids one with the highest."""
    images = dataset.test.images[:2]
    if input_kind(images) == "tokens":
        every = torch.cat([split.images for split in (dataset.victim, dataset.pirate, dataset.test)])
        images = torch.stack([images[0], every[every.amax(1).argmax()]])
    return to_input(images, config.input_size, dataset.mean, dataset.std)


def _file(dataset: Dataset) -> str:
    """The file or folder that the inputs were read from."""
    return dataset.source.partition(" (sha256 ")[0]


def _what(dataset: Dataset) -> str:
    """The inputs, for errors."""
    kind = input_kind(dataset.test.images)
    return kind if kind == "images" else f"{kind} of {_file(dataset)}"
