"""Labels of templates and atlases in the names of output files."""

from __future__ import annotations

import re
from pathlib import Path

from bids_fcnreg.errors import InputError

#: Most characters of a label.
LONGEST_LABEL = 100


def make_label(text: str, origin: str | Path) -> str:
    """Return the letters and digits of a text, as BIDS allows them in a label.

    Parameters
    ----------
    text : str
        What something is called.
    origin : str or path
        What carries that name, for the message.

    Raises
    ------
    InputError
        If nothing is left, or too much for a file name.

    Examples
    --------
    >>> make_label("My_study-T1", "tpl-My_study-T1")
    'MystudyT1'
    """
    label = re.sub(r"[^a-zA-Z0-9]", "", text)
    if not 0 < len(label) <= LONGEST_LABEL:
        raise InputError(
            f"{origin} gives its name to results: rename it, with 1 to {LONGEST_LABEL} letters "
            "from a to z and digits."
        )
    return label
