"""Read and write ITK transforms: composites (.h5), affines and displacement fields.

ITK uses LPS+ millimetres and applies the last transform of a composite first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import SimpleITK as sitk
import torch
from isal import isal_zlib
from scipy.io import whosmat

from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.parallel import parallel_map
from bids_fcnreg.fcn.spatial.coordinates import map_points
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform, pad_to_cover
from bids_fcnreg.io.itk_field import check_memory, is_field, read_field
from bids_fcnreg.io.memory_order import in_c_order, in_fortran_order
from bids_fcnreg.io.rounding import near_brain, round_displacements

#: About this number of values is compressed at a time.
CHUNK = 2**18

#: Larger displacements are rejected.
MAX_DISPLACEMENT_MM = 1e6

#: Largest text file of transforms.
MAX_TEXT_BYTES = 2**24

#: Linear transforms of a smaller determinant are singular.
MIN_DETERMINANT = 1e-6

#: Endings of transform files in HDF5.
H5_SUFFIXES = (".h5", ".hdf5", ".hdf")

#: Transforms that are read from HDF5 without ITK, in a third of the time.
PLAIN_TYPES = ("CompositeTransform", "AffineTransform", "DisplacementFieldTransform")

#: Names of parameters in HDF5, also as older versions of ITK misspelled them.
PARAMETERS = ("TransformParameters", "TranformParameters")
FIXED_PARAMETERS = ("TransformFixedParameters", "TranformFixedParameters")

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # between RAS+ and LPS+, either way


def write_transform(
    path: str | os.PathLike[str],
    transform: Transform,
    over: Grid | None = None,
    brain: Image | None = None,
) -> Path:
    """Write a transform as an ITK composite.

    Displacements are rounded (see `round_displacements`) and stored compressed in single
    precision, which ITK reads. A displacement on a sheared grid is stored on an orthogonal one
    between two affines, an equivalent mapping.

    Parameters
    ----------
    path : path
        Ends in ``.h5``. Written atomically.
    transform : Transform
        Maps points of the fixed space to the moving space.
    over : Grid, optional
        Grid of the fixed image, which the stored displacements cover, as required by nitransforms
        and fMRIPrep; see `pad_to_cover`.
    brain : Image (1, 1, i, j, k), optional
        Brain mask in the fixed space. Some millimetres away from it, where a registration
        of brains finds nothing, displacements are rounded more: files are smaller by a quarter.

    Returns
    -------
    pathlib.Path

    Examples
    --------
    >>> import tempfile
    >>> shift = np.eye(4)
    >>> shift[:3, 3] = [1.0, 2.0, 3.0]
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = write_transform(Path(directory) / "shift.h5", Transform((Affine(shift),)))
    ...     sitk.ReadTransform(str(path)).TransformPoint((0.0, 0.0, 0.0))  # ITK is LPS+
    (-1.0, -2.0, 3.0)
    """
    # In memory: HDF5 aborts the process if a write fails, as on a full disk.
    with h5py.File(os.fspath(path), "w", driver="core", backing_store=False) as file:
        file["ITKVersion"] = _text(sitk.Version.ITKVersionString())
        file["HDFVersion"] = _text(h5py.version.hdf5_version)
        group = file.create_group("TransformGroup")
        group.create_group("0")["TransformType"] = _text("CompositeTransform_double_3_3")
        steps = _storable_steps(transform, over)
        for number, step in enumerate(reversed(steps), start=1):
            part = group.create_group(str(number))
            if isinstance(step, Affine):
                _write_affine(part, step)
            else:
                before = steps[: len(steps) - number]
                _write_displacement(part, step, near_brain(brain, before, step.grid))
        file.flush()
        payload = file.id.get_file_image()
    return write_bytes(path, payload)


def _storable_steps(transform: Transform, over: Grid | None) -> list[Affine | Displacement]:
    """Return the steps of a transform, displacements on orthogonal grids that cover a grid."""
    steps: list[Affine | Displacement] = []
    for step in transform.steps:
        if isinstance(step, Displacement) and over is not None:
            step = pad_to_cover(step, over)
        steps.extend(_unsheared(step) if isinstance(step, Displacement) else [step])
    return steps


def _unsheared(step: Displacement) -> list[Affine | Displacement]:
    """Replace a displacement on a sheared grid by an equivalent one on an orthogonal grid."""
    grid = step.grid
    if grid.is_orthogonal:
        return [step]
    affine = grid.affine.copy()
    affine[:3, :3] = grid.straight_axes() * grid.spacing
    shear = grid.affine @ np.linalg.inv(affine)
    straight = Displacement(Grid(grid.shape, affine), step.field)
    return [Affine(np.linalg.inv(shear)), straight, Affine(shear)]


def _text(value: str) -> np.ndarray:
    """Convert a string to HDF5 as in ITK's files, of variable length."""
    return np.array([value.encode()], dtype=h5py.string_dtype("ascii"))


def _write_affine(part: h5py.Group, step: Affine) -> None:
    matrix = _FLIP @ step.matrix @ _FLIP
    part["TransformType"] = _text("AffineTransform_double_3_3")
    part["TransformFixedParameters"] = np.zeros(3)
    part["TransformParameters"] = np.concatenate([matrix[:3, :3].ravel(), matrix[:3, 3]])


def _write_displacement(part: h5py.Group, step: Displacement, near: np.ndarray | None) -> None:
    """Write a displacement, rounded more where it is not `near` (*step.grid.shape)."""
    i, j, k = step.grid.shape
    affine = _FLIP @ step.grid.affine
    spacing = step.grid.spacing
    direction = affine[:3, :3] / spacing
    part["TransformType"] = _text("DisplacementFieldTransform_double_3_3")
    part["TransformFixedParameters"] = np.concatenate(
        [np.array(step.grid.shape, float), affine[:3, 3], spacing, direction.ravel()]
    )
    planes = max(1, CHUNK // (3 * i * j))
    length = 3 * i * j * min(planes, k)
    dataset = part.create_dataset(
        "TransformParameters",
        shape=(3 * i * j * k,),
        dtype="<f4",
        chunks=(length,),
        shuffle=True,
        compression="gzip",
    )

    components = [in_fortran_order(component.numpy()).T for component in step.field[0]]
    to_mm = torch.from_numpy(affine[:3, :3]).float()
    inside = None if near is None else in_fortran_order(near).T

    def compressed(first: int) -> bytes:
        parts = [component[first : first + planes].ravel() for component in components]
        moved = to_mm @ torch.from_numpy(np.stack(parts))
        planes_near = None
        if inside is not None:
            planes_near = torch.from_numpy(inside[first : first + planes].ravel())
        rounded = round_displacements(moved, planes_near)
        values = np.zeros(length, "<f4")
        values[: rounded.numel()] = rounded.T.numpy().ravel()
        return _compressed(values)

    starts = range(0, k, planes)
    for first, chunk in zip(starts, parallel_map(compressed, starts), strict=True):
        dataset.id.write_direct_chunk((3 * i * j * first,), chunk)


def _compressed(values: np.ndarray) -> bytes:
    """Shuffle and compress values as HDF5 would do it, faster and smaller.

    The first bytes of all values, the second ones, … are compressed with codes of their own.
    """
    compressor = isal_zlib.compressobj(1)
    parts = []
    for shift in (0, 8, 16, 24):
        place = (values.view("<u4") >> shift).astype(np.uint8)
        parts += [compressor.compress(place.tobytes()), compressor.flush(isal_zlib.Z_SYNC_FLUSH)]
    return b"".join([*parts, compressor.flush()])


def read_transform(path: str | os.PathLike[str]) -> Transform:
    """Read a transform file of ITK or ANTs.

    Parameters
    ----------
    path : path
        Transform file (.h5, .mat, .tfm, .txt) with linear transforms, displacement fields or their
        composites; or a displacement field as an image (.nii, .nii.gz, .nrrd, .mha, …).

    Returns
    -------
    Transform
        Maps points of the fixed space to the moving space.

    Raises
    ------
    InputError
        If the file is missing, is not an ITK transform, contains an unsupported transform or
        non-finite values, or does not fit into memory.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist. Check the path.")
    if not path.is_file():
        raise InputError(f"{path} is not a file. Choose an ITK transform.")
    stored_as_image = is_field(path)
    try:
        with _quiet():
            if stored_as_image:
                steps: list[Affine | Displacement] = [_field(read_field(path), path)]
            else:
                types = _transform_types(path)
                _check_transform_types(types, path)
                if path.suffix in H5_SUFFIXES and all(map(_is_plain, types)):
                    steps = _read_plain_h5(path)
                else:
                    steps = _steps(sitk.ReadTransform(str(path)), path)
    except InputError:
        raise
    except Exception as why:  # ITK, h5py, scipy and nibabel raise many types, and quote bytes
        raise InputError(_unreadable(path, stored_as_image)) from why
    return Transform(tuple(steps))


def _unreadable(path: Path, stored_as_image: bool) -> str:
    """Return the message about an unreadable file."""
    if stored_as_image:
        return (
            f"{path} cannot be read as a displacement field; it may be incomplete. Download or "
            "convert it again."
        )
    return (
        f"{path} cannot be read as an ITK transform. Choose a .h5, .mat, .tfm or .txt file, or a "
        "displacement field (.nii.gz), written by ITK, ANTs or this software, or convert a "
        "transform of other software with `fcnreg convert --from FORMAT`."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages of ITK and HDF5 about a damaged file on the terminal."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _transform_types(path: Path) -> list[str]:
    """Return the types of the transforms in a file, before ITK reads it."""
    if path.suffix in H5_SUFFIXES:
        with h5py.File(path, "r", locking=False) as file:
            parts = [file["TransformGroup"][str(n)] for n in range(len(file["TransformGroup"]))]
            _check_vectors(parts)
            # ITK's copy, ours, and one in single precision.
            check_memory(2.5 * sum(map(_claimed_bytes, parts)), path)
            return [part["TransformType"].asstr()[0] for part in parts]
    if path.suffix == ".mat":
        return [name for name, _, _ in whosmat(path) if name != "fixed"]
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError("too large for linear transforms")
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.startswith("MNI Transform File"):
        raise InputError(
            f"{path} is a transform of MNI's software (.xfm), which is not supported. Convert it, "
            "for example to .lta with FreeSurfer's lta_convert --inmni."
        )
    types = re.findall(r"^\s*Transform:\s*(\S+)", text, re.MULTILINE)
    if not types:  # ITK reads files of other software, too, in their coordinates
        raise ValueError("no transform of ITK")
    return types


def _check_transform_types(types: list[str], path: Path) -> None:
    """Reject transforms that ITK reads incompletely or that abort the process."""
    if any("BSpline" in kind for kind in types):
        raise InputError(
            f"{path} contains a BSplineTransform. Convert it to a displacement field, for example "
            "with SimpleITK's TransformToDisplacementField."
        )
    if len(types) > 1 and not types[0].startswith("Composite"):
        raise InputError(
            f"{path} contains {len(types)} transforms that do not form a composite. Store each in "
            "a file of its own."
        )


def _is_plain(kind: str) -> bool:
    """Return whether a type is one of `PLAIN_TYPES`, in 3D and any precision."""
    name, *dimensions = kind.split("_")
    return name in PLAIN_TYPES and dimensions[1:] == ["3", "3"]


def _read_plain_h5(path: Path) -> list[Affine | Displacement]:
    """Read a file of `PLAIN_TYPES`; return its steps in the order in which they act on a point."""
    steps: list[Affine | Displacement] = []
    with h5py.File(path, "r", locking=False) as file:
        group = file["TransformGroup"]
        for number in reversed(range(len(group))):
            part = group[str(number)]
            kind = part["TransformType"].asstr()[0]
            if kind.startswith("Composite"):
                continue
            values, fixed = _parameters(part, PARAMETERS), _parameters(part, FIXED_PARAMETERS)[:]
            if kind.startswith("Affine"):
                values = values[:]
                linear, centre = values[:9].reshape(3, 3), fixed[:3]
                steps.append(_affine(linear, values[9:12] + centre - linear @ centre, path))
            else:
                size, origin = fixed[:3].astype(int), fixed[3:6]
                axes = fixed[9:18].reshape(3, 3) * fixed[6:9]
                field = values.astype("float32")[:]
                steps.append(_displacement(field.reshape(*size[::-1], 3), axes, origin, path))
    return steps


def _parameters(part: h5py.Group, names: Sequence[str]) -> h5py.Dataset:
    """Return the parameters of a transform by any of their names."""
    return part[next((name for name in names if name in part), names[0])]


def _check_vectors(parts: list[h5py.Group]) -> None:
    """Raise a ValueError for non-numeric parameters, on which ITK would leak memory."""
    for part in parts:
        for name, node in part.items():
            if name.endswith("Parameters") and (node.shape is None or node.dtype.kind != "f"):
                raise ValueError(f"{name} are not numbers")


def _claimed_bytes(part: h5py.Group) -> float:
    """Return the bytes of the parameters of a transform, or those implied by its grid."""
    sizes, fixed = [0], None
    for name, values in part.items():
        if name in PARAMETERS:
            sizes.append(values.size)
        elif name in FIXED_PARAMETERS and values.size == 18:  # size, origin, spacing, direction
            fixed = values
    voxels = 0.0 if fixed is None else np.nan_to_num(np.prod(fixed[:3], dtype=float))
    return 8.0 * max(*sizes, 3 * voxels)


def _check_values(values: np.ndarray, path: Path) -> None:
    largest = max(values.max(initial=0), -values.min(initial=0))
    if not np.isfinite(largest):
        raise InputError(f"{path} contains infinite values or NaN. Compute it again.")
    if largest > MAX_DISPLACEMENT_MM:
        raise InputError(f"{path} moves points by more than a kilometre. Compute it again.")


def _steps(transform: sitk.Transform, path: Path) -> list[Affine | Displacement]:
    """Convert an ITK transform to steps, in the order in which they act on a point."""
    if transform.GetDimension() != 3:
        raise InputError(
            f"{path} contains a {transform.GetDimension()}D transform. Choose a 3D transform."
        )
    if transform.IsLinear():
        return [_linear(transform, path)]
    kind = transform.GetTransformEnum()
    if kind == sitk.sitkComposite:
        composite = sitk.CompositeTransform(transform)
        count = composite.GetNumberOfTransforms()
        parts = [composite.GetNthTransform(n) for n in reversed(range(count))]
        return [step for part in parts for step in _steps(part, path)]
    if kind == sitk.sitkDisplacementField:
        return [_field(sitk.DisplacementFieldTransform(transform).GetDisplacementField(), path)]
    raise InputError(
        f"{path} contains a {transform.GetName()}. Convert it to a linear transform or a "
        "displacement field."
    )


def _linear(transform: sitk.Transform, path: Path) -> Affine:
    """Compute the matrix of a linear transform from its images of the origin and unit vectors."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    axes = [np.array(transform.TransformPoint(unit.tolist())) - origin for unit in np.eye(3)]
    return _affine(np.stack(axes, axis=1), origin, path)


def _affine(linear: np.ndarray, translation: np.ndarray, path: Path) -> Affine:
    """Convert a linear transform in LPS+ mm: matrix (3, 3) and translation (3,)."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, translation
    _check_values(matrix, path)
    if abs(np.linalg.det(matrix)) < MIN_DETERMINANT:
        raise InputError(f"{path} contains a singular affine (determinant 0). Compute it again.")
    return Affine(_FLIP @ matrix @ _FLIP)


def _field(image: sitk.Image, path: Path) -> Displacement:
    """Convert a displacement field of ITK."""
    axes = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    values = sitk.GetArrayFromImage(image).astype(np.float32)
    return _displacement(values, axes, np.array(image.GetOrigin()), path)


def _displacement(
    values: np.ndarray, axes: np.ndarray, origin: np.ndarray, path: Path
) -> Displacement:
    """Convert displacements (k, j, i, 3) in LPS+ mm to those in voxels of their grid.

    Columns of `axes` (3, 3) are the edges of a voxel, and `origin` (3,) is the centre of the first
    one, in LPS+ mm.
    """
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin
    for each in (affine, values):
        _check_values(each, path)
    k, j, i = values.shape[:3]
    field = torch.empty((1, 3, i, j, k))
    for component, moved in zip(field[0], values.transpose(3, 2, 1, 0), strict=True):
        component.copy_(torch.from_numpy(in_c_order(moved)))
    to_voxels = np.eye(4)
    to_voxels[:3, :3] = np.linalg.inv(axes)
    return Displacement(Grid((i, j, k), _FLIP @ affine), map_points(field, to_voxels))
