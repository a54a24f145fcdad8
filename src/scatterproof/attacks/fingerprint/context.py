"""What lies around a scattered layer and is known: its inputs on the pirate's images, and the layer after it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from scatterproof.attacks.base import AttackError
from scatterproof.blocks import BlockGrid
from scatterproof.config.dataset import InputKind
from scatterproof.evaluation.readers import reading_weights
from scatterproof.evaluation.split import is_homogeneous, split_at
from scatterproof.evaluation.streams import Partner, Streams
from scatterproof.puzzle import Puzzle
from scatterproof.running.seeds import torch_generator
from scatterproof.victims.inputs import input_kind, vocabulary
from scatterproof.victims.models import dense_layers, layer_inputs
from scatterproof.victims.networks.named_inputs import parts_of

MOST_INPUTS = 2000  # rows of inputs kept: a layer that reads tokens has many for each image
MADE_UP = 256  # inputs made up where the pirate has none
_MADE_OF: dict[InputKind, str] = {
    "images": "noise with the spectrum of photographs",
    "features": "standard normal values",
    "tokens": "ids drawn evenly from the vocabulary",
}


@dataclass(frozen=True)
class Surroundings:
    """What the pirate knows around a scattered layer.

    inputs [n, inputs]: the layer's inputs on its images; following [m, outputs]: the weights of the dense layers that
    read the layer's outputs, or None where none does; bias [outputs]: the layer's own, None where it has none. Without
    both nothing tells the rows apart. writing [m, outputs]: the transposed weights of other layers that write to the
    same residual stream, None where none does; partner: what the layer's neurons do besides, where it is known; normed:
    whether the network has norms over features; homogeneous: whether a neuron may be scaled and its reader inversely;
    rescaled: whether the threat says that neurons were.
    """

    grid: BlockGrid
    inputs: torch.Tensor
    following: torch.Tensor | None
    bias: torch.Tensor | None
    writing: torch.Tensor | None = None
    partner: Partner | None = None
    normed: bool = False
    homogeneous: bool = False
    rescaled: bool = False


def find_surroundings(
    puzzle: Puzzle, name: str, device: torch.device, weights: Mapping[str, torch.Tensor] | None = None
) -> Surroundings:
    """Of the layer with this path. A pirate without inputs makes some up: the network before the layer is its own.

    weights: those of other scattered layers as far as they have been put together; those not yet are left out.
    Raises: AttackError where the layer is not called as a module, so that its inputs can't be seen.
    """
    model = puzzle.model().to(device)
    layers = dense_layers(model)
    for other, weight in (weights or {}).items():
        layers[other].weight.data = weight.to(device)
    images = puzzle.images
    if not len(images):
        images = made_up_images(puzzle)
        print(f"no inputs: {MADE_UP} made up, {_MADE_OF[input_kind(images)]}")
    layer, streams, tail = layers[name], Streams(model), split_at(model, [name]).tail
    defence = puzzle.threat.defence
    return Surroundings(
        grid=puzzle.layout.grids[name],
        inputs=_layer_inputs(puzzle, model, layer, images.to(device)),
        following=_following(tail),
        bias=None if layer.bias is None else layer.bias.detach(),
        writing=_writing(streams, layers, name),
        partner=streams.partner(name),
        normed=any(type(module).__name__.endswith(("LayerNorm", "RMSNorm")) for module in model.modules()),
        homogeneous=is_homogeneous(tail),
        rescaled=defence.name == "rescale" and defence.parameters["factor"] > 1,
    )


def _writing(streams: Streams, layers: Mapping[str, nn.Linear], name: str) -> torch.Tensor | None:
    """The transposed weights of the other writers of the layer's stream, but for those that are not known."""
    known = [layers[other].weight.detach().T for other in streams.writers(name)]
    known = [weight[weight.any(1)] for weight in known if bool(weight.any())]
    return torch.cat(known) if known else None


def _following(tail: nn.Module) -> torch.Tensor | None:
    """The weights that read the layer's outputs, but for those that are not known: all zero."""
    weights = reading_weights(tail)
    if weights is None:
        return None
    known = weights[weights.any(1)]
    return known if len(known) else None


def in_order(puzzle: Puzzle, device: torch.device) -> list[str]:
    """The scattered layers in the order in which the network calls them. Raises: AttackError where it doesn't."""
    model = puzzle.model().to(device)
    called: list[str] = []
    for name, layer in dense_layers(model).items():
        layer.register_forward_pre_hook(lambda *_, name=name: called.append(name))
    with torch.inference_mode():
        model(puzzle.inputs((puzzle.images if len(puzzle.images) else made_up_images(puzzle))[:2].to(device)))
    names = [name for name in dict.fromkeys(called) if name in puzzle.layout.grids]
    missing = [name for name in puzzle.layout.grids if name not in names]
    if missing:
        raise AttackError(f"the inputs of {missing[0]} can't be seen: the network doesn't call it as a module")
    return names


def _layer_inputs(puzzle: Puzzle, model: nn.Module, layer: nn.Linear, images: torch.Tensor) -> torch.Tensor:
    """The layer's inputs [n, inputs], a fixed random part of them where there are many."""
    seen = layer_inputs(model, layer, (puzzle.inputs(part) for part in images.split(500)))
    if not seen:
        raise AttackError("the scattered layer's inputs can't be seen: the network doesn't call it as a module")
    inputs = torch.cat(seen).clone()
    if len(inputs) <= MOST_INPUTS:
        return inputs
    order = torch.randperm(len(inputs), generator=torch_generator("layer inputs"))[:MOST_INPUTS]
    return inputs[order.to(inputs.device)]


def made_up_images(puzzle: Puzzle) -> torch.Tensor:
    """Inputs of the puzzle's kind and shape, for a pirate without any: noise with the spectrum of photographs, standard
    normal features, or token ids drawn evenly from the vocabulary.

    Raises: AttackError where no embedding tells the vocabulary.
    """
    kind, shape = input_kind(puzzle.images), (MADE_UP, *puzzle.images.shape[1:])
    if kind == "images":
        return _noise(puzzle)
    if any(part.whole for part in parts_of(puzzle.config.inputs)):
        raise AttackError("integers among several named inputs can't be made up: expected a threat with images")
    generator = torch_generator(f"made up {kind}")
    if kind == "features":
        return torch.randn(shape, generator=generator)
    known = vocabulary(puzzle.model(), shape[1])
    if known is None:
        raise AttackError(
            f"victim.model '{puzzle.config.model}': no nn.Embedding reads the token ids, so none can be made up: "
            "expected a threat with images"
        )
    return torch.randint(0, known, shape, generator=generator)


def _noise(puzzle: Puzzle) -> torch.Tensor:
    """Images uint8 [n, C, H, W] whose amplitude falls as one over frequency.

    Field 1987, https://doi.org/10.1364/JOSAA.4.002379; shifted and scaled to the network's own normalisation.
    """
    channels, side = puzzle.images.shape[1], puzzle.images.shape[2]
    generator = torch_generator("made up images")
    white = torch.randn(MADE_UP, channels, side, side, generator=generator)
    shared = torch.randn(MADE_UP, 1, side, side, generator=generator)  # colours vary less than brightness
    frequency = (torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.rfftfreq(side)[None] ** 2).sqrt()
    spectrum = torch.fft.rfft2(white * 0.5 + shared) / frequency.clamp(min=0.5 / side)
    noise = torch.fft.irfft2(spectrum, s=(side, side))
    noise = noise / noise.std(dim=(0, 2, 3), keepdim=True)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (puzzle.mean, puzzle.std))
    images: torch.Tensor = ((mean + std * noise).clamp(0, 1) * 255).round().to(torch.uint8)
    return images
