"""Lock participants of a directory, so that one run at a time works on each.

A run holds the lock of one file ``*.run``, of whatever number of participants: the operating
system releases it when the process ends, however it ends. The name of that file is in a file
``*.owner`` for each participant.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from bids_fcnreg.bids.filters import abbreviated_list

#: Stands for all parts of a directory.
_WHOLE = "whole"

#: Maximum number of parts in a message.
_MAX_NAMED = 5

_POLL_SECONDS = 0.5


@contextmanager
def lock_directory(
    directory: Path,
    parts: Iterable[str],
    console: Console,
    whole: bool = False,
    lock_dir: Path | None = None,
) -> Iterator[None]:
    """Lock parts of a directory; wait until other runs have released them.

    On a file system without locks, nothing is locked.

    Parameters
    ----------
    directory : Path
        An existing directory.
    parts : iterable of str
        Labels of participants, or names of tasks.
    console : rich.console.Console
        Where to report that another run holds a lock.
    whole : bool
        Whether to lock the whole directory.
    lock_dir : Path, optional
        Directory of the lock files; by default ``.locks`` in `directory`.
    """
    lock_dir = lock_dir or directory / ".locks"
    wanted = [_WHOLE] if whole else sorted(parts)
    with ExitStack() as release:
        with suppress(OSError):  # the file system does not support locks
            lock_dir.mkdir(exist_ok=True)
            reported = False
            while (taken := _try_to_lock(lock_dir, wanted, release)) is not None:
                if not reported:
                    names = abbreviated_list(taken, _MAX_NAMED)
                    what = f"on {names} " if names else ""
                    console.print(
                        f"Another run is working {what}in {directory}. Waiting for it to end."
                    )
                reported = True
                time.sleep(_POLL_SECONDS)
        yield


def _try_to_lock(lock_dir: Path, wanted: list[str], release: ExitStack) -> list[str] | None:
    """Lock parts until `release` is closed; else return those that another run has locked."""
    owners = {part: lock_dir / f"{part}.owner" for part in wanted}
    with _lock(lock_dir / "register"):
        if _WHOLE in wanted:
            busy = any(map(_is_held, list(lock_dir.glob("*.run"))))
        else:
            busy = _is_owned(lock_dir / f"{_WHOLE}.owner")
        taken = [part for part, owner in owners.items() if _is_owned(owner) and part != _WHOLE]
        if busy or taken:
            return taken
        run = lock_dir / f"{uuid.uuid4().hex}.run"
        release.enter_context(_lock(run))
        for file in (run, *owners.values()):
            release.callback(file.unlink, missing_ok=True)
        for owner in owners.values():
            owner.write_text(run.name)
    return None


def _is_owned(owner: Path) -> bool:
    """Return whether the run that locked a part has not ended."""
    try:
        name = owner.read_text()
    except FileNotFoundError:  # also where that run is just ending
        return False
    return name.endswith(".run") and _is_held(owner.with_name(name))


def _is_held(run: Path) -> bool:
    """Return whether a run has not ended; remove the file of a killed one."""
    if not run.exists():
        return False
    try:
        with _lock(run, timeout=0):
            run.unlink(missing_ok=True)
    except Timeout:
        return True
    return False


def _lock(path: Path, timeout: float = -1) -> FileLock:
    # Without the fallback to a lock by existence, which would outlive a killed run.
    return FileLock(path, timeout=timeout, fallback_to_soft=False)
