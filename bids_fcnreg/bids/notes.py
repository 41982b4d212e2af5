"""What is to be said of a dataset: the same of many images or scans is said once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bids_fcnreg.bids.filters import name_some

#: Images or scans that a note names at most.
NAMED = 3


@dataclass(frozen=True)
class Note:
    """What is to be said of an image or a scan.

    Attributes
    ----------
    text : str
        Without the name of the image or scan.
    about : str
        Image or scan; empty if the text says all.
    warning : bool
        Whether something may be wrong.
    """

    text: str
    about: str = ""
    warning: bool = True


def summarize(notes: Iterable[Note], most: int = NAMED) -> list[str]:
    """One line for each text, with the first of those that it is about.

    Parameters
    ----------
    notes : iterable of Note
        In the order in which they are said.
    most : int
        Images or scans named in a line.

    Examples
    --------
    >>> summarize([Note("not used", "a"), Note("not used", "b"), Note("not used", "c")], 2)
    ['warning: a, b and 1 more: not used']
    """
    about: dict[tuple[str, bool], list[str]] = {}
    for note in notes:
        names = about.setdefault((note.text, note.warning), [])
        if note.about and note.about not in names:
            names.append(note.about)
    return [
        ("warning: " if warning else "") + (f"{name_some(names, most)}: " if names else "") + text
        for (text, warning), names in about.items()
    ]
