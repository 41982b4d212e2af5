"""Lock participants of a work directory, so that one run at a time works on each."""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

#: File whose bytes are locked; a lock is released when its process ends.
_LOCK_FILE = ".locks"

#: Byte that locks the whole work directory; smaller ones lock its parts.
_WHOLE = 2**32


@contextmanager
def lock_work_dir(
    work_dir: Path, parts: Iterable[str], console: Console, whole: bool = False
) -> Iterator[None]:
    """Lock parts of a work directory; wait until other runs have released them.

    Parameters
    ----------
    work_dir : Path
        An existing directory.
    parts : iterable of str
        Labels of participants, or names of tasks.
    console : rich.console.Console
        Where to report that another run holds a lock.
    whole : bool
        Whether to lock the whole directory.
    """
    handle = os.open(work_dir / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)

    def lock(byte: int, shared: bool, what: str) -> None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(handle, kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            console.print(f"Another run is working {what}in {work_dir}. Waiting for it to end.")
            fcntl.lockf(handle, kind, 1, byte)
        except OSError:  # the file system does not support locks
            return

    try:
        lock(_WHOLE, not whole, "")
        for part in sorted(parts):  # a fixed order prevents deadlocks
            lock(zlib.crc32(part.encode()), False, f"on {part} ")
        yield
    finally:
        os.close(handle)
