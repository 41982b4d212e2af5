"""Read .bidsignore files, whose syntax is that of .gitignore files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pathspec import GitIgnoreSpec


class Bidsignore:
    r"""Patterns of a .bidsignore file.

    Parameters
    ----------
    text : str
        Content of the file.

    Examples
    --------
    >>> rules = Bidsignore("*_T1w.nii\n/sub-02/\n!sub-03*")
    >>> rules.excludes(("sub-01", "anat", "sub-01_T1w.nii"))
    True
    >>> rules.excludes(("sub-03", "anat", "sub-03_T1w.nii"))
    False
    """

    def __init__(self, text: str = "") -> None:
        valid = []
        for line in text.splitlines():
            with suppress(ValueError, re.error):  # git ignores invalid patterns as well
                GitIgnoreSpec.from_lines([line])
                valid.append(line)
        self._spec = GitIgnoreSpec.from_lines(valid)

    @classmethod
    def read(cls, bids_dir: Path) -> Bidsignore:
        """Read the file of a dataset; without one, nothing is excluded."""
        path = Path(bids_dir) / ".bidsignore"
        return cls(path.read_text("utf-8-sig", errors="replace") if path.is_file() else "")

    def excludes(self, parts: Sequence[str], directory: bool = False) -> bool:
        """Return whether a file, or a directory that contains it, is excluded.

        Parameters
        ----------
        parts : sequence of str
            Parts of the path from the root of the dataset.
        directory : bool
            Whether it is a directory.
        """
        paths = ["/".join(parts[:n]) + "/" for n in range(1, len(parts))]
        paths.append("/".join(parts) + "/" * directory)
        return any(map(self._spec.match_file, paths))
