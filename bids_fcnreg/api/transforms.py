"""Apply transforms to images and points, measure and convert them."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from bids_fcnreg.api.images import ImageLike, resolve_image, space_codes, warn_of_orientation
from bids_fcnreg.config import INTERPOLATIONS, LABEL_INTERPOLATIONS
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import MIN_JACOBIAN, Affine
from bids_fcnreg.io import image, nifti
from bids_fcnreg.io.formats import table
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.header import MAX_SPACING_MM, MIN_SPACING_MM, check_memory
from bids_fcnreg.io.points import AXES
from bids_fcnreg.io.resampling import resample_values
from bids_fcnreg.io.series import few_volumes, open_series, series_like
from bids_fcnreg.io.transform_chain import TransformLike, list_transforms, read_transforms
from bids_fcnreg.preprocessing.brain import is_label_image

if TYPE_CHECKING:
    import pandas as pd


def apply(
    moving: ImageLike,
    reference: ImageLike | None,
    transforms: Sequence[TransformLike] | TransformLike,
    *,
    interpolation: str = "linear",
    default_value: float = 0.0,
    spacing: float | Sequence[float] | None = None,
) -> nib.Nifti1Image:
    """Resample an image, or each volume of a series, through transforms, with one interpolation.

    Parameters
    ----------
    moving : path or nibabel image (i, j, k) or (i, j, k, n)
        Image to resample.
    reference : path or nibabel image, or None
        Image or series that defines the grid; its values are ignored. None: the moving image.
    transforms : transform, or sequence of them
        Files of any format of `convert`, transforms in memory (``forward`` and ``inverse`` of
        `Registered`), or matrices (4, 4) in RAS+ mm, as a stack, as in antsApplyTransforms: the
        first one maps points of the reference first, the last one maps them to the image.
        ``(transform, True)`` is the inverse, ``"identity"`` the identity transform.
    interpolation : {"linear", "nearest", "label", "cubic", "lanczos"}
        ``nearest`` and ``label`` are for label images. ``cubic`` (B-spline) and ``lanczos``
        (windowed sinc) keep more detail than ``linear``, and may overshoot at edges.
    default_value : float
        Value outside the image.
    spacing : float or sequence of 3 float, optional
        Voxel size of the grid in mm, by default that of the reference, of which it keeps field of
        view and orientation.

    Returns
    -------
    nibabel.Nifti1Image
        float32; with ``nearest`` and ``label``, integers have the data type of the image if it is
        an integer type, else int32, or float64 for larger ones and for values that float32 does
        not represent.

    Raises
    ------
    InputError
        If a file cannot be read, is not a transform, or an image is unsuitable.

    Warns
    -----
    UserWarning
        If the result is empty, labels are interpolated linearly, or a field cannot be inverted
        accurately.
    """
    if interpolation not in INTERPOLATIONS:
        raise InputError(
            f"There is no interpolation {interpolation!r}. Choose one of "
            f"{', '.join(INTERPOLATIONS)}."
        )
    moving = resolve_image(moving)
    reference = None if reference is None else resolve_image(reference)
    source, name = nifti.open_source(moving, "moving image")
    fixed = None if reference is None else nifti.read_grid(reference, "reference image")
    grid = _with_spacing(fixed or nifti.read_grid(moving, "moving image"), spacing)
    own_grid = nifti.grid_of(source) if len(source.shape) > 2 else None
    chain = read_transforms(transforms, ImageGrids(fixed, own_grid))
    warn_of_orientation(moving, reference)
    series = open_series(moving, "moving image")
    parts = few_volumes(moving, series, grid, interpolation)
    first = next(parts)
    if interpolation not in LABEL_INTERPOLATIONS and is_label_image(first[..., 0]):
        warnings.warn(
            f"The image looks like a label image, whose values {interpolation} interpolation "
            "mixes. Use --interpolation label (in Python interpolation='label').",
            stacklevel=2,
        )
    found = [
        resample_values(
            part,
            source.affine,
            grid,
            chain,
            interpolation,
            default_value,
            name,
            source.get_data_dtype(),
        )
        for part in itertools.chain([first], parts)
    ]
    values = np.concatenate(found, axis=3)
    described = "moving image" if reference is None else "reference"
    if (values == values.dtype.type(default_value)).all():
        warnings.warn(
            f"The result is empty: the image lies outside the grid of the {described} after this "
            "transform. Check that the image, the reference and the transforms belong together.",
            stacklevel=2,
        )
    codes = space_codes(moving if reference is None else reference)
    return series_like(series, values, grid, codes)


def _with_spacing(grid: Grid, spacing: float | Sequence[float] | None) -> Grid:
    """Return a grid with other voxel sizes."""
    if spacing is None:
        return grid
    sizes = np.asarray(spacing, dtype=float)
    valid = np.isfinite(sizes) & (sizes >= MIN_SPACING_MM) & (sizes <= MAX_SPACING_MM)
    if sizes.shape not in ((), (1,), (3,)) or not valid.all():
        raise InputError(
            f"The voxel size must be one number or three, from {MIN_SPACING_MM:g} to "
            f"{MAX_SPACING_MM:g} mm, not {spacing}."
        )
    changed = grid.with_spacing(np.broadcast_to(sizes, (3,)).tolist())
    check_memory(math.prod(changed.shape), "The result")
    return changed


def jacobian(
    transforms: Sequence[TransformLike] | TransformLike,
    reference: ImageLike,
    *,
    log: bool = False,
    nonlinear: bool = False,
    geometric: bool = False,
) -> nib.Nifti1Image:
    """Compute the Jacobian determinant of transforms in each voxel.

    Parameters
    ----------
    transforms : transform, or sequence of them
        As for `apply`.
    reference : path or nibabel image
        Image that defines the grid, in the space of the reference.
    log : bool
        Return the logarithm: 0 where volumes are equal, negative where the volume in the
        reference is larger than in the image.
    nonlinear : bool
        Leave out the volume change of linear transforms, which is the same everywhere: it remains
        that of displacement fields. Rotations and translations change no volume.
    geometric : bool
        Compute the volume of each deformed voxel instead of central differences. The sum over a
        region is its volume in the image, also where the deformation is rough.

    Returns
    -------
    nibabel.Nifti1Image
        Jacobian determinant, which is not positive in folded voxels; or its logarithm, which is
        log(0.001) in folded voxels.

    Raises
    ------
    InputError
        If a file cannot be read, or is not a transform.

    Warns
    -----
    UserWarning
        If the logarithm of a folded transform is computed, or a field cannot be inverted
        accurately.
    """
    given, reference = list_transforms(transforms), resolve_image(reference)
    grid = nifti.read_grid(reference, "reference image")
    chain = read_transforms(given, ImageGrids(fixed=grid))
    warn_of_orientation(reference)
    values = chain.jacobian(grid, geometric)
    if nonlinear:
        linear = [np.linalg.det(one.matrix) for one in chain.steps if isinstance(one, Affine)]
        values = values / math.prod(linear)
    folded = int((values <= 0).sum())
    if log and folded:
        warnings.warn(
            f"The transform folds in {folded} of {values.numel()} voxels, where the determinant "
            f"is not positive. They are set to the logarithm of {MIN_JACOBIAN:g}.",
            stacklevel=2,
        )
    values = values.clamp(min=MIN_JACOBIAN).log() if log else values
    return image.to_nifti(Image(values, grid), space=space_codes(reference))


@overload
def map_points(
    points: pd.DataFrame, transforms: Sequence[TransformLike] | TransformLike
) -> pd.DataFrame: ...


@overload
def map_points(  # type: ignore[overload-cannot-match]  # without stubs of pandas
    points: npt.ArrayLike, transforms: Sequence[TransformLike] | TransformLike
) -> np.ndarray: ...


def map_points(
    points: npt.ArrayLike | pd.DataFrame, transforms: Sequence[TransformLike] | TransformLike
) -> np.ndarray | pd.DataFrame:
    """Map points through transforms.

    Parameters
    ----------
    points : array_like (n, 3) or pandas.DataFrame
        Points in the space of the reference, RAS+ mm; those of a table are in its columns x, y
        and z.
    transforms : transform, or sequence of them
        As for `apply`.

    Returns
    -------
    ndarray (n, 3) or pandas.DataFrame
        Points in the space of the image that `apply` would resample, RAS+ mm; the table with
        these in x, y and z, and its other columns. As in antsApplyTransformsToPoints, points are
        mapped in the direction opposite to images.

    Raises
    ------
    InputError
        If the points are not finite numbers, a column is missing, or a file is not a transform.
    """
    import pandas as pd

    if isinstance(points, pd.DataFrame):
        if missing := [axis for axis in AXES if axis not in points.columns]:
            raise InputError(
                f"The table of points has no column {missing[0]}. Name the columns of the "
                "coordinates x, y and z (RAS+ mm)."
            )
        mapped = map_points(points[list(AXES)].to_numpy(), transforms)
        return points.assign(**dict(zip(AXES, mapped.T, strict=True)))
    try:
        array = np.asarray(points)
        given = array.astype(np.float64) if array.dtype.kind in "iufO" else None
    except (TypeError, ValueError):
        given = None
    if given is None or given.shape[-1:] != (3,) or not np.isfinite(given).all():
        raise InputError("Points must be an array (n, 3) of finite x, y and z in RAS+ mm.")
    return read_transforms(transforms).map(torch.from_numpy(given)).numpy()


def convert(
    transforms: Sequence[TransformLike] | TransformLike,
    output: str | os.PathLike[str],
    to: str,
    *,
    source_format: str | None = None,
    reference: ImageLike | None = None,
    moving: ImageLike | None = None,
) -> list[Path]:
    """Convert transforms, composed as by `apply`, to the format of other software.

    Parameters
    ----------
    transforms : transform, or sequence of them
        As for `apply`.
    output : path
        File to write; its ending decides between a linear transform and a displacement field. For
        ANTs, the prefix of its files.
    to, source_format : {"itk", "ants", "fsl", "freesurfer", "afni", "x5"}
        Format to write, and that of `transforms`, which is detected by default.
    reference, moving : path or nibabel image, optional
        Fixed and moving image of the result, on whose grids FSL, AFNI and FreeSurfer depend. A
        displacement field is written on the grid of the fixed image, by default on its own.

    Returns
    -------
    list of Path
        The written files.

    Raises
    ------
    InputError
        If a file cannot be read, or the format needs an image that is not given.
    """
    for name in {to, source_format} - {None}:
        if name not in table.FORMATS:
            raise InputError(f"There is no format {name!r}. Choose {', '.join(table.FORMATS)}.")
    images = {"reference": reference, "moving": moving}
    grids = ImageGrids(
        *(
            None if one is None else nifti.read_grid(resolve_image(one), f"{role} image")
            for role, one in images.items()
        )
    )
    chain = read_transforms(transforms, grids, source_format)
    return table.write(output, chain, to, grids)
