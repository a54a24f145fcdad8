"""F: on which victims and block sizes fineness is measured. Imports no torch: Snakemake parses this."""

from pydantic import Field, model_validator

from scatterproof.config.base import Count, Strict
from scatterproof.config.threat import ThreatModel

ATTACK = "fingerprint"
LEAST_BLOCKS = 64  # fewer make a puzzle that is small, not coarse


class FinenessConfig(Strict):
    """F: what the fingerprint recovers of one fixed victim, by the size of the blocks that its layer is cut into."""

    block_sizes: list[Count] = Field(
        [],
        description=f"sides of the square blocks; a size that makes fewer than {LEAST_BLOCKS} blocks of a victim's "
        "layer is left out for that victim; empty: fineness is not measured",
    )
    images: int = Field(100, ge=0, description="unlabelled images that the pirate holds")
    victims: list[str] = Field(["victim"], min_length=1, description="victims attacked: `victim`, or further ones")
    victim_seeds: int | None = Field(None, ge=1, description="how many of each victim's seeds; default all")

    @model_validator(mode="after")
    def _nothing_stands_twice(self) -> "FinenessConfig":
        for key in ("block_sizes", "victims"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"fineness.{key} {values}: one stands twice")
        return self

    @property
    def images_needed(self) -> int:
        """Images that the pirate must hold."""
        return self.images if self.block_sizes else 0

    @property
    def threat(self) -> ThreatModel:
        """One layer scattered, every block held, nothing known of the images."""
        return ThreatModel(images=self.images)
