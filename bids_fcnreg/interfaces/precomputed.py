"""Existing results of other derivatives, in the orientation of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_fcnreg.bids.derivatives import write_tsv
from bids_fcnreg.fcn.structures import TISSUES
from bids_fcnreg.interfaces.tissue import PROBABILITY_STEP
from bids_fcnreg.io.nifti import load, write
from bids_fcnreg.io.orientation import codes_of, set_codes
from bids_fcnreg.preprocessing.brain import is_extracted


class _ReuseMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image")
    mask = File(exists=True, mandatory=True, desc="its brain mask, with axes in any order")
    source = traits.Str(nohash=True, desc="name of the original image")


class _ReuseMaskOutputSpec(TraitedSpec):
    mask = File(exists=True, desc="brain mask on the grid of in_file: 0 and 1")
    skull_stripped = traits.Bool(desc="whether in_file is skull-stripped")


class ReuseMask(SimpleInterface):
    """Reorient an existing brain mask to the axes of an image; like `BrainExtraction`."""

    input_spec = _ReuseMaskInputSpec
    output_spec = _ReuseMaskOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        image = load(self.inputs.in_file)
        mask = _reoriented(self.inputs.mask, image) > 0
        data = np.asanyarray(image.dataobj)
        self._results["skull_stripped"] = is_extracted(data, mask, image.header.get_zooms()[:3])
        written = _on_grid(image, mask.astype(np.uint8))
        self._results["mask"] = str(write(Path(runtime.cwd) / "mask.nii.gz", written))
        return runtime


class _ReuseTissueInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image")
    dseg = File(exists=True, desc="tissue of each voxel")
    labels = traits.List([1, 2, 3], traits.Int, usedefault=True, desc="of GM, WM and CSF in dseg")
    probseg = InputMultiObject(File(exists=True), desc="probabilities of GM, WM and CSF")


class _ReuseTissueOutputSpec(TraitedSpec):
    dseg = File(exists=True, desc="tissue of each voxel: 1 GM, 2 WM, 3 CSF")
    dseg_lookup = File(exists=True, desc="TSV of index and name of the tissues")
    gm = File(exists=True, desc="probability of grey matter")
    wm = File(exists=True, desc="probability of white matter")
    csf = File(exists=True, desc="probability of cerebrospinal fluid")


class ReuseTissue(SimpleInterface):
    """Reorient an existing tissue segmentation to the axes of an image.

    Without probabilities, they are 0 and 1; without labels, each voxel has the likeliest tissue,
    or none if no tissue is likelier than that.
    """

    input_spec = _ReuseTissueInputSpec
    output_spec = _ReuseTissueOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        image, directory = load(self.inputs.in_file), Path(runtime.cwd)
        labels = maps = None
        if isdefined(self.inputs.dseg):
            values = _reoriented(self.inputs.dseg, image)
            labels = np.zeros(image.shape, np.uint8)
            for number, label in enumerate(self.inputs.labels, start=1):
                labels[values == label] = number
        if isdefined(self.inputs.probseg):
            maps = np.stack([_reoriented(path, image) for path in self.inputs.probseg])
        if maps is None:
            assert labels is not None
            maps = np.stack([labels == n for n in range(1, len(TISSUES) + 1)]).astype(np.float32)
        if labels is None:
            likeliest = maps.max(axis=0) > 1 - maps.sum(axis=0)
            labels = np.where(likeliest, maps.argmax(axis=0) + 1, 0).astype(np.uint8)
        files: dict[str, tuple[nib.Nifti1Image, float | None]] = {
            "dseg": (_on_grid(image, labels), None)
        }
        for name, one in zip(TISSUES, maps, strict=True):
            files[name.lower()] = _on_grid(image, one.astype(np.float32)), PROBABILITY_STEP
        for name, (nifti, step) in files.items():
            self._results[name] = str(write(directory / f"{name}.nii.gz", nifti, step))
        rows = list(enumerate(TISSUES, start=1))
        self._results["dseg_lookup"] = str(
            write_tsv(directory / "dseg.tsv", ("index", "name"), rows)
        )
        return runtime


def _on_grid(image: nib.Nifti1Image, data: np.ndarray) -> nib.Nifti1Image:
    """Return an image with other values on the grid of an image."""
    return set_codes(nib.Nifti1Image(data, image.affine), codes_of(image))


def _reoriented(path: str, image: nib.Nifti1Image) -> np.ndarray:
    """Read an image on the grid of another, whose axes may have another order."""
    found = load(path)
    change = nib.orientations.ornt_transform(
        nib.io_orientation(found.affine), nib.io_orientation(image.affine)
    )
    return np.asanyarray(found.as_reoriented(change).dataobj)
