"""What a study's inputs are called on its page, in its figures and in its headline."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CALLED = ContextVar("inputs", default="images")


@contextmanager
def inputs_called(noun: str) -> Iterator[None]:
    """Within this the report says `noun`, as `DatasetConfig.noun` has it."""
    before = _CALLED.set(noun)
    try:
        yield
    finally:
        _CALLED.reset(before)


def inputs() -> str:
    """`images`, `texts` or `inputs`."""
    return _CALLED.get()


def accuracy_label(lines: bool = False) -> str:
    """Label of an axis: accuracy on the inputs of the test; over two lines where the axis is short."""
    return f"accuracy on{chr(10) if lines else ' '}test {inputs()} (%)"
