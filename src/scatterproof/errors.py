"""The one base of errors that a user can put right."""


class UserError(Exception):
    """Bad input or a bad place to write to: the message is one clear line, and no traceback is needed."""
