"""Interfaces for workflows of others give what the Python functions give."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template
from nipype.interfaces.base import traits
from nipype.pipeline import engine as pe

import bids_fcnreg as fr
from bids_fcnreg.errors import InputError
from bids_fcnreg.interfaces import ApplyTransforms, Registration


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A coarse template, the same brain elsewhere with labels, and a matrix between them."""
    folder = tmp_path_factory.mktemp("pairs")
    template = load_mni152_template(resolution=4)
    data = template.get_fdata().astype("f4")
    shift = np.eye(4)
    shift[:3, 3] = (3, -4, 5)
    labels = (data > 0).astype("u1") + (data > data.mean()).astype("u1")
    nib.Nifti1Image(data, template.affine).to_filename(folder / "fixed.nii.gz")
    nib.Nifti1Image(data, shift @ template.affine).to_filename(folder / "scan.nii.gz")
    nib.Nifti1Image(labels, shift @ template.affine).to_filename(folder / "labels.nii.gz")
    fr.convert(shift, folder / "shift.mat", "itk")
    return folder


def voxels(path: str | Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


@pytest.mark.slow
def test_registration_gives_what_register_gives(folder, tmp_path):
    files = {"fixed": str(folder / "fixed.nii.gz"), "moving": str(folder / "scan.nii.gz")}
    node = pe.Node(
        Registration(**files, labels=str(folder / "labels.nii.gz"), mode="predict"),
        name="register",
        base_dir=str(tmp_path),
    )
    outputs = node.run().outputs
    result = fr.register(**files, mode="predict")
    np.testing.assert_array_equal(voxels(outputs.warped), result.warped.dataobj)
    labels = fr.apply(
        folder / "labels.nii.gz", files["fixed"], result.forward, interpolation="label"
    )
    np.testing.assert_array_equal(voxels(outputs.warped_labels), labels.dataobj)
    assert nib.load(outputs.warped_labels).get_data_dtype() == np.uint8
    points = np.random.default_rng(0).uniform(-50, 50, (20, 3))
    for output, transform in (
        (outputs.xfm, result.forward),
        (outputs.inverse_xfm, result.inverse),
    ):
        expected = fr.map_points(points, transform)
        np.testing.assert_allclose(fr.map_points(points, output), expected, atol=0.02)
    np.testing.assert_allclose(
        fr.map_points(points, outputs.affine), fr.map_points(points, result.affine)
    )
    quality = json.loads(Path(outputs.quality).read_text())
    assert quality["similarity"] == result.quality["similarity"]
    assert outputs.verdict == quality["verdict"]
    assert Path(outputs.warped).name == "scan_warped.nii.gz"
    assert node.is_cached() == (True, True)
    Path(files["fixed"]).touch()  # its contents are the same
    assert node.is_cached() == (True, True)


def test_a_change_of_the_fixed_image_is_noticed(folder, tmp_path):
    """By its content, although it may be the name of a template."""
    path = tmp_path / "fixed.nii.gz"
    hashes = []
    for scale in (1, 2):
        nib.Nifti1Image(voxels(folder / "fixed.nii.gz") * scale, np.eye(4)).to_filename(path)
        node = pe.Node(
            Registration(fixed=str(path), moving=str(folder / "scan.nii.gz")),
            name="register",
            base_dir=str(tmp_path),
        )
        node.config = {"execution": {"hash_method": "content"}}
        hashes.append(node.inputs.get_hashval(hash_method="content")[1])
    assert hashes[0] != hashes[1]


def run_apply(tmp_path: Path, **inputs: object) -> str:
    node = pe.Node(ApplyTransforms(**inputs), name="apply", base_dir=str(tmp_path))
    return node.run().outputs.output_image


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interpolation": "nearest", "default_value": 7.0},
        {"spacing": [6.0]},
        {"invert_transform_flags": [True]},
        {"transforms": ["identity"]},
    ],
)
def test_apply_transforms_gives_what_apply_gives(options, folder, tmp_path):
    image, fixed = (str(folder / f"{name}.nii.gz") for name in ("scan", "fixed"))
    given = {"transforms": [str(folder / "shift.mat")]} | options
    output = run_apply(tmp_path, input_image=image, reference_image=fixed, **given)
    flags = given.pop("invert_transform_flags", [False])
    chain = list(zip(given.pop("transforms"), flags, strict=True))
    expected = fr.apply(image, fixed, chain, **given)
    np.testing.assert_array_equal(voxels(output), expected.dataobj)
    np.testing.assert_array_equal(nib.load(output).affine, expected.affine)


def test_without_a_reference_the_grid_is_that_of_the_image(folder, tmp_path):
    image = str(folder / "scan.nii.gz")
    output = run_apply(tmp_path, input_image=image, transforms=["identity"])
    np.testing.assert_array_equal(nib.load(output).affine, nib.load(image).affine)


@pytest.mark.parametrize(
    ("interface", "inputs"),
    [(Registration, {"mode": "worst"}), (Registration, {"moving": "/none"}),
     (ApplyTransforms, {"interpolation": "best"}), (ApplyTransforms, {"transforms": ["/none"]})],
)  # fmt: skip
def test_invalid_inputs_are_refused(interface, inputs):
    with pytest.raises(traits.TraitError):
        interface(**inputs)


def test_flags_must_be_as_many_as_transforms(folder, tmp_path):
    image = str(folder / "scan.nii.gz")
    with pytest.raises(Exception, match="invert_transform_flags for 1 transforms") as raised:
        run_apply(
            tmp_path,
            input_image=image,
            transforms=["identity"],
            invert_transform_flags=[True, False],
        )
    assert InputError.__name__ in str(raised.value)
