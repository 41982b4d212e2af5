"""Atomic writing of files, checksums, and removal of stale temporary files."""

from __future__ import annotations

import errno
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

from filelock import lock_descriptor

#: Names of the temporary files of `replacing`.
_TEMPORARY = re.compile(
    r"\.[^.]+\.\w{8}\.(nii|nii\.gz|h5|json|tsv|html|md|bib|tex|png|svg|toml|safetensors|pt|sqlite)"
)

#: Seconds within which a new temporary file may not be locked yet.
LOCK_DELAY_SECONDS = 2.0


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a temporary file that replaces `path` atomically when the block ends.

    If the block raises, `path` is unchanged.

    Parameters
    ----------
    path : path
        Final path. Its directory is created.

    Yields
    ------
    pathlib.Path
        An empty file with the same extension, in the same directory.
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
def replacing_files(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Write files to a temporary directory, from which all are moved when the block ends.

    If the block raises, or one of the files cannot be moved, `directory` is unchanged.

    Parameters
    ----------
    directory : path
        Final directory, which is created.

    Yields
    ------
    pathlib.Path
        An empty directory on the same file system.

    Raises
    ------
    OSError
        If a file cannot be written, or a directory with its name exists.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fcnreg.", dir=directory) as name:
        yield Path(name)
        moves = [(made, directory / made.name) for made in sorted(Path(name).iterdir())]
        for _, final in moves:
            if final.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a directory", str(final))
        for made, final in moves:
            os.replace(made, final)


def remove_stale_temporaries(files: Iterable[Path]) -> None:
    """Remove temporary files of `replacing` whose process was killed.

    Parameters
    ----------
    files : iterable of Path
        Files to check; files with other names, or that are being written, are kept.
    """
    for path in files:
        if not _TEMPORARY.fullmatch(path.name):
            continue
        with suppress(OSError):  # removed meanwhile, or without permission
            handle = os.open(path, os.O_RDWR)
            try:
                new = time.time() - os.fstat(handle).st_mtime < LOCK_DELAY_SECONDS
                if not new and _try_to_lock(handle):
                    path.unlink()
            finally:
                os.close(handle)


def _try_to_lock(handle: int) -> bool:
    """Try to lock an open file until it is closed; return whether that succeeded."""
    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:  # not supported by the file system
        return False


def make_directory(directory: str | os.PathLike[str]) -> None:
    """Create a directory, and check that files can be created in it by creating one.

    Raises
    ------
    OSError
        If either fails.
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=os.fspath(directory)).close()


def write_bytes(path: str | os.PathLike[str], payload: bytes) -> Path:
    """Write a file atomically; create its directory."""
    with replacing(path) as temporary:
        temporary.write_bytes(payload)
    return Path(path)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises
    ------
    OSError
        If it cannot be read, or is not a regular file (a pipe could block).
    UnicodeDecodeError
        If it is not in UTF-8.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "it is not a file", os.fspath(path))
    return Path(path).read_text(encoding="utf-8-sig")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object; return an empty one if the file is missing or damaged."""
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def is_intact_archive(path: str | os.PathLike[str]) -> bool:
    """Return whether a file saved by PyTorch exists and all its checksums are correct."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # damaged archives raise many types of exceptions
        return False


def publish(made: str | os.PathLike[str], final: str | os.PathLike[str]) -> Path:
    """Copy a file atomically, also to another file system.

    A file with the same content keeps its modification time, on which caching depends.
    """
    made, final = Path(made), Path(final)
    if not (final.exists() and filecmp.cmp(made, final, shallow=False)):
        write_bytes(final, made.read_bytes())
    return final


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal digits.

    It is cached by path, inode, size and modification time.
    """
    state = os.stat(path)
    return _read_checksum(os.fspath(path), state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _read_checksum(path: str, *_state: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def uncompressed_checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the content of a file, decompressed if it ends in ``.gz``.

    It is the same for ``x.nii`` and ``x.nii.gz``. A file that cannot be decompressed has its
    `checksum`.
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
    """Return the umask of the process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
