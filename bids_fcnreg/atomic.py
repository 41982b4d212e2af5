"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import gzip
import hashlib
import json
import os
import re
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

#: Names of files that are being written.
_TEMPORARY = re.compile(
    r"\.[^.]+\.\w{8}\.(nii|nii\.gz|h5|json|tsv|html|md|bib|tex|png|svg|toml|safetensors|pt|sqlite)"
)

#: A file that is being written may not be locked yet so many seconds after it was begun.
LOCK_DELAY_SECONDS = 2.0


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path`, to write to; it takes the place of `path` at the end.

    If the block raises, `path` is as it was.

    Parameters
    ----------
    path : path
        Its folder is made.

    Yields
    ------
    pathlib.Path
        An empty file with the same extension, in the same folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stem, dot, extension = path.name.partition(".")
    handle, name = tempfile.mkstemp(
        prefix=f".{stem[:100]}.", suffix=dot + extension, dir=path.parent
    )
    temporary = Path(name)
    _try_to_lock(handle)
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


@contextmanager
def replacing_files(folder: str | os.PathLike) -> Iterator[Path]:
    """A temporary folder whose files appear in `folder` together, or not at all.

    If the block raises, or one of the files cannot take its place, `folder` is as it was.

    Parameters
    ----------
    folder : path
        It is made.

    Yields
    ------
    pathlib.Path
        An empty folder on the same file system.

    Raises
    ------
    OSError
        If one of the files cannot be written, or a folder has its name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fcnreg.", dir=folder) as name:
        yield Path(name)
        moves = [(made, folder / made.name) for made in sorted(Path(name).iterdir())]
        for _, final in moves:
            if final.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder", str(final))
        for made, final in moves:
            os.replace(made, final)


def remove_stale_temporaries(files: Iterable[Path]) -> None:
    """Remove what a process that was killed left of `replacing`, and nobody is writing now.

    Parameters
    ----------
    files : iterable of Path
        Those of other names are left alone.
    """
    for path in files:
        if not _TEMPORARY.fullmatch(path.name):
            continue
        with suppress(OSError):  # it is gone, or not ours
            handle = os.open(path, os.O_RDWR)
            try:
                young = time.time() - os.fstat(handle).st_mtime < LOCK_DELAY_SECONDS
                if not young and _try_to_lock(handle):
                    path.unlink()
            finally:
                os.close(handle)


def _try_to_lock(handle: int) -> bool:
    """Whether a lock on an open file was free, and now is ours until it is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or the file system knows no locks
        return False
    return True


def make_folder(folder: str | os.PathLike) -> None:
    """Make a folder, and make sure that files can be made in it: permissions do not tell all.

    Raises
    ------
    OSError
        If one of the two is not possible.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=os.fspath(folder)).close()


def write_bytes(path: str | os.PathLike, payload: bytes) -> Path:
    """Write a file so that it appears whole or not at all; its folder is made."""
    with replacing(path) as temporary:
        temporary.write_bytes(payload)
    return Path(path)


def read_text(path: str | os.PathLike) -> str:
    """Text of a file in UTF-8, with or without its mark.

    Raises
    ------
    OSError
        If it cannot be read, or is something else, such as a pipe, at which one might wait.
    UnicodeDecodeError
        If it is not in UTF-8.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "it is not a file", os.fspath(path))
    return Path(path).read_text(encoding="utf-8-sig")


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """What a JSON file of ours says; nothing if it is missing or damaged: it is made again."""
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def is_intact_archive(path: str | os.PathLike) -> bool:
    """Whether a file that PyTorch saved is there and every part of it has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged one raises nearly any kind
        return False


def publish(made: str | os.PathLike, final: str | os.PathLike) -> Path:
    """Put a file into place, perhaps on another file system, never half of it visible.

    One that is there with the same content keeps its time, on which reuse of results depends.
    """
    made, final = Path(made), Path(final)
    if not (final.exists() and filecmp.cmp(made, final, shallow=False)):
        write_bytes(final, made.read_bytes())
    return final


def checksum(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    It is read once as long as it keeps its place, size and time.
    """
    state = os.stat(path)
    return _read_checksum(os.fspath(path), state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _read_checksum(path: str, *_state: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def uncompressed_checksum(path: str | os.PathLike) -> str:
    """SHA-256 of what a file holds: of a ``.gz`` file, of what is compressed in it.

    It is the same for ``x.nii`` and ``x.nii.gz``, however that was compressed. One that cannot be
    decompressed has its `checksum`.
    """
    if not os.fspath(path).endswith(".gz"):
        return checksum(path)
    state = os.stat(path)
    try:
        return _read_uncompressed(os.fspath(path), state.st_ino, state.st_size, state.st_mtime_ns)
    except (EOFError, OSError, zlib.error):
        return checksum(path)


@lru_cache(maxsize=100_000)
def _read_uncompressed(path: str, *_state: int) -> str:
    digest = hashlib.sha256()
    with gzip.open(path) as stream:
        while part := stream.read(2**22):
            digest.update(part)
    return digest.hexdigest()


def _umask() -> int:
    """Permission bits that the user wants off for new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
