"""Checksums of cached node results in the work directory, to detect damaged files."""

from __future__ import annotations

import json
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from nipype.pipeline.engine.utils import load_resultfile

from bids_fcnreg.atomic import read_json

#: File beside the results of a node with the checksums of its files.
_CHECKSUMS = "checksums.json"

#: Bytes read at a time.
_CHUNK = 2**20


def store_checksums(node: Any) -> None:
    """Store the checksums of the files that a Nipype node has just written."""
    directory = Path(node.output_dir())
    with suppress(OSError):  # checksums are optional
        (directory / _CHECKSUMS).write_text(json.dumps(_checksums(directory)))


def discard_damaged(node: Any) -> None:
    """Remove the results of a node if they have changed, so that it is run again."""
    directory = Path(node.output_dir())
    for path in (directory, *directory.parents):
        if path.is_file():  # conflicts with the directory
            path.unlink()
    if any(directory.glob("result_*.pklz")) and not _is_whole(directory):
        shutil.rmtree(directory, ignore_errors=True)


def _is_whole(directory: Path) -> bool:
    """Return whether the results of a node can be read, and its files are unchanged."""
    try:
        if any(load_resultfile(path).outputs is None for path in directory.glob("result_*.pklz")):
            return False  # the node failed
        then = read_json(directory / _CHECKSUMS)
        now = _checksums(directory)
        return all(now.get(name) == known for name, known in then.items())
    except Exception:  # a damaged pickle raises nearly any kind
        return False


def _checksums(directory: Path) -> dict[str, int]:
    """Return the CRC-32 of each output file of a node by its name, without Nipype's own files.

    CRC-32 is fast and detects disk errors, not deliberate changes.
    """
    return {
        str(path.relative_to(directory)): _crc(path)
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(("_", "result_", _CHECKSUMS))
    }


def _crc(path: Path) -> int:
    value = 0
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value
