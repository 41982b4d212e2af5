"""User-facing exceptions."""

from __future__ import annotations

import errno

#: Maximum number of characters of a message, which may quote a file.
MAX_CHARACTERS = 3000


class FcnregError(Exception):
    r"""An error reported to the user as one line, without a traceback.

    Parameters
    ----------
    message : str
        Line breaks, such as in the name of a file, are escaped as ``\n``.
    """

    def __init__(self, message: str) -> None:
        line = "\\n".join(message.splitlines())
        super().__init__(line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]}…")


class InputError(FcnregError):
    """A wrong file or option: the message says which, why, and what to do."""


def describe_os_error(error: OSError) -> str:
    """Return the file and the reason of an operating system error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "No space left on device. Free some space in the output and work directories"
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
