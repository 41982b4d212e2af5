"""Option syntax of antsApplyTransforms."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bids_fcnreg.config import INTERPOLATIONS

_INTERPOLATIONS = {
    "nearestneighbor": "nearest",
    "genericlabel": "label",
    "genericlabel[linear]": "label",
    "bspline": "cubic",
    "bspline[3]": "cubic",
    "lanczoswindowedsinc": "lanczos",
}

#: Types of input images in antsApplyTransforms, by number.
_IMAGE_TYPES = ("scalar", "vector", "tensor", "time-series", "multichannel", "five-dimensional")

#: Image types whose volumes are resampled one by one.
SERIES = ("time-series", "multichannel")


_FLAGS = {"0": False, "false": False, "1": True, "true": True}


class TransformList(argparse.Action):
    """Collect the transforms of one or several ``-t``, with or without ANTs' brackets.

    The destination is a list of (path, whether to invert it).
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Append the transforms of one option to those of the options before it."""
        listed = list(getattr(namespace, self.dest) or [])
        try:
            listed += [transform(value) for value in _join_brackets(values)]
        except argparse.ArgumentTypeError as why:
            raise argparse.ArgumentError(self, str(why)) from why
        setattr(namespace, self.dest, listed)


def _join_brackets(values: Sequence[str]) -> list[str]:
    """Join values that the shell has split: ``[FILE, 1]`` without quotation marks."""
    joined: list[str] = []
    for value in values:
        opened = joined and joined[-1].startswith("[") and "]" not in joined[-1]
        if opened and not Path(joined[-1]).exists():
            joined[-1] += value
        else:
            joined.append(value)
    return joined


def transform(value: str) -> tuple[Path, bool]:
    """Return the file of a transform and whether to invert it.

    Parameters
    ----------
    value : str
        ``FILE``, ``[FILE]``, ``[FILE,1]`` or ``FILE,1``; ``identity`` in place of a file.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is none of these.
    """
    if Path(value).exists():
        return Path(value), False
    inner = re.fullmatch(r"\[(.*)\]", value.strip(), re.DOTALL)
    parts = [part.strip() for part in (inner[1] if inner else value).rsplit(",", 1)]
    if (inner is None and value.startswith("[")) or not parts[0]:
        raise argparse.ArgumentTypeError(f"{value} is incomplete. Write [FILE,1]")
    if len(parts) == 1:
        return Path(parts[0]), False
    if parts[1].lower() not in _FLAGS:
        raise argparse.ArgumentTypeError(
            f"{value}: the value after the comma must be 1 (inverse) or 0. Separate several "
            "files by spaces"
        )
    if inner and "," in parts[0] and not Path(parts[0]).exists():
        raise argparse.ArgumentTypeError(
            f"{value}: aligning the centers of two images is not supported. Provide transform "
            "files"
        )
    return Path(parts[0]), _FLAGS[parts[1].lower()]


def interpolation(value: str) -> str:
    """Return the name of an interpolation, also from its name in ANTs.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is not supported; the message lists the alternatives.
    """
    name = re.sub(r"\s", "", value).lower()
    known = _INTERPOLATIONS.get(name, name)
    if known in INTERPOLATIONS:
        return known
    instead = "Choose label (GenericLabel) or nearest (NearestNeighbor)"
    if not re.match("genericlabel|multilabel", name):
        instead = "Choose linear, cubic or lanczos, or nearest or label for label images"
    raise argparse.ArgumentTypeError(f"{value} interpolation is not supported. {instead}")


def output(value: str) -> Path:
    """Return the file to write.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is ANTs' syntax for writing the composed transform.
    """
    if re.fullmatch(r"(Linear)?\[.*\]", value.strip()):
        raise argparse.ArgumentTypeError(
            f"{value}: writing the composed transform is not supported. Provide the name of an "
            "image file"
        )
    return Path(value)


def dimension(value: str) -> int:
    """Return the number of dimensions, which must be 3."""
    if value != "3":
        raise argparse.ArgumentTypeError(
            f"images must have 3 dimensions, not {value}. A 4D series is resampled volume by "
            "volume"
        )
    return 3


def image_type(value: str) -> str:
    """Return the name of a type of input image, from its number or name.

    Raises
    ------
    argparse.ArgumentTypeError
        If images of this type are not supported.
    """
    number = int(value) if re.fullmatch("[0-5]", value) else None
    name = value.lower() if number is None else _IMAGE_TYPES[number]
    if name not in _IMAGE_TYPES:
        raise argparse.ArgumentTypeError(f"choose 0 (scalar) or 3 (time-series), not {value}")
    if name not in ("scalar", *SERIES):
        raise argparse.ArgumentTypeError(
            f"{name} images are not supported. Choose 0 (scalar) or 3 (time-series)"
        )
    return name


def switch(value: str) -> bool:
    """Return whether an option that takes 0 or 1 is on."""
    if value.lower() not in _FLAGS:
        raise argparse.ArgumentTypeError(f"it must be 0 or 1, not {value!r}")
    return _FLAGS[value.lower()]


def add_ants_options(command: argparse.ArgumentParser) -> None:
    """Add options of antsApplyTransforms that have no effect here."""
    group: Any = command.add_argument_group(
        "Options of antsApplyTransforms", "Accepted so that its command lines work."
    )
    group.add_argument("-d", "--dimensionality", type=dimension, metavar="3", help="always 3")
    group.add_argument(
        "-e",
        "--input-image-type",
        type=image_type,
        metavar="TYPE",
        help="0 (scalar) or 3 (time-series); detected automatically",
    )
    group.add_argument(
        "--float", type=switch, nargs="?", const=True, metavar="0|1", help="has no effect"
    )
    group.add_argument(
        "-v", "--verbose", type=switch, nargs="?", const=True, metavar="0|1", help="has no effect"
    )
