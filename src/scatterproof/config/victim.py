"""The victim: its network, where its weights come from, and how it is trained. Imports no torch."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from scatterproof.config.base import Seed, Share, Strict
from scatterproof.running.files import file_stamp

VGG = ("vgg16", "vgg16_bn")
BUILT_IN = (*VGG,)  # models that `victim.model` names without a module
HF = "hf:"  # before the folder of a network of transformers


class TrainConfig(Strict):
    """The victim's training recipe; the cost of retraining is what it takes."""

    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD has Nesterov momentum 0.9")
    lr: float = Field(0.01, gt=0, description="peak learning rate")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay; biases and batch norms have none")
    batch_size: int = Field(64, ge=1, description="images per step")
    epochs: int = Field(180, ge=1, description="passes over the victim's images")
    schedule: Literal["constant", "step", "cosine", "onecycle"] = Field(
        "step", description="`step` multiplies by `gamma` at `milestones`; `onecycle` rises for 30 % of the run"
    )
    milestones: list[int] = Field([90, 140], description="epochs at which `step` lowers the rate")
    gamma: float = Field(0.1, gt=0, le=1, description="factor of `step`")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    augment: Literal["none", "crop", "crop_flip"] = Field(
        "crop_flip", description="random crop after padding by an eighth; `crop_flip` also mirrors"
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "auto", description="`auto`: bf16 autocast on CUDA and on CPUs with AVX512-BF16 or AMX, else fp32"
    )
    channels_last: bool = Field(True, description="memory layout of the convolutions")
    fold: Literal["auto", "never"] = Field(
        "auto",
        description="`auto`: a dense layer whose inputs are copies, as VGG's first one's are at 32 pixels, is trained "
        "as the sums over the copies, which gives the same weights but for rounding, sooner; `never`: as it is",
    )

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A rule's recipe stays what it was before there was the key: victims trained until then are not anew."""
        keys: dict[str, Any] = handler(self)
        return {key: value for key, value in keys.items() if (key, value) != ("fold", "auto")}


INITIALISATION = "initialisation"  # as `victim.base`


class VictimConfig(Strict):
    """The network whose layer is scattered."""

    kind: Literal["train", "checkpoint"] = Field(
        "train", description="`train` it here, or read a `checkpoint` of your own"
    )
    model: str = Field(
        "vgg16",
        description="`vgg16`, `vgg16_bn`, `torchvision:NAME`, `hf:FOLDER`, which save_pretrained of the library "
        "transformers wrote (with `kind: checkpoint` its weights are the victim's), or `MODULE:FUNCTION` that returns "
        "an nn.Module",
    )
    model_args: dict[str, Any] = Field(
        {},
        description="keyword arguments of a `torchvision:` or own model; of a sentence encoder `index`, a file of "
        "texts, one a line, among which each input's nearest is looked for",
    )
    inputs: dict[str, Annotated[str, Field(pattern=r"^(int|float)\[(\d+(,\d+)*)?\]$")]] = Field(
        {},
        description="of an own model whose `forward` takes several inputs by name: the type and shape of each, "
        "such as `{ids: 'int[16]', user: 'float[3,8]'}`; the data hold them as `x_train.ids`, `x_test.ids`",
    )
    width: float = Field(1.0, gt=0, le=4, description="width multiplier of the VGG family; 1 is torchvision's net")
    input_size: int = Field(
        32,
        ge=1,
        description="side of the input in pixels. VGG: 32 (each channel copied 49 times before the dense layer), 224, "
        "or 28 (copy-free: the last three poolings are removed)",
    )
    dropout: Share = Field(0.5, description="dropout of the VGG family's dense layers")
    checkpoint: str | None = Field(
        None, description="a .safetensors file, or a state dict that torch.save wrote; `{seed}` is filled in"
    )
    base: str | None = Field(
        None,
        description="the public model that the victim started from: `initialisation`, its random start, whose seed may "
        "be guessed; or a checkpoint, from which a `train` victim then starts (all but a last dense layer of another "
        "shape); `{seed}` is filled in. A pirate gets it under `base_model` alone",
    )
    layer: str = Field("largest", description="path of the dense layer, such as `classifier.0`, or `largest`")
    layers: list[str] | None = Field(
        None,
        min_length=1,
        description="what `scatter: dense` scatters: paths of dense layers, also patterns such as "
        "`encoder.layer.*.output.dense`, where `*` stands for what is between two dots and `**` for any names; default "
        "every dense layer",
    )
    frozen_layers: list[str] = Field(
        [],
        description="paths of dense layers, or patterns as of `layers`, that are never trained: they are drawn from "
        "256 bits that the owner keeps beside the victim, in `frozen.key`, and the rest is trained around them; no "
        "verdict on them can be `bounded` (docs/defences.md)",
    )
    seeds: list[Seed] = Field([0], min_length=1, description="one victim is trained per seed")
    train: TrainConfig = Field(TrainConfig(), description="training recipe")

    def stamp(self, seed: int) -> str:
        """What shows that the checkpoint, or the base's, has changed."""
        named = (self.checkpoint, None if self.base == INITIALISATION else self.base, *self._own_files)
        return " ".join(filter(None, (file_stamp(path and path.replace("{seed}", str(seed))) for path in named)))

    @property
    def _own_files(self) -> list[str]:
        """What a network of transformers is read from."""
        if not self.model.startswith(HF):
            return []
        folder, index = Path(self.model.removeprefix(HF)), self.model_args.get("index")
        files = [*folder.glob("*.json"), *(folder.glob("*.safetensors") if self.kind == "checkpoint" else ())]
        return [*map(str, sorted(files)), *([index] if isinstance(index, str) else [])]

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a rule is handed of a study that names none of these stays what it was before there were any."""
        keys: dict[str, Any] = handler(self)
        return {key: value for key, value in keys.items() if key not in ("layers", "inputs", "frozen_layers") or value}

    def frozen_among(self, layers: Iterable[str]) -> str:
        """Those of these layers that were never trained, joined by `+`; empty where there is none."""
        patterns = [layer_pattern(text) for text in self.frozen_layers]
        return "+".join(name for name in layers if any(pattern.fullmatch(name) for pattern in patterns))

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> "VictimConfig":
        if self.kind == "checkpoint" and self.checkpoint is None and not self.model.startswith(HF):
            raise ValueError("victim.checkpoint is required for kind 'checkpoint'")
        if self.checkpoint is not None and len(self.seeds) > 1 and "{seed}" not in self.checkpoint:
            raise ValueError(f"victim.checkpoint '{self.checkpoint}': several seeds, but no {{seed}} in the path")
        if self.kind == "train" and self.checkpoint is not None:
            raise ValueError("victim.checkpoint is given, but victim.kind is 'train'")
        if self.kind == "checkpoint" and self.frozen_layers:
            raise ValueError(
                f"victim.frozen_layers {self.frozen_layers}: a layer is frozen as the victim is trained, expected "
                "victim.kind 'train' or no such key"
            )
        if self.kind == "checkpoint" and self.base == INITIALISATION:
            raise ValueError(
                "victim.base is 'initialisation', which needs victim.kind 'train'; expected a path or none"
            )
        if self.model not in BUILT_IN and ":" not in self.model:
            expected = f"{', '.join(BUILT_IN)}, torchvision:NAME, hf:FOLDER or MODULE:FUNCTION"
            raise ValueError(f"victim.model '{self.model}': expected {expected}")
        own = self.model not in BUILT_IN and not self.model.startswith((HF, "torchvision:"))
        if self.inputs and not own:
            raise ValueError(f"victim.inputs: victim.model '{self.model}' takes one input, expected MODULE:FUNCTION")
        if self.model in VGG and self.input_size not in (28, 32, 224):
            raise ValueError(f"victim.input_size {self.input_size}: the VGG family takes 28, 32 or 224")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"victim.seeds {self.seeds}: a seed stands twice")
        return self


def layer_pattern(text: str) -> re.Pattern[str]:
    """Of layers' paths: `*` stands for any part of a name between two dots, `**` for any names."""
    parts = (".*" if part == "**" else "[^.]*" if part == "*" else re.escape(part) for part in re.split(r"(\*+)", text))
    return re.compile("".join(parts))
