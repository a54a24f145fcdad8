"""Settings of the attacks on the blocks themselves. Search has a file of its own."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from scatterproof.config.settings.base import ANY_SCATTER, TAUGHT, Needs, Rate, Settings


class FingerprintSettings(Settings):
    """Mean-field reassembly of one layer, or of several scattered together; `relax`, `refine`, `prior`, `blocks` and
    the hijack call it with these settings."""

    needs: ClassVar[Needs] = Needs(scatter=ANY_SCATTER)

    rounds: int = Field(10, ge=0, description="rounds of beliefs and predictions, at most")
    candidates: int = Field(
        6_000_000, ge=1, description="blocks times positions that beliefs are held about: all, up to 2,449 blocks"
    )
    input_widths: list[Rate] = Field(
        [0.003, 0.01, 0.03],
        min_length=1,
        description="widths of the filters of the layer's inputs, as shares of the largest direction's variance",
    )
    output_widths: list[Rate] = Field([0.01, 0.03, 0.1, 0.3], min_length=1, description="likewise, of its outputs")
    tolerance: float = Field(
        0.002, ge=0, description="relative change of what is explained, below which the rounds end"
    )
    tempered_rounds: int = Field(
        15,
        ge=0,
        description="rounds of each further try, at a raised temperature, where the first ones don't converge and all "
        "blocks are held; 0: none is made",
    )
    restarts: int = Field(4, ge=0, description="further tries that start from halves of the inputs")
    sweeps: int = Field(4, ge=1, description="sweeps over the layers, at most, where several are scattered together")


class RefineSettings(Settings):
    """Moves from the fingerprint's placement."""

    needs: ClassVar[Needs] = Needs(images=20, knows=TAUGHT)

    held_out: float = Field(0.3, gt=0, lt=1, description="share of the images that tell when to stop")
    rates: list[Rate] = Field(
        [0.003, 0.01, 0.03],
        min_length=1,
        description="of the training of the layer that guides the fingerprint, each tried: the change of its outputs "
        "by the first step, as a share of their spread",
    )
    steps_trained: int = Field(100, ge=1, description="steps of that training")
    proposals: int = Field(256, ge=1, description="exchanges of two blocks, and likewise of three, that a sweep scores")
    sweeps: int = Field(40, ge=1, description="sweeps at most")
    patience: int = Field(3, ge=1, description="sweeps without a gain on the held-out images after which it ends")


class RelaxSettings(Settings):
    """Gumbel-Sinkhorn over the placement."""

    needs: ClassVar[Needs] = Needs(images=20, knows=TAUGHT)

    held_out: float = Field(0.3, gt=0, lt=1, description="share of the images that tell when to stop")
    steps_taken: int = Field(60, ge=1, description="steps of Adam at most")
    samples: int = Field(2, ge=1, description="Gumbel samples of a step")
    rate: float = Field(0.1, gt=0, description="learning rate of the logits")
    hot: float = Field(1.0, gt=0, description="first temperature")
    cold: float = Field(0.2, gt=0, description="last temperature")
    noise: float = Field(0.3, ge=0, description="size of the Gumbel noise")
    start: Literal["fingerprint", "nothing"] = Field("fingerprint", description="the first logits: its scores, or zero")


class PriorSettings(Settings):
    """Matches the blocks to a public base model, then runs the fingerprint. It has no settings."""

    needs: ClassVar[Needs] = Needs(base_model=True)


class SeedSearchSettings(Settings):
    """Trying the seeds that a layer that was never trained may have been drawn from."""

    needs: ClassVar[Needs] = Needs()

    bits: int = Field(24, ge=1, le=32, description="2 to this power seeds are tried; PyTorch's generator has 2^32")
    start: int = Field(0, ge=0, lt=2**32, description="the first of them")

    @model_validator(mode="after")
    def _within_the_generator(self) -> "SeedSearchSettings":
        if self.start + 2**self.bits > 2**32:
            raise ValueError(f"start {self.start} and bits {self.bits} reach beyond 2^32 seeds, expected fewer")
        return self
