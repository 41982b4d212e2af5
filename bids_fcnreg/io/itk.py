"""Transforms in ITK's files: composite .h5 written, any affine and displacement read.

ITK counts in LPS+ millimetres and applies the last transform of a composite first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import SimpleITK as sitk
import torch
from scipy.io import whosmat

from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform, extended
from bids_fcnreg.io.itk_field import is_field, read_field
from bids_fcnreg.resources import available_memory_gb

#: Displacements are rounded to this many mm: it makes files small, and is far below any accuracy.
ROUNDING = 2.0**-10

#: Displacements beyond it are damage.
FARTHEST_MM = 1e6

#: Bytes of a text file with transforms at most.
MOST_TEXT = 2**24

#: Determinant of a linear transform below which it has no inverse.
LEAST_VOLUME = 1e-6

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # between RAS+ and LPS+, either way


def write_transform(
    path: str | os.PathLike, transform: Transform, over: Grid | None = None
) -> Path:
    """Write a transform as ITK composite.

    Displacements are rounded to 2^-10 mm and stored compressed in single precision, which ITK
    reads like its own. One on a sheared grid is stored on a straight one, between the affines
    that lead there and back: it maps the same points to the same places.

    Parameters
    ----------
    path : path
        Ends in ``.h5``. The file appears whole or not at all.
    transform : Transform
        Maps points of the fixed space to the moving space.
    over : Grid, optional
        Of the fixed image: displacements are stored on voxels that reach over all of it, as
        nitransforms and fMRIPrep need them; see `extended`.

    Returns
    -------
    pathlib.Path

    Examples
    --------
    >>> import tempfile
    >>> shift = np.eye(4)
    >>> shift[:3, 3] = [1.0, 2.0, 3.0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_transform(Path(folder) / "shift.h5", Transform((Affine(shift),)))
    ...     sitk.ReadTransform(str(path)).TransformPoint((0.0, 0.0, 0.0))  # ITK is LPS+
    (-1.0, -2.0, 3.0)
    """
    # In memory: HDF5 ends the process when it cannot write what it has begun, as on a full disk.
    with h5py.File(os.fspath(path), "w", driver="core", backing_store=False) as file:
        file["ITKVersion"] = _text(sitk.Version.ITKVersionString())
        file["HDFVersion"] = _text(h5py.version.hdf5_version)
        group = file.create_group("TransformGroup")
        group.create_group("0")["TransformType"] = _text("CompositeTransform_double_3_3")
        for number, step in enumerate(reversed(_storable(transform, over)), start=1):
            part = group.create_group(str(number))
            if isinstance(step, Affine):
                _write_affine(part, step)
            else:
                _write_displacement(part, step)
        file.flush()
        payload = file.id.get_file_image()
    return write_bytes(path, payload)


def _storable(transform: Transform, over: Grid | None) -> list[Affine | Displacement]:
    """The steps of a transform, displacements on straight grids that reach over a grid."""
    steps: list[Affine | Displacement] = []
    for step in transform.steps:
        if isinstance(step, Displacement) and over is not None:
            step = extended(step, over)
        steps.extend(_straightened(step) if isinstance(step, Displacement) else [step])
    return steps


def _straightened(step: Displacement) -> list[Affine | Displacement]:
    """A displacement as it is, or if its grid is sheared, what does the same on a straight one."""
    grid = step.grid
    if grid.is_orthogonal:
        return [step]
    affine = grid.affine.copy()
    affine[:3, :3] = grid.straight_axes() * grid.spacing
    shear = grid.affine @ np.linalg.inv(affine)
    straight = Displacement(Grid(grid.shape, affine), step.field)
    return [Affine(np.linalg.inv(shear)), straight, Affine(shear)]


def _text(value: str) -> np.ndarray:
    """Text as ITK stores it: one string of variable length."""
    return np.array([value.encode()], dtype=h5py.string_dtype("ascii"))


def _write_affine(part: h5py.Group, step: Affine) -> None:
    matrix = _FLIP @ step.matrix @ _FLIP
    part["TransformType"] = _text("AffineTransform_double_3_3")
    part["TransformFixedParameters"] = np.zeros(3)
    part["TransformParameters"] = np.concatenate([matrix[:3, :3].ravel(), matrix[:3, 3]])


def _write_displacement(part: h5py.Group, step: Displacement) -> None:
    affine = _FLIP @ step.grid.affine
    spacing = step.grid.spacing
    direction = affine[:3, :3] / spacing
    to_mm = torch.as_tensor(affine[:3, :3], dtype=torch.float32)
    field = torch.einsum("wc,cijk->kjiw", to_mm, step.field[0])
    part["TransformType"] = _text("DisplacementFieldTransform_double_3_3")
    part["TransformFixedParameters"] = np.concatenate(
        [np.array(step.grid.shape, float), affine[:3, 3], spacing, direction.ravel()]
    )
    part.create_dataset(
        "TransformParameters",
        # Adding zero turns negative zeros into zeros, which compress better.
        data=(field / ROUNDING).round().mul(ROUNDING).add(0.0).numpy().ravel(),
        chunks=(min(field.numel(), 2**18),),
        shuffle=True,
        compression="gzip",
        compression_opts=4,
    )


def read_transform(path: str | os.PathLike) -> Transform:
    """Read a transform that ITK or ANTs can read.

    Parameters
    ----------
    path : path
        A file of transforms (.h5, .mat, .tfm, .txt): linear ones, displacement fields, and
        composites of them; or an image of displacements (.nii, .nii.gz, .nrrd, .mha, …).

    Returns
    -------
    Transform
        Maps points of the fixed space to the moving space.

    Raises
    ------
    InputError
        If the file is missing, is not an ITK transform, holds another kind of transform or what
        is no number, or claims more than fits into memory.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path.")
    if not path.is_file():
        raise InputError(f"{path} is not a file: give an ITK transform.")
    stored_as_image = is_field(path)
    try:
        with _quiet():
            if stored_as_image:
                steps: list[Affine | Displacement] = [_displacement(read_field(path), path)]
            else:
                _check_kinds(_kinds(path), path)
                steps = _steps(sitk.ReadTransform(str(path)), path)
    except InputError:
        raise
    except Exception as why:  # ITK, h5py, scipy and nibabel raise many kinds, and quote bytes
        raise InputError(_unreadable(path, stored_as_image)) from why
    return Transform(tuple(steps))


def _unreadable(path: Path, stored_as_image: bool) -> str:
    """What to do about a file that cannot be read."""
    if stored_as_image:
        return (
            f"{path} cannot be read as a displacement field: is it complete? Get or convert it "
            "again."
        )
    return (
        f"{path} cannot be read as an ITK transform: give a .h5, .mat, .tfm or .txt file, or a "
        "displacement field (.nii.gz), written by ITK, ANTs or this software."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal what ITK and its HDF5 say of a damaged file; we say it in a line."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _kinds(path: Path) -> list[str]:
    """What kinds of transforms a file says it holds, before ITK reads it."""
    if path.suffix in (".h5", ".hdf5", ".hdf"):
        with h5py.File(path, "r", locking=False) as file:
            parts = [file["TransformGroup"][str(n)] for n in range(len(file["TransformGroup"]))]
            _check_vectors(parts)
            _check_claims(parts, path)
            return [part["TransformType"].asstr()[0] for part in parts]
    if path.suffix == ".mat":
        return [name for name, _, _ in whosmat(path) if name != "fixed"]
    if path.stat().st_size > MOST_TEXT:
        raise ValueError("no linear transform is so long")
    text = path.read_text(encoding="utf-8", errors="replace")
    return re.findall(r"^\s*Transform:\s*(\S+)", text, re.MULTILINE)


def _check_kinds(kinds: list[str], path: Path) -> None:
    """Refuse what ITK would read in part, or would end at, and us with it."""
    if any("BSpline" in kind for kind in kinds):
        raise InputError(
            f"{path} holds a BSplineTransform: only linear transforms and displacement fields "
            "can be used."
        )
    if len(kinds) > 1 and not kinds[0].startswith("Composite"):
        raise InputError(
            f"{path} holds {len(kinds)} transforms that do not form a composite: put each into a "
            "file of its own."
        )


def _check_vectors(parts: list[h5py.Group]) -> None:
    """Raise a ValueError for parameters that are no lists of numbers: ITK would leave traces."""
    for part in parts:
        for name, node in part.items():
            if name.endswith("Parameters") and (node.shape is None or node.dtype.kind != "f"):
                raise ValueError(f"{name} are no numbers")


def _check_claims(parts: list[h5py.Group], path: Path) -> None:
    """Refuse what claims more than fits into memory: ITK would take it."""
    # ITK's copy, ours, and one in single precision.
    needed = 2.5 * sum(map(_claimed_bytes, parts)) / 1024**3
    if needed > (there := available_memory_gb()):
        raise InputError(
            f"{path} claims a transform that takes {needed:.0f} GB of memory, more than the "
            f"{there:.1f} GB there are: it is damaged, or was made on too fine a grid."
        )


def _claimed_bytes(part: h5py.Group) -> float:
    """Bytes that the parameters of a transform take, or those that its grid asks for."""
    parameters = part["TransformParameters"].size if "TransformParameters" in part else 0
    fixed = part.get("TransformFixedParameters")
    displaces = fixed is not None and fixed.size == 18  # size, origin, spacing and direction
    voxels = np.nan_to_num(np.prod(fixed[:3], dtype=float)) if displaces else 0.0
    return 8.0 * max(parameters, 3 * voxels)


def _check_values(values: np.ndarray, path: Path) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{path} holds infinite values or what is no number: make it again.")
    if np.abs(values).max(initial=0) > FARTHEST_MM:
        raise InputError(f"{path} moves points by more than a kilometre: make it again.")


def _steps(transform: sitk.Transform, path: Path) -> list[Affine | Displacement]:
    """Parts of an ITK transform in the order in which they act on a point."""
    if transform.GetDimension() != 3:
        raise InputError(f"{path} holds a transform of {transform.GetDimension()} axes: give 3.")
    if transform.IsLinear():
        return [_linear(transform, path)]
    kind = transform.GetTransformEnum()
    if kind == sitk.sitkComposite:
        composite = sitk.CompositeTransform(transform)
        count = composite.GetNumberOfTransforms()
        parts = [composite.GetNthTransform(n) for n in reversed(range(count))]
        return [step for part in parts for step in _steps(part, path)]
    if kind == sitk.sitkDisplacementField:
        return [
            _displacement(sitk.DisplacementFieldTransform(transform).GetDisplacementField(), path)
        ]
    raise InputError(
        f"{path} holds a {transform.GetName()}: only linear transforms and displacement fields "
        "can be used."
    )


def _linear(transform: sitk.Transform, path: Path) -> Affine:
    """A linear map is known from what it does to the origin and to the three unit vectors."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis, unit in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(transform.TransformPoint(unit.tolist())) - origin
    _check_values(matrix, path)
    if abs(np.linalg.det(matrix)) < LEAST_VOLUME:
        raise InputError(f"{path} holds a linear transform that is flat: make it again.")
    return Affine(_FLIP @ matrix @ _FLIP)


def _displacement(image: sitk.Image, path: Path) -> Displacement:
    """Displacement in voxels of its grid from one in LPS+ mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    values = sitk.GetArrayFromImage(image).astype(np.float32)
    for each in (affine, values):
        _check_values(each, path)
    in_mm = torch.from_numpy(values)
    to_voxels = torch.as_tensor(np.linalg.inv(affine[:3, :3]), dtype=torch.float32)
    field = torch.einsum("cw,kjiw->cijk", to_voxels, in_mm)
    return Displacement(Grid(image.GetSize(), _FLIP @ affine), field[None].contiguous())
