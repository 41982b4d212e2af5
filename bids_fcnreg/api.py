"""Registration as Python functions: images are files or nibabel's, transforms are files.

>>> import bids_fcnreg as fr
>>> result = fr.register(template, scan, mode="predict")
>>> result.warped.shape == template.shape
True
>>> _ = result.save(directory / "scan_to_template_")
>>> again = fr.apply(scan, template, [directory / "scan_to_template_xfm.h5"])
>>> float(abs(again.get_fdata() - result.warped.get_fdata()).max()) < 0.5
True
>>> growth = fr.jacobian([directory / "scan_to_template_xfm.h5"], template)
>>> growth.shape == template.shape
True
>>> there = fr.map_points([[0, 0, 0]], [directory / "scan_to_template_xfm.h5"])
>>> back = fr.map_points(there, [(directory / "scan_to_template_xfm.h5", True)])
>>> bool(abs(back).max() < 0.1)
True
"""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from bids_fcnreg.atomic import replacing_files
from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.config import INTERPOLATIONS
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.parallel import for_both
from bids_fcnreg.fcn.register import register as register_images
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import MIN_JACOBIAN, Transform
from bids_fcnreg.io import image, itk, nifti
from bids_fcnreg.io.formats import table
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.orientation import (
    SCANNER,
    Codes,
    codes_of,
    describe_orientation_problem,
)
from bids_fcnreg.io.resampling import resample_values
from bids_fcnreg.io.series import few_volumes, open_series, series_like
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.io.transform_chain import TransformLike, list_transforms, read_transforms
from bids_fcnreg.preprocessing.brain import is_label_image
from bids_fcnreg.preprocessing.contrast import WHICH, registration_input
from bids_fcnreg.qc.verdict import judge

#: An image: a file, or an image of nibabel.
ImageLike = nifti.ImageSource


@dataclass(frozen=True, eq=False, repr=False)
class Registered:
    """A registered pair.

    Attributes
    ----------
    fixed, moving : Image (1, 1, i, j, k)
        Fixed and moving image.
    forward, inverse : Transform
        Maps of points of the fixed space to the moving space (which resamples the moving image
        onto the fixed grid), and back. RAS+ mm.
    quality : dict
        Quality metrics by name, and the ``verdict`` (good, doubtful, failed or unknown), by
        bounds fitted on T1w brains registered to ``MNI152NLin2009aSym``. ``t1w_like`` lists the
        images ("fixed", "moving") that a T1w-like image replaced; metrics are those of the
        T1w-like images.
    codes : int or (int, int)
        NIfTI space codes of the fixed image, which are also those of the warped image.
    fixed_mask : Image or None
        Brain mask of the fixed image; None if it was estimated from a skull-stripped image.
    t1w_like : dict of str to Image
        The T1w-like images that replaced images for the registration, by "fixed" and "moving".
    """

    fixed: Image
    moving: Image
    forward: Transform
    inverse: Transform
    quality: dict[str, Any]
    codes: Codes = SCANNER
    fixed_mask: Image | None = None
    t1w_like: dict[str, Image] = field(default_factory=dict)

    def __repr__(self) -> str:
        shape, similarity = self.fixed.grid.shape, self.quality["similarity"]
        verdict = self.quality["verdict"]
        return f"Registered(onto {shape}, similarity={similarity:.3f}, verdict={verdict!r})"

    @property
    def warped(self) -> nib.Nifti1Image:
        """Moving image resampled onto the grid of the fixed image."""
        resampled = self.forward.resample(self.moving, self.fixed.grid)
        return image.to_nifti(resampled, space=self.codes)

    def save(self, prefix: str | os.PathLike[str]) -> list[Path]:
        """Write ``PREFIXwarped.nii.gz``, ``PREFIXxfm.h5`` and ``PREFIXinverse_xfm.h5``.

        Returns
        -------
        list of Path
            The three files; the transforms are in ITK's format. If one cannot be written, none
            is.
        """
        directory, start = os.path.split(os.fspath(prefix))
        with replacing_files(directory or ".") as new:
            grid = self.fixed.grid
            made = [
                nifti.write(new / f"{start}warped.nii.gz", self.warped),
                itk.write_transform(new / f"{start}xfm.h5", self.forward, over=grid),
                itk.write_transform(new / f"{start}inverse_xfm.h5", self.inverse, over=grid),
            ]
        return [Path(directory) / path.name for path in made]


def register(
    fixed: ImageLike,
    moving: ImageLike,
    *,
    mode: str = "refine",
    network: str = "diffeomorphic",
    model: str | os.PathLike[str] | None = None,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    fixed_contrast: str = "auto",
    moving_contrast: str = "auto",
    device: str = "auto",
    seed: int = 0,
) -> Registered:
    """Register a moving image to a fixed one.

    Parameters
    ----------
    fixed, moving : path or nibabel image
        Skull-stripped T1w images, or heads or brains of other contrasts, of any orientation,
        voxel size and intensity. ``MNI152NLin2009aSym`` and ``MNI152NLin2009cAsym`` are the names
        of the built-in templates.
    mode : {"refine", "predict", "optimize"}
        ``refine``: prediction of a trained network, refined for this pair; ``predict``: one pass
        of the network; ``optimize``: a new network trained on this pair.
    network : {"diffeomorphic", "2017"}
        Network; ignored if `model` is given.
    model : path, optional
        Weights made by ``fcnreg train``; by default those of the package.
    fixed_mask, moving_mask : path or nibabel image, optional
        Brain masks; by default estimated from skull-stripped T1w images, segmented in others.
    fixed_contrast, moving_contrast : {"auto", "T1w", "other"}
        An image of another contrast is segmented, and replaced for the registration by an image
        with the intensities of a T1w brain. ``auto``: the BIDS suffix of its file name decides.
        Images without one are T1w, unless their intensities are those of T2w brains.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    seed : int
        Seed of all random numbers.

    Returns
    -------
    Registered

    Raises
    ------
    InputError
        If a file cannot be read, an image has no contrast or, without a mask, is not
        skull-stripped, or an option is invalid.
    """
    given = fixed, moving
    images = for_both(_image, given, ("fixed image", "moving image"))
    masks = [
        None if mask is None else _image(mask, f"{name} mask")
        for name, mask in (("fixed", fixed_mask), ("moving", moving_mask))
    ]
    _warn_of_orientation(*given, fixed_mask, moving_mask)
    start = time.perf_counter()
    inputs = {
        which: registration_input(which, one, mask, contrast, _file_name(source))
        for which, one, mask, contrast, source in zip(
            WHICH, images, masks, (fixed_contrast, moving_contrast), given, strict=True
        )
    }
    seconds = round(time.perf_counter() - start, 3)
    for which, one in zip(WHICH, images, strict=True):
        if is_label_image(one.data[0, 0].numpy()):
            warnings.warn(
                f"The {which} image looks like a label image. Register the corresponding "
                "intensity images, and apply the transform to the labels.",
                stacklevel=2,
            )
    found = register_images(
        inputs["fixed"].image,
        inputs["moving"].image,
        fixed_mask=inputs["fixed"].mask,
        moving_mask=inputs["moving"].mask,
        mode=mode,
        network=network,
        model=None if model is None else Path(model),
        device=device,
        seed=seed,
    )
    replaced = {str(which): one.image for which, one in inputs.items() if one.replaced}
    quality = found.quality.as_dict() | {"t1w_like": list(replaced)}
    if replaced:
        quality["seconds"] = {"segment": seconds, **found.quality.seconds}
    quality |= judge(quality, "the fixed image").as_dict()
    return Registered(
        images[0],
        images[1],
        found.forward,
        found.inverse,
        quality,
        _codes(fixed),
        inputs["fixed"].mask,
        replaced,
    )


def apply(
    moving: ImageLike,
    reference: ImageLike,
    transforms: Sequence[TransformLike],
    *,
    interpolation: str = "linear",
    default_value: float = 0.0,
) -> nib.Nifti1Image:
    """Resample an image, or each volume of a series, through transforms, with one interpolation.

    Parameters
    ----------
    moving : path or nibabel image (i, j, k) or (i, j, k, n)
        Image to resample.
    reference : path or nibabel image
        Image or series that defines the grid; its values are ignored.
    transforms : sequence of path, or path
        Transforms of any format of `convert` as a stack, as in antsApplyTransforms: the first
        one maps points of the reference first, the last one maps them to the image.
        ``(path, True)`` is the inverse, ``"identity"`` the identity transform.
    interpolation : {"linear", "nearest", "label"}
        ``nearest`` and ``label`` are for label images.
    default_value : float
        Value outside the image.

    Returns
    -------
    nibabel.Nifti1Image
        float32; int32 for whole numbers that are not interpolated linearly.

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
    source, name = nifti.open_source(_resolve_name(moving), "moving image")
    grid = nifti.read_grid(_resolve_name(reference), "reference image")
    own_grid = nifti.grid_of(source) if len(source.shape) > 2 else None
    chain = read_transforms(transforms, ImageGrids(grid, own_grid))
    _warn_of_orientation(moving, reference)
    series = open_series(_resolve_name(moving), "moving image")
    parts = few_volumes(_resolve_name(moving), series, grid, interpolation)
    first = next(parts)
    if interpolation == "linear" and is_label_image(first[..., 0]):
        warnings.warn(
            "The image looks like a label image, whose values linear interpolation mixes. Use "
            "--interpolation label (in Python interpolation='label').",
            stacklevel=2,
        )
    found = [
        resample_values(part, source.affine, grid, chain, interpolation, default_value, name)
        for part in itertools.chain([first], parts)
    ]
    values = np.concatenate(found, axis=3)
    if (values == values.dtype.type(default_value)).all():
        warnings.warn(
            "The result is empty: the image lies outside the grid of the reference after this "
            "transform. Check that the image, the reference and the transforms belong together.",
            stacklevel=2,
        )
    return series_like(series, values, grid, _codes(reference))


def jacobian(
    transforms: Sequence[TransformLike], reference: ImageLike, *, log: bool = False
) -> nib.Nifti1Image:
    """Compute the Jacobian determinant of transforms in each voxel.

    Parameters
    ----------
    transforms : sequence of path
        As for `apply`.
    reference : path or nibabel image
        Image that defines the grid, in the space of the reference.
    log : bool
        Return the logarithm: 0 where volumes are equal, negative where the volume in the
        reference is larger than in the image.

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
    given = list_transforms(transforms)
    grid = nifti.read_grid(_resolve_name(reference), "reference image")
    chain = read_transforms(given, ImageGrids(fixed=grid))
    _warn_of_orientation(reference)
    values = chain.jacobian(grid)
    folded = int((values <= 0).sum())
    if log and folded:
        warnings.warn(
            f"The transform folds in {folded} of {values.numel()} voxels, where the determinant "
            f"is not positive. They are set to the logarithm of {MIN_JACOBIAN:g}.",
            stacklevel=2,
        )
    values = values.clamp(min=MIN_JACOBIAN).log() if log else values
    return image.to_nifti(Image(values, grid), space=_codes(reference))


def map_points(points: np.ndarray, transforms: Sequence[TransformLike]) -> np.ndarray:
    """Map points through transforms.

    Parameters
    ----------
    points : ndarray (n, 3)
        Points in the space of the reference, RAS+ mm.
    transforms : sequence of path
        As for `apply`.

    Returns
    -------
    ndarray (n, 3)
        Points in the space of the image that `apply` would resample, RAS+ mm. As in
        antsApplyTransformsToPoints, points are mapped in the direction opposite to images.
    """
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
    transforms : sequence of path, or path
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
            None if one is None else nifti.read_grid(_resolve_name(one), f"{role} image")
            for role, one in images.items()
        )
    )
    chain = read_transforms(transforms, grids, source_format)
    return table.write(output, chain, to, grids)


def image_path(given: str | os.PathLike[str]) -> Path:
    """Return the file of an image, which may be the name of a built-in template."""
    files = BUILTIN_FILES.get(os.fspath(given))
    return files.path("t1") if files else Path(given)


def _image(given: ImageLike, role: str = "image") -> Image:
    """Read and check an image of a registration, from a file or in memory."""
    return image.read(_resolve_name(given), role)


def _file_name(given: ImageLike) -> str:
    """Return the file of an image, empty for an image in memory."""
    if isinstance(given, nib.spatialimages.SpatialImage):
        return given.get_filename() or ""
    return os.fspath(given)


def _codes(given: ImageLike) -> tuple[int, int]:
    """Return the NIfTI space codes of a file or an image."""
    if isinstance(given, nib.spatialimages.SpatialImage):
        return codes_of(given)
    return codes_of(open_image(image_path(given)))


def _warn_of_orientation(*given: ImageLike | None) -> None:
    """Warn of images whose orientation is doubtful."""
    for one in given:
        if one is None:
            continue
        if isinstance(one, nib.spatialimages.SpatialImage):
            doubt = describe_orientation_problem(one, one.get_filename() or "The image")
        else:
            doubt = nifti.orientation_warning(image_path(one))
        if doubt:
            warnings.warn(doubt, stacklevel=3)


def _resolve_name(given: ImageLike) -> ImageLike:
    """Replace the name of a built-in template by its file."""
    return image_path(given) if isinstance(given, str | os.PathLike) else given
