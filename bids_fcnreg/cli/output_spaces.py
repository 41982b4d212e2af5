"""Spaces of fMRIPrep's ``--output-spaces``, some of which are no templates."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Pattern of spaces that are no templates, and of modifiers without effect; why they are ignored.
_IGNORED = {
    r"anat|individual|T1w|T2w|FLAIR": "results in native space are always written",
    r"func|bold|boldref|run|sbref": "functional images are not processed",
    r"(fsnative|fsaverage\d?|fsLR|onavg)(:.*)?|.*:den-.*": "surfaces are not processed",
    r".*:res-native(:.*)?": "images in template space have the grid of the template",
}


def select_templates(spaces: Iterable[str]) -> tuple[list[str], str]:
    """Select the spaces that are templates.

    Parameters
    ----------
    spaces : iterable of str
        Values of ``--output-spaces``.

    Returns
    -------
    list of str
        The templates.
    str
        Which spaces and modifiers are ignored, and why; empty if there are none.

    Examples
    --------
    >>> select_templates(["MNI152NLin6Asym:res-2", "fsnative"])
    (['MNI152NLin6Asym:res-2'], 'fsnative is ignored: surfaces are not processed')
    """
    templates = []
    ignored: dict[str, list[str]] = {}
    for space in spaces:
        reasons = (why for pattern, why in _IGNORED.items() if re.fullmatch(pattern, space))
        reason = next(reasons, None)
        if reason:
            ignored.setdefault(reason, []).append(space)
        if reason is None:
            templates.append(space)
        elif ":res-native" in space and ":den-" not in space:
            templates.append(space.replace(":res-native", ""))
            ignored[reason][-1] = "res-native"
    clauses = []
    for reason, names in ignored.items():
        names = list(dict.fromkeys(names))
        clauses.append(
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} ignored: {reason}"
        )
    return templates, "; ".join(clauses)
