"""Where a study's inputs come from, images or others. Imports no torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from scatterproof.config.base import Strict
from scatterproof.running.files import file_stamp

InputKind = Literal["images", "features", "tokens"]
LabelTask = Literal["classification", "multilabel", "regression"]
TextTask = Literal["classification", "language", "retrieval"]
OF_A_PATH = ("npz", "arrays", "folder", "text")  # kinds that read `path`
OPTIONAL = ("inputs", "tokenizer", "length", "task", "index", "mean", "std")  # keys of some kinds alone


class DatasetConfig(Strict):
    """Where the images come from and how they are split between victim, pirate and test."""

    kind: Literal["digits", "cifar100", "npz", "arrays", "folder", "text"] = Field(
        "digits",
        description="`digits`: scikit-learn's handwritten digits, no network; `cifar100`: torchvision's download, or "
        "`<root>/cifar100.npz` if that file exists; `npz`: images in arrays x_train, y_train, x_test, "
        "y_test; `arrays`: images, features or token ids under the same names, in an .npz, "
        ".safetensors or folder of the library datasets; "
        "`folder`: `<path>/train/<class>/*` and `<path>/test/<class>/*`; `text`: one text a line, a target behind a "
        "tab. `docs/own-model.md` says which files are read",
    )
    path: str | None = Field(
        None,
        description="the file of arrays or text, the image folder, or one that `save_to_disk` of the library datasets "
        "wrote; "
        "required for the kinds that read one",
    )
    inputs: InputKind | None = Field(
        None,
        description="`arrays` only: what x_train and x_test hold. `features`: numbers of any shape `[N, ...]`, which "
        "the network gets as they are, as float32: neither scaled nor standardised; `tokens`: ids `[N, T]` from 0, as "
        "int64; `images`: as with `npz`. Default by their type: floats are features, integers `[N, T]` tokens, uint8 "
        "of more axes images",
    )
    tokenizer: str | None = Field(
        None,
        description="`text` only, required: a folder with a tokenizer, as save_pretrained of transformers makes it",
    )
    length: int | None = Field(
        None, ge=2, description="`text` only: tokens that the network reads of a text at most; default 64"
    )
    task: Literal["classification", "language", "retrieval", "multilabel", "regression"] | None = Field(
        None,
        description="`text`: a text's target is its class; or, without targets, the token that follows (`language`); "
        "or the text of `index` that belongs to it (`retrieval`). Default `retrieval` with an index, else by whether "
        "there are targets. `arrays`: labels are classes, the default; or `[N, K]` of 0 and 1, each of which holds or "
        "not (`multilabel`); or numbers `[N]` or `[N, K]` (`regression`)",
    )
    index: str | None = Field(
        None,
        description="`text` only: the file of texts, one a line, that targets are of: `victim.model_args.index`",
    )
    mean: list[float] | None = Field(
        None,
        description="of images: what is subtracted from each channel, on the scale 0 to 1, as a network of your own "
        "was trained; default the training images' mean. Goes with `std`",
    )
    std: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="of images: what each channel is divided by then; default their standard deviation"
    )
    root: str = Field("data", description="folder that downloads go to and are read from")
    url: str | None = Field(None, description="mirror of the CIFAR-100 archive; its checksum stays torchvision's")
    image_size: int | None = Field(
        None, ge=1, description="`folder` only: side in pixels: the short side is resized to it, the middle square kept"
    )
    pirate: int | None = Field(
        None,
        ge=0,
        description="images of the training set given to the pirate; default 5,000 (cifar100), 297 (digits), "
        "a tenth (npz, arrays, folder, text); 0 trains the victim on all",
    )
    split_seed: int = Field(0, ge=0, description="seed of the split between victim and pirate")

    @property
    def noun(self) -> str:
        """What a reader calls the inputs: arrays are `inputs`, unless the study says that they are images."""
        if self.kind == "text":
            return "texts"
        return "inputs" if self.kind == "arrays" and self.inputs != "images" else "images"

    @model_validator(mode="after")
    def _kind_has_its_keys(self) -> "DatasetConfig":
        if self.kind in OF_A_PATH and self.path is None:
            raise ValueError(f"dataset.path is required for kind '{self.kind}'")
        if self.kind == "folder" and self.image_size is None:
            raise ValueError("dataset.image_size is required for kind 'folder'")
        if self.inputs is not None and self.kind != "arrays":
            raise ValueError(f"dataset.inputs '{self.inputs}': kind '{self.kind}' has images, expected kind 'arrays'")
        for key in ("tokenizer", "length", "index"):
            if getattr(self, key) is not None and self.kind != "text":
                raise ValueError(f"dataset.{key} '{getattr(self, key)}': kind '{self.kind}', expected kind 'text'")
        tasks = {"text": get_args(TextTask), "arrays": get_args(LabelTask)}.get(self.kind, ())
        if self.task is not None and self.task not in tasks:
            expected = f"one of {', '.join(tasks)}" if tasks else "kind 'text' or 'arrays'"
            raise ValueError(f"dataset.task '{self.task}': kind '{self.kind}', expected {expected}")
        if self.kind == "text" and self.tokenizer is None:
            raise ValueError("dataset.tokenizer is required for kind 'text': a folder that save_pretrained wrote")
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError(f"dataset.mean {self.mean}, dataset.std {self.std}: expected both, one of each a channel")
        if self.task == "retrieval" and self.index is None:
            raise ValueError("dataset.index is required for task 'retrieval': a file of texts, one a line")
        return self

    @model_serializer(mode="wrap")
    def _without_unset_inputs(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a rule is handed of a study of images stays what it was before there were other inputs."""
        keys: dict[str, Any] = handler(self)
        return {key: value for key, value in keys.items() if key not in OPTIONAL or value is not None}

    @property
    def label_task(self) -> LabelTask:
        """What the labels of arrays are."""
        return self.task if self.task in ("multilabel", "regression") else "classification"

    def stamp(self) -> str:
        """What shows that a file which the dataset is read from has changed."""
        named = dict.fromkeys(OF_A_PATH, self.path) | {"cifar100": f"{self.root}/cifar100.npz"}
        return " ".join(filter(None, map(file_stamp, (named.get(self.kind), self.index))))


def refuse_augment(keys: Mapping[str, Any], kind: InputKind | None) -> None:
    """Images alone are augmented. keys: those that a study's file sets itself. Raises: ValueError, which names one."""
    for key, value in _augments(keys).items() if kind in ("features", "tokens") else ():
        raise ValueError(f"{key} '{value}': the inputs are {kind}, expected none: images alone are augmented")


def _augments(keys: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Every `augment` but none, by its path."""
    augments: dict[str, str] = {}
    for key, value in keys.items():
        if isinstance(value, Mapping) and key != "model_args":
            augments |= _augments(value, f"{path}{key}.")
        elif key == "augment" and value != "none":
            augments[f"{path}{key}"] = value
    return augments
