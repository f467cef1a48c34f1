"""The one error that a user's input can raise."""


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message says what is wrong, with which value, and what to do.
    """


def first_line(error: BaseException) -> str:
    """What an error says, for the middle of a message: its first line, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
