"""Results of steps in the work folder, which a disk may have damaged since they were made."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from bids_fcnreg.files import read_json

#: Beside the results of a step: the sizes of its files when it ended.
_SIZES = "sizes.json"


def remember(node: Any) -> None:
    """Note how large the files are that a step of Nipype's has just made."""
    folder = Path(node.output_dir())
    with suppress(OSError):  # it can be done without
        (folder / _SIZES).write_text(json.dumps(_sizes(folder)))


def discard_damaged(node: Any) -> None:
    """Remove the results of a step if they are not as it left them, so that it is run again."""
    from nipype.pipeline.engine.utils import load_resultfile

    folder = Path(node.output_dir())
    results = list(folder.glob("result_*.pklz"))
    if not results:
        return
    try:
        for result in results:
            load_resultfile(result)
        then = read_json(folder / _SIZES)
        now = _sizes(folder)
        whole = all(now.get(name) == size for name, size in then.items())
    except Exception:  # a damaged pickle raises nearly any kind
        whole = False
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of a step by its name, but for those that Nipype writes about it."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("_", "result_", _SIZES))
    }
