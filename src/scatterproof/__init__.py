"""Can a pirate put a scattered model together again for less than it costs to train it?"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scatterproof.auditing.audit import audit

__version__ = version("scatterproof")
__all__ = ["audit"]


def __getattr__(name: str) -> Any:
    """`audit`, imported when it is asked for: it needs torch, and the workflow's parsing does without."""
    if name == "audit":
        from scatterproof.auditing.audit import audit

        return audit
    raise AttributeError(f"module 'scatterproof' has no attribute {name!r}")
