"""The one error that a user's input can raise."""


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message says what is wrong, with which value, and what to do.
    """
