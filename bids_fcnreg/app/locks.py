"""One run at a time for each participant of a work folder; a second one waits."""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: Of the file whose bytes are locked: a lock ends with its process, and is no file of its own.
_LOCKS = ".locks"

#: The byte that stands for the whole work folder; smaller ones stand for its parts.
_WHOLE = 2**32


@contextmanager
def lock_work_dir(
    work_dir: Path, parts: Iterable[str], console: Console, whole: bool = False
) -> Iterator[None]:
    """Keep other runs from parts of a work folder, having waited for those that are there.

    Parameters
    ----------
    work_dir : Path
        Must exist.
    parts : iterable of str
        What is worked on: labels of participants, or tasks.
    console : rich.console.Console
        Is told when there is somebody to wait for.
    whole : bool
        Keep them from all of it.
    """
    handle = os.open(work_dir / _LOCKS, os.O_RDWR | os.O_CREAT, 0o666)

    def lock(byte: int, shared: bool, what: str) -> None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(handle, kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            console.print(f"Another run works {what}in {work_dir}: this one waits for it.")
            fcntl.lockf(handle, kind, 1, byte)
        except OSError:  # the file system knows no locks
            return

    try:
        lock(_WHOLE, not whole, "")
        for part in sorted(parts):  # in one order: none waits for one that waits for it
            lock(zlib.crc32(part.encode()), False, f"on {part} ")
        yield
    finally:
        os.close(handle)
