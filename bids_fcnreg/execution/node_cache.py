"""Results of steps in the work folder, which a disk may have damaged since they were made."""

from __future__ import annotations

import json
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from bids_fcnreg.atomic import read_json

#: Beside the results of a step: checksums of its files when it ended.
_CHECKSUMS = "checksums.json"

#: Bytes that are read at a time.
_PIECE = 2**20


def store_checksums(node: Any) -> None:
    """Note checksums of the files that a step of Nipype's has just made."""
    folder = Path(node.output_dir())
    with suppress(OSError):  # it can be done without
        (folder / _CHECKSUMS).write_text(json.dumps(_checksums(folder)))


def discard_damaged(node: Any) -> None:
    """Remove the results of a step if they are not as it left them, so that it is run again."""
    folder = Path(node.output_dir())
    for place in (folder, *folder.parents):
        if place.is_file():  # in the way of the folder
            place.unlink()
    if any(folder.glob("result_*.pklz")) and not _is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether the results of a step can be read, and its files are what they were."""
    from nipype.pipeline.engine.utils import load_resultfile

    try:
        if any(load_resultfile(path).outputs is None for path in folder.glob("result_*.pklz")):
            return False  # of a run that was spoilt
        then = read_json(folder / _CHECKSUMS)
        now = _checksums(folder)
        return all(now.get(name) == known for name, known in then.items())
    except Exception:  # a damaged pickle raises nearly any kind
        return False


def _checksums(folder: Path) -> dict[str, int]:
    """Checksum of each file of a step by its name, but for those that Nipype writes about it.

    It is one that is quick to compute and finds what disks do, not what people do on purpose.
    """
    return {
        str(path.relative_to(folder)): _crc(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("_", "result_", _CHECKSUMS))
    }


def _crc(path: Path) -> int:
    value = 0
    with open(path, "rb") as stream:
        while piece := stream.read(_PIECE):
            value = zlib.crc32(piece, value)
    return value
