"""Mean images of a study, and the similarity of each scan to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_fcnreg.errors import InputError
from bids_fcnreg.io import nifti
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.study.statistics import RunningMoments, correlation, overlap


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation over the scans of a study.

    Attributes
    ----------
    mean, sd : nibabel.Nifti1Image
        float32, on the template's grid.
    """

    mean: nib.Nifti1Image
    sd: nib.Nifti1Image


def image_moments(paths: Sequence[str | Path]) -> Moments:
    """Compute mean and standard deviation of images on one grid, one in memory at a time.

    Raises
    ------
    InputError
        If an image cannot be read, or is on another grid than the first.
    """
    moments, first = RunningMoments(), nifti.load(paths[0])
    for path in paths:
        one = first if path == paths[0] else nifti.load(path)
        _check_grid(one, path, first, paths[0])
        moments.add(one.get_fdata(dtype=np.float32, caching="unchanged"))
    return Moments(*(nifti.like(first, values) for values in (moments.mean, moments.sd)))


def similarity_to_mean(
    t1w: Sequence[str | Path],
    masks: Sequence[str | Path],
    mean: nib.Nifti1Image,
    included: Sequence[bool] | None = None,
) -> tuple[nib.Nifti1Image, list[tuple[float, float]]]:
    """Compute the similarity of each scan to the study's mean.

    Parameters
    ----------
    t1w, masks : sequence of path
        Images and brain masks on the template's grid.
    mean : nibabel.Nifti1Image
        Mean of the images.
    included : sequence of bool, optional
        Which masks to include in the majority; by default, all.

    Returns
    -------
    majority : nibabel.Nifti1Image
        Mask, uint8: brain in at least half of the scans.
    scans : list of (float, float)
        For each scan the correlation with the mean image in that mask, and the Dice coefficient
        of its own mask with it.
    """
    shares = RunningMoments()
    for path in masks if included is None else compress(masks, included):
        shares.add(_mask(path))
    majority = shares.mean >= 0.5
    expected = mean.get_fdata(dtype=np.float32)[majority]
    scans = [
        (
            correlation(nifti.load(path).get_fdata(dtype=np.float32)[majority], expected),
            overlap(_mask(mask) > 0, majority),
        )
        for path, mask in zip(t1w, masks, strict=True)
    ]
    return nifti.like(mean, majority, "uint8"), scans


def mask_volume(path: str | Path) -> float:
    """Compute the volume of a mask in mm³."""
    mask = open_image(path)
    voxel = abs(np.linalg.det(mask.affine[:3, :3]))
    return float(np.count_nonzero(np.asanyarray(mask.dataobj)) * voxel)


def _mask(path: str | Path) -> np.ndarray:
    return (nifti.load(path).get_fdata(dtype=np.float32) > 0.5).astype(np.float32)


def _check_grid(
    one: nib.Nifti1Image, path: str | Path, first: nib.Nifti1Image, first_path: str | Path
) -> None:
    """Reject images on different grids."""
    if one.shape != first.shape or not np.allclose(one.affine, first.affine, atol=1e-3):
        raise InputError(
            f"{path} is not on the grid of {first_path}. Rerun the participant level for all "
            "participants with one resolution of the template."
        )
