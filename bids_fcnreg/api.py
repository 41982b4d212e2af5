"""Registration as Python functions: images are files or nibabel's, transforms are ITK files.

>>> import bids_fcnreg as fr
>>> result = fr.register(template, scan, mode="predict")
>>> result.warped.shape == template.shape
True
>>> _ = result.save(folder / "scan_to_template_")
>>> again = fr.apply(scan, template, [folder / "scan_to_template_xfm.h5"])
>>> float(abs(again.get_fdata() - result.warped.get_fdata()).max()) < 0.1
True
>>> growth = fr.jacobian([folder / "scan_to_template_xfm.h5"], template)
>>> growth.shape == template.shape
True
>>> there = fr.map_points([[0, 0, 0]], [folder / "scan_to_template_xfm.h5"])
>>> back = fr.map_points(there, [(folder / "scan_to_template_xfm.h5", True)])
>>> bool(abs(back).max() < 0.1)
True
"""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from bids_fcnreg.atomic import replacing_files
from bids_fcnreg.bids.templates import BUILTIN, nilearn_map
from bids_fcnreg.config import INTERPOLATIONS
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import shown
from bids_fcnreg.fcn.register import register as register_images
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import FOLDED, Transform
from bids_fcnreg.io import image, itk
from bids_fcnreg.io.orientation import SCANNER, Codes, codes_of, describe_doubt, set_codes
from bids_fcnreg.io.resampling import resample_values
from bids_fcnreg.io.series import open_series, volumes
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.io.transform_chain import TransformLike, read_stack
from bids_fcnreg.preprocessing.brain import fits_a_brain, holds_labels
from bids_fcnreg.qc.verdict import judge

#: What is taken as an image: a file, or nibabel's.
ImageLike = image.Source

#: Volumes of a series that are resampled together: where they come from is computed once.
VOLUMES_AT_ONCE = 8


@dataclass(frozen=True, eq=False, repr=False)
class Registered:
    """A registered pair.

    Attributes
    ----------
    fixed, moving : Image (1, 1, i, j, k)
        The images.
    forward, inverse : Transform
        Points of the fixed space to the moving one, which resamples the moving image onto the
        fixed one; and back. RAS+ mm.
    quality : dict
        Quality metrics by name, and what they say (``verdict``: good, doubtful, failed or
        unknown), by bounds fitted on T1w brains registered to the built-in template.
    codes : int or (int, int)
        NIfTI codes of the space of the fixed image, which the warped image has, too.
    """

    fixed: Image
    moving: Image
    forward: Transform
    inverse: Transform
    quality: dict[str, Any]
    codes: Codes = SCANNER

    def __repr__(self) -> str:
        shape, similarity = self.fixed.grid.shape, self.quality["similarity"]
        verdict = self.quality["verdict"]
        return f"Registered(onto {shape}, similarity={similarity:.3f}, verdict={verdict!r})"

    @property
    def warped(self) -> nib.Nifti1Image:
        """The moving image on the grid of the fixed one."""
        resampled = self.forward.resample(self.moving, self.fixed.grid)
        return image.to_nifti(resampled, space=self.codes)

    def save(self, prefix: str | os.PathLike) -> list[Path]:
        """Write ``PREFIXwarped.nii.gz``, ``PREFIXxfm.h5`` and ``PREFIXinverse_xfm.h5``.

        Returns
        -------
        list of Path
            The three files; other tools that read ITK's transforms read these. All of them
            appear, or, if one cannot be written, none.
        """
        folder, start = os.path.split(os.fspath(prefix))
        with replacing_files(folder or ".") as new:
            grid = self.fixed.grid
            made = [
                image.write(new / f"{start}warped.nii.gz", self.warped),
                itk.write_transform(new / f"{start}xfm.h5", self.forward, over=grid),
                itk.write_transform(new / f"{start}inverse_xfm.h5", self.inverse, over=grid),
            ]
        return [Path(folder) / path.name for path in made]


def register(
    fixed: ImageLike,
    moving: ImageLike,
    *,
    mode: str = "refine",
    network: str = "diffeomorphic",
    model: str | os.PathLike | None = None,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Registered:
    """Register a moving image to a fixed one.

    Parameters
    ----------
    fixed, moving : path or nibabel image
        Brains without skull; any orientation, voxel size and intensity. The name
        ``MNI152NLin2009aSym`` stands for the built-in template.
    mode : {"refine", "predict", "optimize"}
        What a trained network predicts, improved for this pair; one pass of the network alone; or
        a new network trained on this pair.
    network : {"diffeomorphic", "2017"}
        Which network; that of `model`, if there is one.
    model : path, optional
        Weights made by ``fcnreg train``; by default those of the package.
    fixed_mask, moving_mask : path or nibabel image, optional
        Brain masks; by default estimated from the skull-stripped images.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    seed : int
        Of everything random.

    Returns
    -------
    Registered

    Raises
    ------
    InputError
        If a file cannot be read, an image has no contrast or, without a mask, shows more than a
        brain, or a word is none of those above.
    """
    given = {"fixed": fixed, "moving": moving}
    masks = {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
    images = {name: _image(one, f"{name} image") for name, one in given.items()}
    images |= {
        name: _image(one, name.replace("_", " ")) for name, one in masks.items() if one is not None
    }
    _warn_of_orientation(*given.values(), fixed_mask, moving_mask)
    for name, mask in (("fixed", fixed_mask), ("moving", moving_mask)):
        if mask is None:
            _refuse_head(name, given[name], images[name])
        if holds_labels(images[name].data[0, 0].numpy()):
            warnings.warn(
                f"The {name} image looks like labels: register the images that they are of, and "
                "take the labels through the transform.",
                stacklevel=2,
            )
    found = register_images(
        images["fixed"],
        images["moving"],
        fixed_mask=images.get("fixed_mask"),
        moving_mask=images.get("moving_mask"),
        mode=mode,
        network=network,
        model=None if model is None else Path(model),
        device=device,
        seed=seed,
    )
    quality = found.quality.as_dict()
    quality |= judge(quality, "the fixed image").as_dict()
    transforms = found.forward, found.inverse
    return Registered(images["fixed"], images["moving"], *transforms, quality, _codes(fixed))


def apply(
    moving: ImageLike,
    reference: ImageLike,
    transforms: Sequence[TransformLike],
    *,
    interpolation: str = "linear",
    default_value: float = 0.0,
) -> nib.Nifti1Image:
    """Resample an image, or each volume of a series, through transforms, interpolated once.

    Parameters
    ----------
    moving : path or nibabel image (i, j, k) or (i, j, k, n)
        Image to resample.
    reference : path or nibabel image
        Gives the grid; what its voxels hold does not matter. A series gives that of a volume.
    transforms : sequence of path, or path
        ITK transforms and displacement fields as a stack, as in antsApplyTransforms: the first
        listed moves the points of the reference first, the last listed reaches the image.
        ``(path, True)`` is the inverse, ``"identity"`` moves nothing.
    interpolation : {"linear", "nearest", "label"}
        The latter two for label images.
    default_value : float
        Value outside the image.

    Returns
    -------
    nibabel.Nifti1Image
        float32; int32 if values that are whole numbers are not mixed.

    Raises
    ------
    InputError
        If a file cannot be read, holds no transform, or an image cannot be used.

    Warns
    -----
    UserWarning
        If the result is empty, labels are interpolated linearly, or a field cannot be inverted
        accurately.
    """
    if interpolation not in INTERPOLATIONS:
        raise InputError(
            f"There is no interpolation {interpolation!r}: choose {', '.join(INTERPOLATIONS)}."
        )
    source, name = image.opened(_resolve_name(moving), "moving image")
    grid, chain = (
        image.read_grid(_resolve_name(reference), "reference image"),
        read_stack(transforms),
    )
    _warn_of_orientation(moving, reference)
    series = open_series(_resolve_name(moving), "moving image")
    parts = _parts(moving, series, grid, interpolation)
    first = next(parts)
    if interpolation == "linear" and holds_labels(first[..., 0]):
        warnings.warn(
            "The image looks like labels, and linear interpolation mixes their values: give "
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
            "Nothing of the image lies on the grid of the reference after this transform, so "
            "that the result is empty: were they made for each other?",
            stacklevel=2,
        )
    return _nifti(values, grid, _codes(reference), series)


def _parts(
    moving: ImageLike,
    series: nib.spatialimages.SpatialImage | None,
    grid: Grid,
    interpolation: str,
) -> Iterator[np.ndarray]:
    """Values (i, j, k, n) of an image, or of a few volumes of a series at a time."""
    dtype = "float32" if interpolation == "linear" else "float64"  # labels may be large
    if series is None:
        whole = image.load(_resolve_name(moving), dtype, "moving image")
        yield np.asarray(whole.dataobj)[..., None]
        return
    name = series.get_filename() or "The moving image"
    image.check_memory(series.shape[3] * math.prod(grid.shape), name)
    yield from volumes(series, 1 if interpolation == "label" else VOLUMES_AT_ONCE, dtype)


def _nifti(
    values: np.ndarray,
    grid: Grid,
    codes: Codes,
    series: nib.spatialimages.SpatialImage | None,
) -> nib.Nifti1Image:
    """Values (i, j, k, n) on a grid; with the time unit and step of a series."""
    made = nib.Nifti1Image(values[..., 0] if series is None else values, grid.affine)
    set_codes(made, codes)
    if isinstance(series, nib.Nifti1Pair):
        made.header.set_xyzt_units("mm", series.header.get_xyzt_units()[1])
        made.header["pixdim"][4] = series.header["pixdim"][4]
    return made


def jacobian(
    transforms: Sequence[TransformLike], reference: ImageLike, *, log: bool = False
) -> nib.Nifti1Image:
    """How much transforms change the volume of each voxel.

    Parameters
    ----------
    transforms : sequence of path
        As for `apply`.
    reference : path or nibabel image
        Gives the grid, in the space the transforms start from.
    log : bool
        The logarithm: 0 where nothing changes, negative where the reference's volume is larger
        than the image's.

    Returns
    -------
    nibabel.Nifti1Image
        Jacobian determinant, not positive where the transform folds; or its logarithm, which is
        there that of 0.001.

    Raises
    ------
    InputError
        If a file cannot be read, or holds no transform.

    Warns
    -----
    UserWarning
        If the logarithm is wanted of a transform that folds, or a field cannot be inverted
        accurately.
    """
    chain, grid = (
        read_stack(transforms),
        image.read_grid(_resolve_name(reference), "reference image"),
    )
    _warn_of_orientation(reference)
    values = chain.jacobian(grid)
    folded = int((values <= 0).sum())
    if log and folded:
        warnings.warn(
            f"The transform folds at {folded} of {values.numel()} voxels, where the determinant "
            f"is not positive and has no logarithm: they have that of {FOLDED:g}.",
            stacklevel=2,
        )
    values = values.clamp(min=FOLDED).log() if log else values
    return image.to_nifti(Image(values, grid), space=_codes(reference))


def map_points(points: np.ndarray, transforms: Sequence[TransformLike]) -> np.ndarray:
    """Take points to where transforms take them.

    Parameters
    ----------
    points : ndarray (n, 3)
        In the space of the reference, RAS+ mm.
    transforms : sequence of path
        As for `apply`.

    Returns
    -------
    ndarray (n, 3)
        In the space of the image that `apply` would resample, RAS+ mm: as in
        antsApplyTransformsToPoints, points go the other way than images.
    """
    try:
        array = np.asarray(points)
        given = array.astype(np.float64) if array.dtype.kind in "iufO" else None
    except (TypeError, ValueError):
        given = None
    if given is None or given.shape[-1:] != (3,) or not np.isfinite(given).all():
        raise InputError("Points are an array (n, 3) of finite numbers: x, y and z in RAS+ mm.")
    return read_stack(transforms).map(torch.from_numpy(given)).numpy()


def image_path(given: str | os.PathLike) -> Path:
    """File of an image; the name of the built-in template stands for its image."""
    return nilearn_map("t1") if os.fspath(given) == BUILTIN else Path(given)


def _refuse_head(name: str, given: ImageLike, shown_image: Image) -> None:
    """Refuse an image without mask that shows more than a brain."""
    seen = shown(shown_image.data[0, 0].numpy())
    if not fits_a_brain(seen, shown_image.grid.affine):
        litres = float(seen.sum() * np.prod(shown_image.grid.spacing)) / 1e6
        file = f" {given}" if isinstance(given, str | os.PathLike) else ""
        raise InputError(
            f"The {name} image{file} shows more than a brain ({litres:.1f} litres that are not "
            f"background): give its brain mask with --{name}-mask (in Python {name}_mask), or an "
            "image without skull."
        )


def _image(given: ImageLike, role: str = "image") -> Image:
    """Read an image of a registration; files and images in memory pass the same checks."""
    return image.read(_resolve_name(given), role)


def _codes(given: ImageLike) -> tuple[int, int]:
    """Space codes of a file or an image."""
    if isinstance(given, nib.spatialimages.SpatialImage):
        return codes_of(given)
    return codes_of(open_image(image_path(given)))


def _warn_of_orientation(*given: ImageLike | None) -> None:
    """Warn of images whose orientation is in doubt."""
    for one in given:
        if one is None:
            continue
        if isinstance(one, nib.spatialimages.SpatialImage):
            doubt = describe_doubt(one, one.get_filename() or "The image")
        else:
            doubt = image.doubt_about_place(image_path(one))
        if doubt:
            warnings.warn(doubt, stacklevel=3)


def _resolve_name(given: ImageLike) -> ImageLike:
    """The same with the file of the built-in template in place of its name."""
    return image_path(given) if isinstance(given, str | os.PathLike) else given
