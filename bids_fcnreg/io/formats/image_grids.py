"""Grids of the images between which a transform maps, on which some formats depend."""

from __future__ import annotations

import os
from dataclasses import dataclass

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid

#: Options of the command line that provide the grids.
OPTIONS = {"fixed": "--reference", "moving": "--moving"}


@dataclass(frozen=True)
class ImageGrids:
    """Grids of the images of a transform, as far as they are known.

    Attributes
    ----------
    fixed : Grid, optional
        Grid of the fixed image, in whose space points are before the transform.
    moving : Grid, optional
        Grid of the moving image.
    """

    fixed: Grid | None = None
    moving: Grid | None = None

    def swapped(self) -> ImageGrids:
        """Return the grids of the inverse transform."""
        return ImageGrids(self.moving, self.fixed)

    def need(self, role: str, path: str | os.PathLike[str], why: str) -> Grid:
        """Return the grid of an image.

        Parameters
        ----------
        role : {"fixed", "moving"}
            The image.
        path : path
            File of the transform, for messages.
        why : str
            Clause that says on what the format depends, for messages.

        Raises
        ------
        InputError
            If it is unknown.
        """
        grid = getattr(self, role)
        if grid is None:
            raise InputError(
                f"{path}: {why}, and the {role} image is unknown. Provide it with "
                f"{OPTIONS[role]}; where there is no such option, or several transforms are "
                "listed, convert this one to ITK first with `fcnreg convert`."
            )
        return grid
