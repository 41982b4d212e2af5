"""How antsApplyTransforms writes its options, for those who are used to it."""

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
}

#: Types of input images: number and name that antsApplyTransforms gives them.
_IMAGE_TYPES = ("scalar", "vector", "tensor", "time-series", "multichannel", "five-dimensional")

#: Those whose volumes are resampled one by one.
SERIES = ("time-series", "multichannel")


_FLAGS = {"0": False, "false": False, "1": True, "true": True}


class TransformList(argparse.Action):
    """Collect transforms of one or several ``-t``, also in ANTs' brackets.

    The destination becomes a list of (path, whether its inverse is meant).
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        listed = list(getattr(namespace, self.dest) or [])
        try:
            listed += [transform(word) for word in _joined(values)]
        except argparse.ArgumentTypeError as why:
            raise argparse.ArgumentError(self, str(why)) from why
        setattr(namespace, self.dest, listed)


def _joined(words: Sequence[str]) -> list[str]:
    """Put together what the shell has split: ``[FILE, 1]`` without quotation marks."""
    joined: list[str] = []
    for word in words:
        opened = joined and joined[-1].startswith("[") and "]" not in joined[-1]
        if opened and not Path(joined[-1]).exists():
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def transform(word: str) -> tuple[Path, bool]:
    """Return a transform and whether its inverse is meant.

    Parameters
    ----------
    word : str
        ``FILE``, ``[FILE]``, ``[FILE,1]`` or ``FILE,1``; ``identity`` in place of a file.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is none of these.
    """
    if Path(word).exists():
        return Path(word), False
    inner = re.fullmatch(r"\[(.*)\]", word.strip(), re.DOTALL)
    parts = [part.strip() for part in (inner[1] if inner else word).rsplit(",", 1)]
    if (inner is None and word.startswith("[")) or not parts[0]:
        raise argparse.ArgumentTypeError(f"{word} is incomplete: write [FILE,1]")
    if len(parts) == 1:
        return Path(parts[0]), False
    if parts[1].lower() not in _FLAGS:
        raise argparse.ArgumentTypeError(
            f"{word}: after the comma stands 1 for the inverse, or 0; several files are "
            "separated by spaces"
        )
    if inner and "," in parts[0] and not Path(parts[0]).exists():
        raise argparse.ArgumentTypeError(
            f"{word}: aligning the centers of two images is not offered; give transform files"
        )
    return Path(parts[0]), _FLAGS[parts[1].lower()]


def interpolation(word: str) -> str:
    """Return our name of an interpolation, also from ANTs' name.

    Raises
    ------
    argparse.ArgumentTypeError
        If there is nothing like it; the message names what there is.
    """
    name = re.sub(r"\s", "", word).lower()
    ours = _INTERPOLATIONS.get(name, name)
    if ours in INTERPOLATIONS:
        return ours
    instead = "choose label (GenericLabel) or nearest (NearestNeighbor)"
    if not re.match("genericlabel|multilabel", name):
        instead = "choose linear, or nearest or label for label images"
    raise argparse.ArgumentTypeError(f"{word} interpolation is not offered; {instead}")


def output(word: str) -> Path:
    """Return the file to write.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is ANTs' way to ask for a composed transform in place of an image.
    """
    if re.fullmatch(r"(Linear)?\[.*\]", word.strip()):
        raise argparse.ArgumentTypeError(
            f"{word}: writing the composed transform is not offered; give the file of the image"
        )
    return Path(word)


def dimension(word: str) -> int:
    """Return the number of dimensions, which is 3."""
    if word != "3":
        raise argparse.ArgumentTypeError(
            f"images have 3 dimensions here, not {word}; a 4D series is resampled volume by volume"
        )
    return 3


def image_type(word: str) -> str:
    """Return the name of a type of input image, from its number or name.

    Raises
    ------
    argparse.ArgumentTypeError
        If images of this type cannot be resampled.
    """
    number = int(word) if re.fullmatch("[0-5]", word) else None
    name = word.lower() if number is None else _IMAGE_TYPES[number]
    if name not in _IMAGE_TYPES:
        raise argparse.ArgumentTypeError(f"choose 0 (scalar) or 3 (time-series), not {word}")
    if name not in ("scalar", *SERIES):
        raise argparse.ArgumentTypeError(
            f"{name} images are not supported: 0 (scalar) and 3 (time-series) are"
        )
    return name


def switch(word: str) -> bool:
    """Return whether an option that takes 0 or 1 is on."""
    if word.lower() not in _FLAGS:
        raise argparse.ArgumentTypeError(f"it must be 0 or 1, not {word!r}")
    return _FLAGS[word.lower()]


def add_ants_options(command: argparse.ArgumentParser) -> None:
    """Add the options of antsApplyTransforms that change nothing here."""
    group: Any = command.add_argument_group(
        "Options of antsApplyTransforms",
        "Accepted so that its command lines work.",
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
        "-v",
        "--verbose",
        type=switch,
        nargs="?",
        const=True,
        metavar="0|1",
        help="has no effect",
    )
