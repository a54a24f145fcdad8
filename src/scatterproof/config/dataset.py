"""Where a study's images come from. Imports no torch."""

from typing import Literal

from pydantic import Field, model_validator

from scatterproof.config.base import Strict
from scatterproof.running.files import file_stamp


class DatasetConfig(Strict):
    """Where the images come from and how they are split between victim, pirate and test."""

    kind: Literal["digits", "cifar100", "npz", "folder"] = Field(
        "digits",
        description="`digits`: scikit-learn's handwritten digits, no network; `cifar100`: torchvision's download, or "
        "`<root>/cifar100.npz` if that file exists; `npz`: arrays x_train, y_train, x_test, y_test; "
        "`folder`: `<path>/train/<class>/*` and `<path>/test/<class>/*`. `docs/own-model.md` says which files are read",
    )
    path: str | None = Field(None, description="the .npz file or the image folder; required for those two kinds")
    root: str = Field("data", description="folder that downloads go to and are read from")
    url: str | None = Field(None, description="mirror of the CIFAR-100 archive; its checksum stays torchvision's")
    image_size: int | None = Field(
        None, ge=1, description="`folder` only: side in pixels: the short side is resized to it, the middle square kept"
    )
    pirate: int | None = Field(
        None,
        ge=0,
        description="images of the training set given to the pirate; default 5,000 (cifar100), 297 (digits), "
        "a tenth (npz, folder); 0 trains the victim on all",
    )
    split_seed: int = Field(0, ge=0, description="seed of the split between victim and pirate")

    @model_validator(mode="after")
    def _kind_has_its_keys(self) -> "DatasetConfig":
        if self.kind in ("npz", "folder") and self.path is None:
            raise ValueError(f"dataset.path is required for kind '{self.kind}'")
        if self.kind == "folder" and self.image_size is None:
            raise ValueError("dataset.image_size is required for kind 'folder'")
        return self

    def stamp(self) -> str:
        """What shows that a file which the dataset is read from has changed."""
        named = {"npz": self.path, "folder": self.path, "cifar100": f"{self.root}/cifar100.npz"}
        return file_stamp(named.get(self.kind))
