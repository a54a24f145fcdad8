"""A folder that `save_pretrained` wrote: what network it holds, checked before transformers is imported."""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scatterproof.config.victim import HF
from scatterproof.victims.checkpoints import ModelError

Task = Literal["classification", "language", "retrieval", "images"]
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_CLASSES = ("ForSequenceClassification",)
_ENCODER = ("Model", "ForMaskedLM", "ForPreTraining")  # of the last two the body alone
_IMAGES = ("ForImageClassification",)
ENCODER_ALONE = "EncoderModel"


@dataclass(frozen=True)
class HfFolder:
    """A folder with a network's configuration, and weights as safetensors where `read` asked for them."""

    path: Path
    settings: dict[str, Any]

    @classmethod
    def read(cls, model: str, weights: bool = True) -> "HfFolder":
        """Of `hf:FOLDER`. weights: whether they must be there. Raises: ModelError."""
        where, path = f"victim.model '{model}'", Path(model.removeprefix(HF))
        if not path.is_dir():
            raise ModelError(f"{where}: no such folder{_nearest(path)}")
        if not (path / "config.json").is_file():
            raise ModelError(f"{where}: has no config.json, expected a folder that save_pretrained wrote")
        try:
            settings = json.loads((path / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise ModelError(f"{where}: config.json can't be read: {error}") from None
        if not isinstance(settings, dict) or not settings.get("model_type"):
            raise ModelError(f"{where}: config.json names no model_type, expected that of a network of transformers")
        if settings.get("auto_map"):
            raise ModelError(f"{where}: needs Python code of its own (auto_map), which is not run: use MODULE:FUNCTION")
        if settings.get("quantization_config"):
            raise ModelError(f"{where}: its weights are quantised, expected floats")
        folder = cls(path, settings)
        if weights:
            folder.check_weights(where)
        return folder

    def check_weights(self, where: str) -> None:
        """Raises: ModelError where no weights are there as safetensors."""
        if any((self.path / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
            return
        if any((self.path / name).exists() for name in PICKLED):
            raise ModelError(
                f"{where}: refused: its weights are pickled alone, and to unpickle a file may run what is in it; "
                "load it where you trust it, and save_pretrained writes safetensors"
            )
        raise ModelError(f"{where}: has no model.safetensors, expected a folder that save_pretrained wrote")

    def check_tokenizer(self) -> None:
        """Raises: ModelError where no tokenizer lies beside the network."""
        if not any((self.path / name).is_file() for name in TOKENIZERS):
            raise ModelError(
                f"dataset.tokenizer '{self.path}': has no tokenizer ({', '.join(TOKENIZERS[:3])}, ...), expected one "
                "that save_pretrained wrote, or token ids as arrays"
            )

    @property
    def task(self) -> Task:
        """What the network answers: classes of texts, the next token, the nearest of an index's texts, or classes of
        images.

        Raises: ModelError where it is none of these.
        """
        named = [self.architecture or "Model"]
        tasks: tuple[tuple[tuple[str, ...], Task], ...] = (
            (_CLASSES, "classification"), (_CAUSAL, "language"), (_IMAGES, "images"), (_ENCODER, "retrieval"),
        )  # fmt: skip
        for ends, task in tasks:
            if named[0].endswith(ends):
                return task
        raise ModelError(
            f"victim.model '{HF}{self.path}': {named[0]} is not supported, expected one that ends in "
            f"{', '.join((*_CLASSES, *_CAUSAL, *_IMAGES, *_ENCODER))}"
        )

    @property
    def classes(self) -> int | None:
        """Of a classifier, how many; None of other networks."""
        return len(self.settings.get("id2label") or (0, 1)) if self.task in ("classification", "images") else None

    @property
    def architecture(self) -> str | None:
        """The name of its class."""
        named = self.settings.get("architectures")
        return str(named[0]) if named else None

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the images that a classifier of images takes; None of other networks, or where any fits."""
        size = self.settings.get("image_size") if self.task == "images" else None
        return size if isinstance(size, int) else None

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel of the images that it learned from; None if unknown."""
        try:
            about = json.loads((self.path / "preprocessor_config.json").read_text())
            mean, std = (tuple(map(float, about[key])) for key in ("image_mean", "image_std"))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (mean, std) if len(mean) == len(std) else None

    @property
    def pooling(self) -> Literal["mean", "cls"]:
        """How a sentence encoder makes one vector of its tokens', by what sentence-transformers keeps beside it."""
        try:
            about = json.loads((self.path / "1_Pooling" / "config.json").read_text())
        except (OSError, ValueError):
            return "mean"
        return "cls" if about.get("pooling_mode_cls_token") else "mean"


def _nearest(path: Path) -> str:
    """For an error: a folder beside it whose name is most like this one's."""
    names = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
    return "".join(f" (nearest: {path.parent / near})" for near in difflib.get_close_matches(path.name, names, 1))
