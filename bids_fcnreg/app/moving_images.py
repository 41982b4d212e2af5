"""The moving images of `fcnreg register`, and what belongs to each."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from bids_fcnreg.errors import InputError


@dataclass(frozen=True)
class MovingImage:
    """A moving image and what belongs to it.

    Attributes
    ----------
    image : Path
        The image.
    prefix : str
        Prefix of its output files.
    mask, exclude, labels : Path or None
        Brain mask, lesion mask and label image.
    initial : list of (Path, bool) or None
        Initial transforms, the first of which acts first, and whether to invert them.
    """

    image: Path
    prefix: str
    mask: Path | None
    exclude: Path | None
    labels: Path | None
    initial: list[tuple[Path, bool]] | None

    @property
    def files(self) -> list[Path | None]:
        """The images."""
        return [self.image, self.mask, self.exclude, self.labels]


def list_moving_images(options: argparse.Namespace) -> list[MovingImage]:
    """Return each moving image of the command line with what belongs to it.

    Several moving images have one initial transform each; of a single one, several are a chain.

    Raises
    ------
    InputError
        If an option has not one value for each of them, or two have the same name.
    """
    images, columns = options.moving, []
    for name in ("moving_mask", "moving_exclude", "labels", "initial"):
        values = getattr(options, name)
        if name == "initial" and values is not None:
            values = [values] if len(images) == 1 else [[one] for one in values]
        if values is not None and len(values) != len(images):
            count = f"{len(values)} value{'s' if len(values) > 1 else ''}"
            raise InputError(
                f"--{name.replace('_', '-')} has {count} for {len(images)} moving images. Provide "
                "one for each, in the same order."
            )
        columns.append(values or [None] * len(images))
    prefixes = [options.output]
    if len(images) > 1:
        names = [re.sub(r"(\.nii)?(\.gz)?$", "", image.name) for image in images]
        if doubles := [name for name in names if names.count(name) > 1]:
            raise InputError(
                f"Two moving images are called {doubles[0]}, by which their outputs are named. "
                "Rename one of them, or register them one by one."
            )
        prefixes = [f"{options.output}{name}_" for name in names]
    return [MovingImage(*row) for row in zip(images, prefixes, *columns, strict=True)]
