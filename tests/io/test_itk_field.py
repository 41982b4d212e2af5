"""Displacement fields as images, against ITK: ANTs' 1Warp.nii.gz and its kin."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nibabel.orientations import axcodes2ornt, ornt_transform

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.io.image import read
from bids_fcnreg.io.itk import read_transform

ORIENTATIONS = ("RAS", "LPS", "LAS", "PIR", "ASL", "SRP", "oblique")
SPACINGS = ((3.0, 3.0, 3.0), (2.0, 3.3, 4.5))
EXTENT = 96.0  # mm


def placed(orientation: str, spacing: tuple[float, ...]) -> nib.Nifti1Image:
    """A smooth image around the origin, in some orientation."""
    shape = [int(EXTENT / s) for s in spacing]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    x, y, z = np.moveaxis(nib.affines.apply_affine(affine, _voxels(shape)), -1, 0)
    data = 100 + 20 * np.sin(x / 9) + 15 * np.cos(y / 7 + x / 20) + 10 * np.sin(z / 8)
    image = nib.Nifti1Image(data.astype("f4"), affine)
    if orientation == "oblique":
        turn = np.eye(4)
        turn[:3, :3] = np.reshape(
            sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.25).GetMatrix(), (3, 3)
        )
        return nib.Nifti1Image(image.get_fdata(dtype="f4"), turn @ affine)
    return image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation)))


def _voxels(shape) -> np.ndarray:
    return np.moveaxis(np.indices(shape), 0, -1)


def displacements(image: nib.Nifti1Image) -> np.ndarray:
    """A smooth field on the grid of an image, in LPS+ mm (i, j, k, 3); it fades at the border."""
    x, y, z = np.moveaxis(nib.affines.apply_affine(image.affine, _voxels(image.shape)), -1, 0)
    fade = np.exp(-(x**2 + y**2 + z**2) / 20.0**2)
    return np.stack([6 * fade, 5 * fade * np.cos(z / 25), -4 * fade * np.sin(x / 20 + 1)], axis=-1)


def save_field(path: Path, image: nib.Nifti1Image, lps: np.ndarray) -> Path:
    """As ANTs writes its 1Warp.nii.gz: (i, j, k, 1, 3), intent vector, LPS+ mm."""
    field = nib.Nifti1Image(lps[:, :, :, None].astype("f4"), image.affine)
    field.header.set_intent("vector")
    field.to_filename(path)
    return path


def as_itk(path: Path) -> sitk.Transform:
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def mapped_by_itk(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """RAS+ to RAS+ by a transform of LPS+."""
    lps = np.array([-1, -1, 1])
    return np.array([transform.TransformPoint((lps * p).tolist()) for p in points]) * lps


POINTS = np.random.default_rng(0).uniform(-30, 30, (60, 3))


def ours(path: Path, points: np.ndarray = POINTS) -> np.ndarray:
    return read_transform(path).map(torch.from_numpy(points)).numpy()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_points_and_images_move_as_in_itk(tmp_path, orientation, spacing):
    fixed = placed(orientation, spacing)
    path = save_field(tmp_path / "1Warp.nii.gz", fixed, displacements(fixed))
    theirs = mapped_by_itk(as_itk(path), POINTS)
    assert np.linalg.norm(theirs - POINTS, axis=1).max() > 4
    np.testing.assert_allclose(ours(path), theirs, atol=1e-3)

    moving = placed("RAS", (3.0, 3.0, 3.0))
    for name, image in (("fixed", fixed), ("moving", moving)):
        image.to_filename(tmp_path / f"{name}.nii")
    resampled = sitk.GetArrayFromImage(sitk.Resample(
        sitk.ReadImage(str(tmp_path / "moving.nii")),
        sitk.ReadImage(str(tmp_path / "fixed.nii")),
        as_itk(path),
    )).T  # fmt: skip
    grid = Grid(fixed.shape, fixed.affine)
    found = read_transform(path).resample(read(tmp_path / "moving.nii"), grid).data[0, 0].numpy()
    both = (resampled > 0) & (found > 0)
    assert both.mean() > 0.5
    assert np.abs(found - resampled)[both].max() < 0.05


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd", "hdr"])
@pytest.mark.parametrize("kind", [sitk.sitkVectorFloat32, sitk.sitkVectorFloat64])
def test_formats_that_itk_writes(tmp_path, ending, kind):
    fixed = placed("oblique", SPACINGS[1])
    field = sitk.ReadImage(str(save_field(tmp_path / "x.nii", fixed, displacements(fixed))), kind)
    path = tmp_path / f"field.{ending}"
    sitk.WriteImage(field, str(path))
    np.testing.assert_allclose(ours(path), mapped_by_itk(as_itk(path), POINTS), atol=1e-3)


def test_nifti_displacements_are_ras(tmp_path):
    """The intent code 1006 says so, and ITK turns them."""
    fixed = placed("LAS", SPACINGS[0])
    lps = displacements(fixed)
    field = nib.Nifti1Image((lps * [-1, -1, 1])[:, :, :, None].astype("f4"), fixed.affine)
    field.header.set_intent("displacement vector")
    field.to_filename(tmp_path / "ras.nii")
    np.testing.assert_allclose(
        ours(tmp_path / "ras.nii"), ours(save_field(tmp_path / "lps.nii", fixed, lps)), atol=1e-4
    )
    np.testing.assert_allclose(
        ours(tmp_path / "ras.nii"), mapped_by_itk(as_itk(tmp_path / "ras.nii"), POINTS), atol=1e-3
    )


def test_the_inverse_leads_back(tmp_path):
    fixed = placed("PIR", SPACINGS[1])
    transform = read_transform(save_field(tmp_path / "x.nii.gz", fixed, displacements(fixed)))
    points = torch.from_numpy(POINTS)
    assert (transform.map(points) - points).norm(dim=1).max() > 4
    back = transform.inverse().map(transform.map(points))
    assert (back - points).norm(dim=1).max() < 0.2


def test_a_field_of_another_voxel_size_than_the_image(tmp_path):
    """Its own grid counts: points between and beyond its voxels move as in ITK."""
    coarse = placed("RAS", (6.0, 5.0, 7.0))
    path = save_field(tmp_path / "x.nii.gz", coarse, displacements(coarse))
    points = np.random.default_rng(1).uniform(-80, 80, (200, 3))
    np.testing.assert_allclose(ours(path, points), mapped_by_itk(as_itk(path), points), atol=1e-3)


def changed(**fields):
    """A header with other fields."""

    def make(path: Path) -> None:
        image = placed("RAS", (6.0, 6.0, 6.0))
        field = nib.Nifti1Image(displacements(image)[:, :, :, None].astype("f4"), image.affine)
        field.header.set_intent("vector")
        for name, value in fields.items():
            field.header[name] = value
        field.to_filename(path)

    return make


def stored(function):
    """An image made from displacements (i, j, k, 3) and points (i, j, k, 3), RAS+ mm."""

    def make(path: Path) -> None:
        image = placed("RAS", (6.0, 6.0, 6.0))
        points = nib.affines.apply_affine(image.affine, _voxels(image.shape))
        field = nib.Nifti1Image(function(displacements(image), points).astype("f4"), image.affine)
        field.header.set_intent("vector")
        field.to_filename(path)

    return make


LPS = np.array([-1, -1, 1])
REFUSED = {
    "FSL's warp": (changed(intent_code=2006), "an FSL warp"),
    "FSL's coefficients": (changed(intent_code=2009), "an FSL warp"),
    "FSL's warp without code": (stored(lambda u, x: u), "a displacement field of ITK or ANTs has"),
    "no intent": (changed(intent_code=0), "a displacement field of ITK or ANTs has"),
    "NiftyReg's": (changed(intent_name=b"NREG_TRANS"), "a transform of NiftyReg"),
    "SPM's, by name": (changed(intent_name=b"Mapping"), "a deformation of SPM"),
    "positions in RAS": (stored(lambda u, x: (x + u)[:, :, :, None]), "contains positions"),
    "positions in LPS": (stored(lambda u, x: (LPS * x + u)[:, :, :, None]), "contains positions"),
    "positions, and scaled": (
        stored(lambda u, x: (1.2 * x + 10 + u)[:, :, :, None]), "contains positions",
    ),
    "a scan": (stored(lambda u, x: u[..., 0]), "field of ITK or ANTs has"),
    "two components": (stored(lambda u, x: u[:, :, :, None, :2]), "field of ITK or ANTs has"),
    "several times": (stored(lambda u, x: np.stack([u, u], 3)), "field of ITK or ANTs has"),
    "NaN": (stored(lambda u, x: np.full_like(u, np.nan)[:, :, :, None]), "NaN"),
    "infinite": (stored(lambda u, x: np.full_like(u, np.inf)[:, :, :, None]), "infinite"),
    "far": (stored(lambda u, x: 1e7 + u[:, :, :, None]), "more than a kilometre"),
    "text": (lambda path: path.write_text("no field"), "cannot be read as a displacement field"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_fields_of_other_conventions_are_rejected(tmp_path, name, capfd):
    make, message = REFUSED[name]
    path = tmp_path / "x.nii"
    make(path)
    with pytest.raises(InputError, match=message) as refusal:
        read_transform(path)
    assert str(path) in str(refusal.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha"])
def test_truncated_fields_are_refused(tmp_path, ending):
    image = placed("RAS", (4.0, 4.0, 4.0))
    lps = displacements(image) + np.random.default_rng(0).normal(0, 0.01, (*image.shape, 3))
    whole = tmp_path / f"whole.{ending}"
    sitk.WriteImage(sitk.ReadImage(str(save_field(tmp_path / "x.nii", image, lps))), str(whole))
    content = whole.read_bytes()
    part = tmp_path / f"part.{ending}"
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as a displacement field"):
        read_transform(part)


def test_a_header_that_claims_too_much(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype("f4")
    header.set_data_shape((9000, 9000, 9000, 1, 3))
    header.set_intent("vector")
    header["sform_code"], header["srow_x"][0], header["srow_y"][1], header["srow_z"][2] = (
        1,
        1,
        1,
        1,
    )
    header["vox_offset"], header["magic"] = 352, b"n+1"
    for ending in ("nii", "nii.gz"):
        path = tmp_path / f"x.{ending}"
        content = header.binaryblock + bytes(1000)
        path.write_bytes(gzip.compress(content) if ending == "nii.gz" else content)
        with pytest.raises(InputError, match=r"cannot be read|claims"):
            read_transform(path)


def test_fields_in_other_spaces_are_refused(tmp_path):
    image = placed("RAS", (4.0, 4.0, 4.0))
    path = tmp_path / "x.nrrd"
    source = save_field(tmp_path / "x.nii", image, displacements(image))
    sitk.WriteImage(sitk.ReadImage(str(source)), str(path))
    content = path.read_bytes()
    assert b"left-posterior-superior" in content
    path.write_bytes(content.replace(b"left-posterior-superior", b"right-anterior-superior"))
    with pytest.raises(InputError, match="in the space right-anterior-superior"):
        read_transform(path)
    path.write_bytes(content.replace(b"\n\n", b"\ndisplacement field type:=modeling\n\n", 1))
    with pytest.raises(InputError, match="from the image to the reference"):
        read_transform(path)
    path.write_bytes(content)
    assert len(read_transform(path).steps) == 1


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
@pytest.mark.parametrize("shape", [(6, 6, 6), (6, 6, 6, 2), (6, 6, 2), (6, 6, 6, 4)])
def test_images_of_other_dimensions_are_rejected(tmp_path, ending, shape):
    values = np.ones(shape, "f4")
    path = tmp_path / f"x.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=shape != (6, 6, 6)), str(path))
    with pytest.raises(InputError, match="a displacement field has 3 and 3"):
        read_transform(path)


LINEAR = """#Insight Transform File V1.0
#Transform 0
Transform: {0}
Parameters: 1.1 0.1 0 -0.1 0.9 0 0 0.05 1 5 -3 2
FixedParameters: 10 -20 30
"""


@pytest.mark.parametrize("precision", ["double", "float"])
@pytest.mark.parametrize("kind", ["AffineTransform", "MatrixOffsetTransformBase"])
@pytest.mark.parametrize("ending", ["txt", "tfm", "mat"])
def test_linear_transforms_that_ants_writes(tmp_path, kind, precision, ending):
    """0GenericAffine.mat, and Affine.txt of older versions, in both precisions."""
    (tmp_path / "text.txt").write_text(LINEAR.format(f"{kind}_{precision}_3_3"))
    theirs = sitk.ReadTransform(str(tmp_path / "text.txt"))
    path = tmp_path / f"x.{ending}"
    if ending == "mat":
        from scipy.io import savemat

        number = "f4" if precision == "float" else "f8"
        lines = (tmp_path / "text.txt").read_text().splitlines()
        parameters, fixed = (np.array(line.split()[1:], number)[:, None] for line in lines[3:])
        savemat(path, {f"{kind}_{precision}_3_3": parameters, "fixed": fixed}, format="4")
    else:
        path.write_bytes((tmp_path / "text.txt").read_bytes())
    theirs = mapped_by_itk(theirs, POINTS)
    assert np.linalg.norm(theirs - POINTS, axis=1).max() > 4
    np.testing.assert_allclose(ours(path), theirs, atol=1e-4)


def test_nitransforms_reads_fields_the_same(tmp_path):
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    fixed = placed("LAS", SPACINGS[1])
    path = save_field(tmp_path / "1Warp.nii.gz", fixed, displacements(fixed))
    theirs = nonlinear.DenseFieldTransform.from_filename(path, fmt="itk").map(POINTS)
    assert np.linalg.norm(ours(path) - theirs, axis=1).max() < 0.5  # they interpolate by splines
