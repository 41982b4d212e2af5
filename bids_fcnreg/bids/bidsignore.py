"""Read .bidsignore files, whose syntax is that of .gitignore files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


class Bidsignore:
    """Patterns of a .bidsignore file.

    Parameters
    ----------
    lines : iterable of str
        Lines of the file.

    Examples
    --------
    >>> rules = Bidsignore(["*_T1w.nii", "/sub-02/", "!sub-03*"])
    >>> rules.excludes(("sub-01", "anat", "sub-01_T1w.nii"))
    True
    >>> rules.excludes(("sub-03", "anat", "sub-03_T1w.nii"))
    False
    """

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._rules = [rule for line in lines if (rule := _read_line(line)) is not None]

    @classmethod
    def read(cls, bids_dir: Path) -> Bidsignore:
        """Read the file of a dataset; without one, nothing is excluded."""
        path = Path(bids_dir) / ".bidsignore"
        if not path.is_file():
            return cls()
        return cls(path.read_text(encoding="utf-8-sig", errors="replace").splitlines())

    def excludes(self, parts: Sequence[str], folder: bool = False) -> bool:
        """Return whether a file, or a directory that contains it, is excluded.

        Parameters
        ----------
        parts : sequence of str
            Parts of the path from the root of the dataset.
        folder : bool
            Whether it is a directory.
        """
        if not self._rules:
            return False
        for depth in range(1, len(parts) + 1):
            path, excluded = "/".join(parts[:depth]), False
            for pattern, excluding, folders_only in self._rules:
                if (folder or depth < len(parts) or not folders_only) and pattern.fullmatch(path):
                    excluded = excluding
            if excluded:
                return True
        return False


def _read_line(line: str) -> tuple[re.Pattern[str], bool, bool] | None:
    """Parse a line: pattern of a path, whether it excludes, and whether only directories."""
    line = re.sub(r"(?<!\\)\s+$", "", line)
    if not line or line.startswith("#"):
        return None
    excluding = not line.startswith("!")
    line = line.removeprefix("!")
    folders_only = line.endswith("/")
    line = line.removesuffix("/")
    if not line:
        return None
    anywhere = "" if "/" in line else "(?:.*/)?"
    try:
        return re.compile(anywhere + _translate(line.lstrip("/")), re.S), excluding, folders_only
    except re.error:  # such as a range from z to a
        return None


_SPECIAL = re.compile(r"^\*\*/|/\*\*/|/\*\*$|\*+|\?|\[[!^]?\]?[^\]]*\]|\\.|.", re.S)


def _translate(pattern: str) -> str:
    """Convert a pattern with wildcards to a regular expression."""
    made = []
    for part in _SPECIAL.findall(pattern):
        if part == "**/":
            made.append("(?:.*/)?")
        elif part == "/**/":
            made.append("/(?:.*/)?")
        elif part == "/**":
            made.append("/.*")
        elif part[0] == "*":
            made.append("[^/]*")
        elif part == "?":
            made.append("[^/]")
        elif part[0] == "[" and len(part) > 1:
            inside = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            made.append(f"(?!/)[{re.sub('^[!^]', '^', inside)}]")
        else:
            made.append(re.escape(part[-1]))
    return "".join(made)
