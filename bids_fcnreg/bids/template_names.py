"""Tell the name of a template from the name of a file."""

from __future__ import annotations

import os
import re

#: ``Name``, with modifiers such as ``:cohort-1:res-2``.
_NAME = re.compile(r"[a-zA-Z0-9-]+(:[a-z]+-[a-zA-Z0-9]+)*")


def is_template(given: str | os.PathLike[str]) -> bool:
    """Return whether an image is given by the name or the directory of a template.

    A file of that name comes first.

    Examples
    --------
    >>> is_template("MNI152NLin6Asym:res-2"), is_template("brain.nii.gz"), is_template("dir/T1w")
    (True, False, False)
    """
    text = os.fspath(given)
    if os.path.isfile(text):
        return False
    directory = text.split(":")[0]
    own = os.path.basename(os.path.normpath(directory)).startswith("tpl-")
    return bool(_NAME.fullmatch(text)) or (own and os.path.isdir(directory))
