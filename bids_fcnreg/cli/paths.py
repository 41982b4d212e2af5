"""Check the files that `fcnreg` reads and writes, before heavy modules are imported."""

from __future__ import annotations

from pathlib import Path

from bids_fcnreg.atomic import make_directory
from bids_fcnreg.config import BUILTIN_TEMPLATES
from bids_fcnreg.errors import InputError

#: Extensions of tables of points.
TABLES = (".csv", ".tsv", ".txt")


def check_inputs(*paths: Path | None) -> None:
    """Refuse files that do not exist; None and the built-in templates pass.

    Raises
    ------
    InputError
        If a file does not exist.
    """
    for path in paths:
        if path is None or path.exists() or str(path) in BUILTIN_TEMPLATES:
            continue
        advice = "Check the path."
        if "." not in path.name:
            names = " and ".join(BUILTIN_TEMPLATES)
            advice += f" The only templates that can be given by name are {names}."
        raise InputError(f"{path} does not exist. {advice}")


def check_image_output(path: Path, *inputs: Path | None) -> None:
    """Refuse an image that cannot be written or would overwrite an input; create its directory.

    Parameters
    ----------
    path : Path
        File to write.
    inputs : Path or None
        Files that are read.

    Raises
    ------
    InputError
        If it is refused.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"The output {path} must end in .nii or .nii.gz.")
    check_replaceable(path, *inputs)


def check_table_output(path: Path, *inputs: Path | None) -> None:
    """Refuse a table that cannot be written or would overwrite an input; create its directory.

    See `check_image_output`.
    """
    if not is_table(path) and not path.is_dir():
        raise InputError(f"The output {path} must end in .csv, .tsv or .txt.")
    check_replaceable(path, *inputs)


def check_replaceable(path: Path, *inputs: Path | None) -> None:
    """Refuse an output that cannot be written or would overwrite an input; create its directory.

    See `check_image_output`.
    """
    _check_kept(path, *inputs)
    if path.is_dir():
        raise InputError(f"The output {path} is a directory. Provide the name of a file.")
    _check_directory(path.parent)


def is_table(path: Path) -> bool:
    """Return whether a file is a table of points, by its extension."""
    return path.suffix.lower() in TABLES


def _check_kept(output: Path, *inputs: Path | None) -> None:
    """Refuse an output that would overwrite an input."""
    for path in inputs:
        if path is not None and path.exists() and output.exists() and output.samefile(path):
            raise InputError(f"The output {output} is one of the inputs. Choose another name.")


def _check_directory(directory: Path) -> None:
    """Create the directory of an output, or refuse it."""
    try:
        make_directory(directory)
    except OSError as error:
        raise InputError(
            f"The directory {directory} cannot be written ({error.strerror}). Choose another "
            "output."
        ) from error
