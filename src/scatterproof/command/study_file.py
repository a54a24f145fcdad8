"""The file of a study that a command is given."""

from pathlib import Path
from typing import Any

from scatterproof.errors import UserError

DEFAULT = Path("config/demo.yaml")


class CommandError(UserError):
    """What was asked for is not there."""


def read(file: Path) -> Any:
    """The study in a file. Raises: CommandError, StudyError."""
    from scatterproof.config.study import read_study

    try:
        return read_study(file)
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror or error}") from None
