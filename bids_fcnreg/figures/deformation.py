"""Figure of a deformation: volume change and deformed grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np

from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.figures.mosaic import Lines, Mosaic, overlay, tile
from bids_fcnreg.io.nifti import grid_of

#: Smallest voxel size at which a deformation is drawn, in mm.
MIN_SPACING_MM = 2.0

#: Distance of the lines of a deformed grid, in mm.
GRID_LINES_MM = 8.0

#: Opacity of volume changes.
_OPACITY = 0.6


def draw_deformation(
    path: Path,
    transform: Transform,
    background: nib.spatialimages.SpatialImage,
    mask: nib.spatialimages.SpatialImage,
) -> Path:
    """Draw the nonlinear part of a transform.

    Parameters
    ----------
    path : Path
        PNG to write.
    transform : Transform
        Displacements and affines.
    background : nibabel image
        Image drawn in grey, on the grid of the template.
    mask : nibabel image
        Brain mask of the template.
    """
    inside = np.asanyarray(mask.dataobj) > 0
    mosaic = Mosaic(inside, mask.affine)
    deformation = Transform(transform.displacements)
    full = grid_of(mask)
    grid = full.with_spacing(np.maximum(MIN_SPACING_MM, full.spacing))
    change = tile(mosaic.sample(deformation.log_jacobian(grid)[0, 0].numpy(), grid.affine))
    within = tile(mosaic.sample(inside.astype(np.float32), mask.affine)) > 0.5
    top = (float(np.percentile(np.abs(change[within]), 99)) if within.any() else 0.0) or 1.0
    colours = matplotlib.colormaps["RdBu_r"]((change / top + 1) / 2)
    colours[..., 3] = _OPACITY * within
    # Contours of the mapped coordinates are the deformed grid.
    lines: list[Lines] = []
    for axis, coordinates in zip(
        "xyz", deformation.map(grid.points()).float().unbind(-1), strict=True
    ):
        levels = np.arange(
            float(coordinates.min()), float(coordinates.max()), GRID_LINES_MM
        ).tolist()
        found = mosaic.contours(coordinates.numpy(), grid.affine, levels, axis, fill=np.nan)
        lines.append((found, "white", 0.4))
    picture = overlay(mosaic.grey(background, inside), colours)
    return mosaic.save(picture, path, lines, _legend(top))


def _legend(top: float) -> dict[str, Any]:
    """Return the colours of volume changes from exp(-top) to exp(top), by factor as text."""
    colours = matplotlib.colormaps["RdBu_r"]
    return {
        f"× {np.exp(top * part):.2f}": colours((part + 1) / 2) for part in np.linspace(-1, 1, 5)
    }
