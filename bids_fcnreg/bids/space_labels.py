"""Labels of templates and atlases in the names of output files."""

from __future__ import annotations

import re
from pathlib import Path

from bids_fcnreg.errors import InputError

#: Maximum number of characters of a label.
MAX_LENGTH = 100


def make_label(text: str, origin: str | Path) -> str:
    """Return the letters and digits of a name, as allowed in a BIDS label.

    Parameters
    ----------
    text : str
        Name of a template or atlas.
    origin : str or path
        File, directory or name in the error message.

    Raises
    ------
    InputError
        If the label is empty or too long for a file name.

    Examples
    --------
    >>> make_label("My_study-T1", "tpl-My_study-T1")
    'MystudyT1'
    """
    label = re.sub(r"[^a-zA-Z0-9]", "", text)
    if not 0 < len(label) <= MAX_LENGTH:
        raise InputError(
            f"{origin} cannot be used as a label in output names. Rename it, with 1 to "
            f"{MAX_LENGTH} letters from a to z and digits."
        )
    return label
