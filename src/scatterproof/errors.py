"""Errors that a user can put right."""


class UserError(Exception):
    """Bad input or a bad place to write to: the message is one clear line, and no traceback is needed."""


class MissingExtraError(UserError):
    """A library that comes with an extra of this package is not installed."""

    def __init__(self, what: str, extra: str, error: ModuleNotFoundError) -> None:
        library = str(error.name).partition(".")[0]
        super().__init__(f"{what} needs {library}, expected it installed: pip install 'scatterproof[{extra}]'")


REFUSED = 2  # exit status of a command that found that what it was asked for can't be
