"""Lock participants of a directory, so that one run at a time works on each."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.filters import abbreviated_list

#: Directory of the lock files: one per run, held while the run lasts, and its parts as JSON.
_LOCKS = ".locks"

#: Stands for all parts of a directory.
_WHOLE = "*"

#: Maximum number of parts in a message.
_MAX_NAMED = 5

_POLL_SECONDS = 0.5


@contextmanager
def lock_directory(
    directory: Path, parts: Iterable[str], console: Console, whole: bool = False
) -> Iterator[None]:
    """Lock parts of a directory; wait until other runs have released them.

    The operating system releases the lock of a killed run. On a file system without locks,
    nothing is locked.

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
    """
    lock_dir = directory / _LOCKS
    wanted = {_WHOLE} if whole else set(parts)
    with ExitStack() as release:
        with suppress(OSError):  # the file system does not support locks
            lock_dir.mkdir(exist_ok=True)
            reported = False
            while (shared := _try_to_lock(lock_dir, wanted, release)) is not None:
                if not reported:
                    names = abbreviated_list(sorted(shared), _MAX_NAMED)
                    what = f"on {names} " if names else ""
                    console.print(
                        f"Another run is working {what}in {directory}. Waiting for it to end."
                    )
                reported = True
                time.sleep(_POLL_SECONDS)
        yield


def _try_to_lock(lock_dir: Path, wanted: set[str], release: ExitStack) -> set[str] | None:
    """Lock parts until `release` is closed; else return those that another run has locked."""
    with _lock(lock_dir / "register"):
        for path in lock_dir.glob("*.run"):
            try:
                with _lock(path, timeout=0):
                    _remove(path)  # left by a killed run
            except Timeout:
                theirs = set(read_json(path.with_suffix(".json")).get("parts", ()))
                if wanted & theirs or _WHOLE in wanted | theirs:
                    return wanted & theirs - {_WHOLE}
        path = lock_dir / f"{uuid.uuid4().hex}.run"
        release.enter_context(_lock(path))
        release.callback(_remove, path)
        path.with_suffix(".json").write_text(json.dumps({"parts": sorted(wanted)}))
    return None


def _lock(path: Path, timeout: float = -1) -> FileLock:
    # Without the fallback to a lock by existence, which would outlive a killed run.
    return FileLock(path, timeout=timeout, fallback_to_soft=False)


def _remove(path: Path) -> None:
    """Remove the files of a run."""
    for file in (path.with_suffix(".json"), path):
        file.unlink(missing_ok=True)
