"""What the software says to its user when it cannot go on."""

from __future__ import annotations

import errno

#: Letters of a sentence at most: it may quote a file.
LONGEST = 3000


class FcnregError(Exception):
    """Anything that is told to the user in one sentence, without a traceback.

    Parameters
    ----------
    sentence : str
        Line breaks in it, such as in the name of a file, are written as ``\\n``.
    """

    def __init__(self, sentence: str) -> None:
        line = "\\n".join(sentence.splitlines())
        super().__init__(line if len(line) <= LONGEST else f"{line[:LONGEST]}…")


class InputError(FcnregError):
    """A file or an option given by the user is wrong: the sentence says which, why, what to do."""


def told(error: OSError) -> str:
    """What the system says, and of which file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: make room where the results and the work folder lie"
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
