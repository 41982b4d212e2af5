"""Images made from those of a template: brain mask, skull-stripped image, tissues."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.io.nifti import grid_of, like, load, write

#: Maximum number of voxels in `fraction_inside`.
MAX_POINTS = 100_000


def write_brain_mask(t1w: Path, path: Path) -> None:
    """Write the brain mask of a skull-stripped image."""
    source = load(t1w)
    write(path, like(source, foreground(source.get_fdata()), "uint8"))


def write_brain(t1w: Path, mask: Path, path: Path) -> bool:
    """Write an image that is zero outside the brain; return False if the given one already is.

    Raises
    ------
    InputError
        If the mask is on another grid, or the image is zero inside it.
    """
    source, brain = load(t1w), load(mask)
    if difference := grid_of(source).mismatch(grid_of(brain)):
        raise InputError(
            f"The brain mask {mask} is not on the grid of {t1w} (they {difference}). Resample it."
        )
    inside, values = brain.get_fdata(dtype=np.float32) > 0.5, source.get_fdata(dtype=np.float32)
    nonzero = values != 0
    if not (nonzero & inside).any():
        raise InputError(
            f"The brain mask {mask} has no voxel above 0.5 where {t1w} is not zero. Save it with "
            "1 in the brain and 0 elsewhere."
        )
    if not (nonzero & ~inside).any():
        return False
    write(path, like(source, values * inside, "float32"))
    return True


def write_tissues(t1w: Path, gray: Path, white: Path, path: Path, certain: float) -> None:
    """Write the most probable tissue of each voxel of a brain: 1 CSF, 2 GM, 3 WM.

    Parameters
    ----------
    t1w : Path
        Skull-stripped image.
    gray, white : Path
        Probabilities of gray and white matter; that of cerebrospinal fluid is the remainder.
    path : Path
        File to write.
    certain : float
        Value of a probability of 1.
    """
    brain = load(t1w)
    gm, wm = (load(one).get_fdata() for one in (gray, white))
    csf = certain - gm - wm
    tissue = np.where(wm > np.maximum(csf, gm), 3, np.where(gm > csf, 2, 1))
    write(path, like(brain, tissue * foreground(brain.get_fdata()), "uint8"))


def fraction_inside(labels: Path, t1w: Path, mask: Path | None) -> float:
    """Compute the fraction of labelled voxels that are in the brain of a template.

    Parameters
    ----------
    labels : Path
        Label image on any grid.
    t1w, mask : Path
        Image and brain mask of the template; without a mask, the image is skull-stripped.
    """
    atlas, brain = load(labels), load(mask or t1w)
    voxels = np.argwhere(np.rint(atlas.get_fdata()) != 0)
    voxels = voxels[:: max(1, len(voxels) // MAX_POINTS)]
    to_brain = np.linalg.inv(brain.affine) @ atlas.affine
    mapped = np.rint(nib.affines.apply_affine(to_brain, voxels)).astype(int)
    on_grid = ((mapped >= 0) & (mapped < brain.shape)).all(axis=1)
    inside = brain.get_fdata() if mask else foreground(brain.get_fdata())
    return (inside[tuple(mapped[on_grid].T)] != 0).sum() / len(voxels)
