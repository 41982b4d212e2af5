"""Checks of the files that `fcnreg` reads and writes, before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path

from bids_fcnreg.atomic import make_folder
from bids_fcnreg.config import DEFAULT_TEMPLATE
from bids_fcnreg.errors import InputError

#: What the names of tables of points end in.
TABLES = (".csv", ".tsv", ".txt")


def check_inputs(*paths: Path | None) -> None:
    """Refuse files that do not exist; None and the built-in template pass.

    Raises
    ------
    InputError
        That names the first of them.
    """
    for path in paths:
        if path is None or path.exists() or str(path) == DEFAULT_TEMPLATE:
            continue
        advice = "check the path"
        if "." not in path.name:
            advice += f"; of templates, only {DEFAULT_TEMPLATE} is known here by its name"
        raise InputError(f"{path} does not exist: {advice}.")


def check_image_output(path: Path, *inputs: Path | None) -> None:
    """Refuse an image that cannot be written, or would replace an input; make its folder.

    Parameters
    ----------
    path : Path
        File to write.
    inputs : Path or None
        Files that are read.

    Raises
    ------
    InputError
        That says what to change.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"The output {path} must end in .nii or .nii.gz.")
    check_replaceable(path, *inputs)


def check_table_output(path: Path, *inputs: Path | None) -> None:
    """Refuse a table that cannot be written, or would replace an input; make its folder.

    See `check_image_output`.
    """
    if not is_table(path) and not path.is_dir():
        raise InputError(f"The output {path} must end in .csv, .tsv or .txt.")
    check_replaceable(path, *inputs)


def check_replaceable(path: Path, *inputs: Path | None) -> None:
    """Refuse an output that cannot be written, or would replace an input; make its folder.

    See `check_image_output`.
    """
    _check_kept(path, *inputs)
    if path.is_dir():
        raise InputError(f"The output {path} is a folder: give a file.")
    _check_folder(path.parent)


def is_table(path: Path) -> bool:
    """Whether a file is a table of points, by its name."""
    return path.suffix.lower() in TABLES


def _check_kept(output: Path, *inputs: Path | None) -> None:
    """Refuse an output that would take the place of an input."""
    for path in inputs:
        if path is not None and path.exists() and output.exists() and output.samefile(path):
            raise InputError(f"The output {output} is one of the inputs: give it another name.")


def _check_folder(folder: Path) -> None:
    """Make the folder of an output, or refuse it."""
    try:
        make_folder(folder)
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be written ({error.strerror}): give another output."
        ) from error
