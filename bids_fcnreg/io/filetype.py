"""Detect the actual type of a file that is not the NIfTI image of its name."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

_HEADER_BYTES = 1024
_ANNEX = re.compile(rb"^\s*(?:[./]*\.git)?/annex/objects/|^[./]*\.git/annex/objects/")
_LFS = re.compile(
    rb"^version https?://(?:git-lfs|hawser)\.github\.com/spec/|^version http://git-m"
)
_GET_ANNEX = (
    "its content has not been downloaded by git-annex. Run `datalad get` or `git annex get`"
)
_GET_LFS = "its content has not been downloaded by Git LFS. Run `git lfs pull`"

#: First bytes of files, and descriptions with advice.
_FILE_TYPES: tuple[tuple[bytes, str], ...] = (
    (rb"\s*(?:<!doctype html|<html|<head|<body)", "it is a web page. Download the image again"),
    (rb"\s*<(?:\?xml|error)", "it is an XML text. Download the image again"),
    (rb"\s*\{\s*\"", "it is a JSON text. Download the image again"),
    (rb".{128}DICM", "it is a DICOM file. Convert it, for instance with dcm2niix"),
    (rb"PK\x03\x04", "it is a ZIP archive. Unpack it"),
    (rb".{257}ustar", "it is a tar archive. Unpack it"),
    (rb"BZh[1-9]1AY", "it is compressed with bzip2. Unpack it, and compress it with gzip"),
    (rb"\xfd7zXZ\x00", "it is compressed with xz. Unpack it, and compress it with gzip"),
    (rb"\x28\xb5\x2f\xfd", "it is compressed with zstd. Unpack it, and compress it with gzip"),
    (rb"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive. Unpack it"),
    (rb"Rar!", "it is a RAR archive. Unpack it"),
    (rb"NRRD000", "it is an NRRD image. Convert it to NIfTI"),
    (rb"\x89HDF\r\n", "it is an HDF5 file, perhaps MINC. Convert it to NIfTI"),
    (rb"CDF[\x01\x02]", "it is a MINC file. Convert it to NIfTI"),
    (rb"\x00\x00\x00\x01\x00\x00.{2}\x00\x00.{2}\x00\x00.{2}\x00\x00\x00\x01",
     "it is an MGH image. Convert it, for instance with mri_convert"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8", "it is a picture. Choose a NIfTI image"),
    (rb"%PDF", "it is a PDF document. Choose a NIfTI image"),
)  # fmt: skip


def describe_missing_content(path: Path) -> str | None:
    """Describe a file whose content is missing, with advice; None if it is present.

    Parameters
    ----------
    path : Path
        A file or a link, broken or not.

    Returns
    -------
    str or None
        How to get the content of pointers of git-annex and Git LFS, and of broken links.
    """
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        if "annex/objects" in target:
            return _GET_ANNEX
        return f"it is a broken link to {target}. Restore that file, or repair the link"
    head = _read_start(path)
    if _ANNEX.match(head):
        return _GET_ANNEX
    return _GET_LFS if _LFS.match(head) else None


def describe_other_type(path: Path) -> str | None:
    """Describe a file that is not the NIfTI image of its name, with advice; None otherwise."""
    head, packed = _read_start(path), path.name.endswith(".gz")
    if not re.search(r"\.nii(\.gz)?$", path.name):
        return None
    compressed = head.startswith(b"\x1f\x8b")
    for content in (head, _unpack(head) if compressed else b""):
        for pattern, what in _FILE_TYPES:
            if re.match(pattern, content, re.IGNORECASE | re.DOTALL):
                return what
    if compressed and _unpack(head).startswith(b"\x1f\x8b"):
        return "it is compressed twice. Unpack it once"
    if compressed and not packed:
        return "it is compressed. Rename it to end in .nii.gz"
    if packed and head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        return "it is not compressed. Rename it to end in .nii"
    return None


def _read_start(path: Path) -> bytes:
    """Read the first bytes of a file; none if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(_HEADER_BYTES)
    except OSError:
        return b""


def _unpack(head: bytes) -> bytes:
    """Decompress the first bytes of a gzip file."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _HEADER_BYTES)
    except zlib.error:
        return b""
