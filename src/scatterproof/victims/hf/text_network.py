"""Networks of transformers as the rest of the project takes them: token ids or images in, one logit per class out."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from scatterproof.config.victim import VictimConfig
from scatterproof.victims.checkpoints import ModelError
from scatterproof.victims.hf.folder import ENCODER_ALONE, HfFolder, Task
from scatterproof.victims.vision import allow_torchvision

SHARPNESS = 20.0  # of a cosine as a logit: sentence-transformers' own scale in training
EMBEDDING: Literal["embedding"] = "embedding"  # `victim.model_args.answers` of an encoder that looks nothing up
EXAMPLE = (3, 7)  # token ids that the network is traced on


class TextNetwork(nn.Module):
    """A network that reads token ids int64 [N, T], those that are `padding` or -1 hidden from its attention.

    architecture: names its operations; longest: tokens that it reads at most. Its layers have the paths that they have
    in the body.
    """

    body: nn.Module

    def __init__(self, body: nn.Module, padding: int | None, architecture: str, longest: int) -> None:
        super().__init__()
        self.__dict__["body"] = body  # not a module of this one: its parts are
        for name, child in body.named_children():
            self.add_module(name, child)
        for name, parameter in body.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.padding, self.architecture, self.longest = padding, architecture, longest

    def example(self) -> torch.Tensor:
        """Token ids to trace the network on."""
        ids = torch.ones(EXAMPLE, dtype=torch.int64, device=next(self.parameters()).device)
        return ids if self.padding != 1 else ids * 2

    def real(self, ids: torch.Tensor) -> torch.Tensor:
        """Which token ids [N, T] are there: no padding, and none that the data's mask hides."""
        return ids >= 0 if self.padding is None else (ids >= 0) & (ids != self.padding)

    def run(self, ids: torch.Tensor) -> Any:
        """What the body answers."""
        real = self.real(ids)
        return self.body(input_ids=ids.masked_fill(ids < 0, self.padding or 0), attention_mask=real.long())


class Classifier(TextNetwork):
    """Logits [N, classes] of a sequence."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.run(ids).logits
        return logits


class ImageClassifier(TextNetwork):
    """Logits [N, classes] of images [N, 3, size, size]."""

    real = None  # type: ignore[assignment]  # no part of an image is padding

    def __init__(self, size: int, *about: Any) -> None:
        super().__init__(*about)
        self.size = size

    def example(self) -> torch.Tensor:
        """Images to trace the network on."""
        return torch.zeros(EXAMPLE[0], 3, self.size, self.size, device=next(self.parameters()).device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(pixel_values=images).logits
        return logits


class NextToken(TextNetwork):
    """Logits [N, classes] of the token that follows, those of the first `classes` ids of the vocabulary.

    Its windows of text are full: nothing is padding.
    """

    def __init__(self, classes: int, *about: Any) -> None:
        super().__init__(*about)
        self.classes, self.padding = classes, None

    def run(self, ids: torch.Tensor) -> Any:
        return self.body(input_ids=ids, use_cache=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.run(ids).logits[:, -1, : self.classes]
        return logits


class Embedder(TextNetwork):
    """Unit vectors [N, d] of texts."""

    def __init__(self, pooling: str, *about: Any) -> None:
        super().__init__(*about)
        self.pooling = pooling

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Unit vectors [N, d]."""
        hidden = self.run(ids).last_hidden_state
        if self.pooling == "cls":
            return F.normalize(hidden[:, 0], dim=1)
        real = self.real(ids)[..., None].to(hidden.dtype)
        return F.normalize((hidden * real).sum(1) / real.sum(1).clamp(min=1), dim=1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embed(ids)


class SentenceEncoder(Embedder):
    """Cosines with the vectors of an index [classes, d], as logits: which of its texts is nearest.

    The index is made once, by the victim, as the owner of a search engine makes it.
    """

    index: torch.Tensor

    def __init__(self, classes: int, pooling: str, width: int, *about: Any) -> None:
        super().__init__(pooling, *about)
        self.register_buffer("index", torch.zeros(classes, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return SHARPNESS * self.embed(ids) @ self.index.T


def hf_network(config: VictimConfig, classes: int, weights: bool = False) -> TextNetwork:
    """The network of `hf:FOLDER`, untrained, or with the folder's weights. Reads nothing from the network.

    Raises: ModelError.
    """
    folder = HfFolder.read(config.model, weights)
    task = folder.task
    with _quiet(config.model):
        import transformers

        settings = transformers.AutoConfig.from_pretrained(str(folder.path), local_files_only=True)
        kind = {
            "classification": transformers.AutoModelForSequenceClassification,
            "language": transformers.AutoModelForCausalLM,
            "retrieval": transformers.AutoModel,
            "images": transformers.AutoModelForImageClassification,
        }[task]
        named = folder.architecture or ""
        if named.endswith(ENCODER_ALONE) and hasattr(transformers, named):
            kind = getattr(transformers, named)
        elif task == "retrieval" and settings.is_encoder_decoder:
            raise ModelError(
                f"victim.model '{config.model}': {named} is an encoder and a decoder, expected an encoder alone, whose "
                f"name ends in {ENCODER_ALONE}"
            )
        if task in ("classification", "images") and settings.num_labels != classes:
            raise ModelError(
                f"victim.model '{config.model}' answers {settings.num_labels} classes, expected the dataset's {classes}"
            )
        if weights:
            body = kind.from_pretrained(
                str(folder.path), config=settings, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        else:
            body = (kind._from_config if hasattr(kind, "_from_config") else kind.from_config)(settings)
    body = body.float()
    _with_linears(body)
    if folder.image_size not in (None, config.input_size):
        raise ModelError(
            f"victim.input_size {config.input_size}: victim.model '{config.model}' takes images of {folder.image_size} "
            f"pixels a side, expected {folder.image_size}"
        )
    alone = task == "retrieval" and config.model_args.get("answers") == EMBEDDING
    return _wrapped(body, folder, EMBEDDING if alone else task, settings, classes, config.input_size).eval()


def _wrapped(
    body: nn.Module, folder: HfFolder, task: Task | Literal["embedding"], settings: Any, classes: int, size: int
) -> TextNetwork:
    longest = int(getattr(settings, "max_position_embeddings", None) or 2**15)
    if settings.model_type in ("roberta", "xlm-roberta", "camembert"):
        longest -= 2  # their positions begin behind the padding's
    architecture = f"{type(body).__name__} {task} {classes} {folder.pooling} {settings.to_json_string()}"
    about = (body, getattr(settings, "pad_token_id", None), architecture, longest)
    if task == "images":
        return ImageClassifier(size, *about)
    if task == "classification":
        return Classifier(*about)
    if task == "language":
        vocabulary = int(settings.vocab_size)
        if classes > vocabulary:
            raise ModelError(
                f"victim.model 'hf:{folder.path}' knows {vocabulary} tokens, but the dataset has the id {classes - 1}"
            )
        return NextToken(classes, *about)
    if task == EMBEDDING:
        return Embedder(folder.pooling, *about)
    return SentenceEncoder(classes, folder.pooling, int(settings.hidden_size), *about)


@torch.no_grad()
def _with_linears(body: nn.Module) -> None:
    """Dense layers of transformers' own kind, which hold their weight transposed, as nn.Linear."""
    from transformers.pytorch_utils import Conv1D

    for path, module in list(body.named_modules()):
        if type(module) is not Conv1D:
            continue
        inputs, outputs = module.weight.shape
        linear = nn.Linear(inputs, outputs)
        linear.weight.copy_(module.weight.T)
        linear.bias.copy_(module.bias)
        above, _, name = path.rpartition(".")
        setattr(body.get_submodule(above), name, linear)


@contextmanager
def _quiet(model: str) -> Iterator[None]:
    """transformers without its words and bars, and its failures in one line. Raises: ModelError."""
    allow_torchvision()
    try:
        import transformers
    except ImportError:
        raise ModelError(
            f"victim.model '{model}': needs the library transformers, expected it installed: pip install "
            "'scatterproof[hf]'"
        ) from None
    transformers.utils.logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # a folder may be wrong in any way it likes
        line = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"victim.model '{model}': transformers can't load it: {line:.300}") from None
