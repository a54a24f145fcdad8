"""The one base of errors that a user can put right."""


class UserError(Exception):
    """Bad input or a bad place to write to: the message is one clear line, and no traceback is needed."""


REFUSED = 2  # exit status of a command that found that what it was asked for can't be
