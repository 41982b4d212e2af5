"""Preprocessing of T1-weighted images for registration."""

from __future__ import annotations

import logging
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

from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads
from bids_fcnreg.io.nifti import grid_of, load, write
from bids_fcnreg.io.orientation import codes_of, set_codes
from bids_fcnreg.preprocessing.lesions import unite_lesions


class _ConformInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="T1-weighted image")


class _OutFileSpec(TraitedSpec):
    out_file = File(exists=True, desc="resulting image")


class Conform(SimpleInterface):
    """Reorient an image to the closest RAS axes.

    Axes are permuted and flipped with the affine: no interpolation, and world coordinates of
    voxels are unchanged. The result is float32 with equal sform and qform. An image without
    orientation (sform and qform codes 0) keeps its axes and codes.
    """

    input_spec = _ConformInputSpec
    output_spec = _OutFileSpec

    def _run_interface(self, runtime: Any) -> Any:
        loaded = load(self.inputs.in_file)
        conformed, codes = loaded, codes_of(loaded)
        if any(codes):
            # Reorientation drops the qform and the codes.
            conformed = set_codes(nib.as_closest_canonical(loaded), codes)
        out_file = Path(runtime.cwd) / "conformed.nii"
        self._results["out_file"] = str(write(out_file, conformed))
        return runtime


class _AverageRunsInputSpec(ThreadsInputSpec):
    in_files = InputMultiObject(File(exists=True), mandatory=True, desc="runs of one session")
    names = InputMultiObject(traits.Str, desc="names of the runs; by default, their paths")


class _AverageRunsOutputSpec(_OutFileSpec):
    runs = traits.Dict(desc="sidecar fields: similarity of the runs, and excluded runs")


class AverageRuns(SimpleInterface):
    """Average the runs of a session on the grid of the first, after rigid alignment to it.

    Runs that do not match the first are excluded, see `bids_fcnreg.preprocessing.runs`. A single
    run is returned unchanged.
    """

    input_spec = _AverageRunsInputSpec
    output_spec = _AverageRunsOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        self._results["runs"] = {}
        if len(self.inputs.in_files) == 1:
            self._results["out_file"] = self.inputs.in_files[0]
            return runtime

        from bids_fcnreg.io import image
        from bids_fcnreg.preprocessing.runs import average_runs, describe_average

        set_threads(self.inputs.num_threads)
        found = average_runs([image.read(path) for path in self.inputs.in_files])
        names = self.inputs.names if isdefined(self.inputs.names) else self.inputs.in_files
        self._results["runs"] = describe_average(found, names)
        for name, why in self._results["runs"].get("RunsLeftOut", {}).items():
            logging.getLogger("nipype.interface").warning(
                "%s is excluded from the average: %s", name, why
            )
        codes = codes_of(load(self.inputs.in_files[0]))
        out_file = image.write(Path(runtime.cwd) / "average.nii", found.image, space=codes)
        self._results["out_file"] = str(out_file)
        return runtime


class _InBrainInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="T1-weighted image")
    mask = File(exists=True, mandatory=True, desc="brain mask on the grid of `in_file`")


class BiasCorrection(SimpleInterface):
    """Correct the bias field of an image with N4, inside the brain."""

    input_spec = _InBrainInputSpec
    output_spec = _OutFileSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.preprocessing.intensity import bias_field, make_positive

        nifti, data, mask = _read_in_brain(self.inputs)
        data = make_positive(data, mask)
        spacing = nifti.header.get_zooms()[:3]
        data = data / bias_field(data, mask, spacing)
        self._results["out_file"] = _write_like(nifti, data, runtime, "corrected.nii")
        return runtime


class _NormalizeIntensityOutputSpec(_OutFileSpec):
    brain = File(exists=True, desc="out_file inside the mask, 0 outside")


class NormalizeIntensity(SimpleInterface):
    """Scale an image so that the 98th percentile of its brain becomes 100; 0 stays 0.

    Intensities are not clipped, and the skull is kept; `brain` is the skull-stripped image.
    """

    input_spec = _InBrainInputSpec
    output_spec = _NormalizeIntensityOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.preprocessing.intensity import INTENSITY_STEP as step
        from bids_fcnreg.preprocessing.intensity import normalize

        nifti, data, mask = _read_in_brain(self.inputs)
        data = normalize(data, mask)
        self._results["out_file"] = _write_like(nifti, data, runtime, "preproc.nii.gz", step)
        brain = np.where(mask, data, np.float32(0))
        self._results["brain"] = _write_like(nifti, brain, runtime, "brain.nii.gz", step)
        return runtime


class _UniteLesionsInputSpec(BaseInterfaceInputSpec):
    in_files = InputMultiObject(File(exists=True), mandatory=True, desc="lesion masks")
    reference = File(exists=True, mandatory=True, desc="image that defines the grid of the result")
    mask = File(exists=True, desc="brain mask on that grid")


class UniteLesions(SimpleInterface):
    """Unite lesion masks on the grid of an image: 1 is excluded from the similarity.

    Masks on other grids are resampled by world coordinates. A mask outside the image, or one that
    covers more than half of the brain, raises an `InputError`.
    """

    input_spec = _UniteLesionsInputSpec
    output_spec = _OutFileSpec

    def _run_interface(self, runtime: Any) -> Any:
        reference, brain = load(self.inputs.reference), None
        if isdefined(self.inputs.mask):
            brain = np.asanyarray(load(self.inputs.mask, "uint8").dataobj) > 0
        united = unite_lesions(self.inputs.in_files, grid_of(reference), brain)
        self._results["out_file"] = _write_like(
            reference, united.astype(np.uint8), runtime, "exclude.nii.gz"
        )
        return runtime


def _read_in_brain(inputs: _InBrainInputSpec) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
    """Read an image, its intensities, and the brain mask."""
    nifti = load(inputs.in_file)
    mask = np.asanyarray(load(inputs.mask, "uint8").dataobj) > 0
    return nifti, np.asanyarray(nifti.dataobj), mask


def _write_like(
    nifti: nib.Nifti1Image,
    data: np.ndarray,
    runtime: Any,
    name: str,
    step: float | None = None,
) -> str:
    """Write data with the geometry of an image to the node's directory; return the path."""
    header = nifti.header.copy()
    header.set_data_dtype(data.dtype)
    written = nib.Nifti1Image(data, nifti.affine, header)
    return str(write(Path(runtime.cwd) / name, written, step))
