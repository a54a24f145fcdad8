"""torchvision, importable also where its compiled operators do not fit the installed torch.

torchvision on the package index is built for CUDA. Beside a CPU-only torch its C++ operators cannot load, and its
import fails on two of them, though models, datasets and transforms need none. Declaring the two is enough; calling
one still fails, as it should.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


class _Declaration(MetaPathFinder):
    """Declares the operators when torchvision is about to look for them: after it has tried to load its own."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == "torchvision._meta_registrations":
            _declare_missing()


def _declare_missing() -> None:
    import torch

    for name, schema in _OPERATORS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)


def allow_torchvision() -> None:
    """From now on any `import torchvision` works, a user's own too; it takes seconds and is not imported here."""
    if not any(isinstance(finder, _Declaration) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Declaration())


def __getattr__(name: str) -> Any:
    """`from scatterproof.victims.vision import torchvision` imports it where it is asked for."""
    if name != "torchvision":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    allow_torchvision()
    import torchvision

    return torchvision
