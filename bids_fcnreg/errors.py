"""What the software says to its user when it cannot go on."""

from __future__ import annotations


class FcnregError(Exception):
    """Anything that is told to the user in one sentence, without a traceback."""


class InputError(FcnregError):
    """A file or an option given by the user is wrong: the sentence says which, why, what to do."""
