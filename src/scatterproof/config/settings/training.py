"""Settings of the attacks that train, and of the pirate who is left with the rest of the network."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from scatterproof.config.base import Strict
from scatterproof.config.settings.base import ANY_SCATTER, TAUGHT, Needs, Rate, Settings

RATES = "learning rates that images held out choose from, as shares of the weights' own size"
DECAYS = "likewise: weight decay towards the start, per step at rate 1"
TRAINED = Needs("withheld", ANY_SCATTER, images=5, knows=TAUGHT)


class TrainingSettings(Settings):
    """What the trainings of layers share."""

    updates: int = Field(300, ge=8, description="steps of each training")
    batch: int = Field(64, ge=1, description="images per step")
    rates: list[Rate] = Field([0.03, 0.1], min_length=1, description=RATES)
    decays: list[Annotated[float, Field(ge=0)]] = Field([0.0], min_length=1, description=DECAYS)
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the pirate's images that chooses")


class ProbeSettings(TrainingSettings):
    """A linear probe, trained on features that are computed once."""

    needs: ClassVar[Needs] = TRAINED


class LayerSettings(TrainingSettings):
    """The missing layers alone trained, on features that are computed once."""

    needs: ClassVar[Needs] = TRAINED


class BlocksSettings(TrainingSettings):
    """Trains the layer from the blocks, placed by the fingerprint."""

    needs: ClassVar[Needs] = Needs(images=5, knows=TAUGHT)

    rates: list[Rate] = Field([0.01, 0.05], min_length=1, description=RATES)
    decays: list[Annotated[float, Field(ge=0)]] = Field([0.0, 3.0], min_length=1, description=DECAYS)


class RegressSettings(TrainingSettings):
    """Fits the layer to what is seen of requests, then trains it as `blocks` does."""

    needs: ClassVar[Needs] = Needs("withheld", activations=("both",))

    ridges: list[Annotated[float, Field(gt=0)]] = Field(
        [1e-8, 1e-6, 1e-4, 1e-2],
        min_length=1,
        description="ridges that requests held out choose from, as shares of the largest eigenvalue of the inputs",
    )
    rounds: int = Field(
        300, ge=1, description="rounds of a regression, at most, where what is seen leaves open what was summed up"
    )
    rates: list[Rate] = Field([0.01, 0.05], min_length=1, description=RATES)
    decays: list[Annotated[float, Field(ge=0)]] = Field([0.0, 3.0], min_length=1, description=DECAYS)
    held_out: float = Field(
        0.2, gt=0, lt=1, description="share of the requests, and of the pirate's images, that chooses"
    )


class FinetuneSettings(TrainingSettings):
    """All layers trained, after the missing ones as `layer` trains them."""

    needs: ClassVar[Needs] = TRAINED

    updates: int = Field(60, ge=8, description="steps of each training of all layers")
    rates: list[Rate] = Field([0.003], min_length=1, description=RATES)


class SurrogateModel(Strict):
    """One surrogate's architecture: keys of `victim`; those left out are the victim's own."""

    model: str | None = Field(None, description="as `victim.model`")
    width: float | None = Field(None, gt=0, le=4, description="as `victim.width`")
    model_args: dict[str, Any] = Field({}, description="as `victim.model_args`")

    @property
    def keys(self) -> dict[str, Any]:
        """Those that differ."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


class SurrogateSettings(Settings):
    """Trains networks from nothing on the pirate's images. The best one counts."""

    needs: ClassVar[Needs] = Needs("withheld", ANY_SCATTER, images=50, knows=TAUGHT)

    models: list[SurrogateModel] = Field(
        [SurrogateModel(model="vgg16_bn")], min_length=1, description="their architectures"
    )
    updates: int = Field(400, ge=1, description="steps of each training, at least; and at least four passes")
    train: dict[str, Any] = Field(
        {"schedule": "onecycle"}, description="keys of `victim.train` that differ, but for the epochs"
    )
    held_out: float = Field(0.1, gt=0, lt=1, description="share of the pirate's images that chooses")

    @model_validator(mode="after")
    def _epochs_follow(self) -> "SurrogateSettings":
        if "epochs" in self.train:
            raise ValueError("train.epochs: they follow from attacks.surrogate.updates")
        return self


class NothingSettings(Settings):
    """The network without the layer, or with what the pirate's images prefer in its place."""

    needs: ClassVar[Needs] = Needs("withheld", ANY_SCATTER)

    redraws: int = Field(4, ge=0, description="draws of fresh weights among what may stand in the layer's place")


class BorrowSettings(Settings):
    """The layer of a public base model. It has no settings."""

    needs: ClassVar[Needs] = Needs("withheld", ANY_SCATTER, base_model=True)
