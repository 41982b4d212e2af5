"""Alignment of the other images of a session to the registered one.

An image that cannot be aligned must not stop its session: the outputs of `AlignImage` are then
undefined, and what depends on them is skipped.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

from bids_fcnreg.errors import InputError
from bids_fcnreg.html import render
from bids_fcnreg.interfaces.figures import Slices, _SlicesInputSpec
from bids_fcnreg.interfaces.outputs import DerivativesDataSink, _DerivativesDataSinkInputSpec
from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads
from bids_fcnreg.io.nifti import grid_of, load, read_grid, write
from bids_fcnreg.io.orientation import codes_of, template_code
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.preprocessing.lesions import read_lesion

if TYPE_CHECKING:
    from bids_fcnreg.preprocessing.coregistration import Alignment

_VERDICTS = {
    "good": "aligned",
    "doubtful": "doubtful alignment, please check the figure: ",
    "failed": "not aligned: ",
}


class _AlignImageInputSpec(ThreadsInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image of any contrast")
    reference = File(exists=True, mandatory=True, desc="reference, like the brain of a T1w image")
    mask = File(exists=True, mandatory=True, desc="brain mask on the grid of reference")


class _AlignImageOutputSpec(TraitedSpec):
    preproc = File(exists=True, desc="in_file, bias-corrected and intensity-normalized")
    aligned = File(exists=True, desc="preproc on the grid of reference")
    transform = File(
        exists=True, desc="ITK text file: maps points of reference to points of in_file"
    )
    inverse = File(exists=True, desc="ITK text file of the inverse")
    quality = File(exists=True, desc="JSON of similarity, coverage and verdict")
    skull_stripped = traits.Bool(desc="whether in_file was skull-stripped")


class AlignImage(SimpleInterface):
    """Align an image of any contrast rigidly with the reference image of its session.

    Of an image that cannot be aligned, only `quality` is defined.
    """

    input_spec = _AlignImageInputSpec
    output_spec = _AlignImageOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        set_threads(self.inputs.num_threads)
        directory = Path(runtime.cwd)
        try:
            quality = self._align(directory)
        # Of ITK, where an image has no usable intensities.
        except (InputError, RuntimeError) as why:
            quality = {"verdict": "failed", "verdict_reason": str(why)}
        if quality["verdict"] == "failed":
            logging.getLogger("nipype.interface").warning(
                "%s is not aligned: %s", self.inputs.in_file, quality["verdict_reason"]
            )
        path = directory / "quality.json"
        path.write_text(json.dumps(quality, indent=2) + "\n")
        self._results["quality"] = str(path)
        return runtime

    def _align(self, directory: Path) -> dict[str, Any]:
        """Align the image, write the results unless that failed, and return the quality."""
        from bids_fcnreg.io import image
        from bids_fcnreg.io.formats.itk import write_affine
        from bids_fcnreg.preprocessing.brain import is_extracted
        from bids_fcnreg.preprocessing.coregistration import align_scan
        from bids_fcnreg.preprocessing.intensity import INTENSITY_STEP

        inputs = self.inputs
        scan, reference = image.read(inputs.in_file), image.read(inputs.reference)
        brain, found = align_scan(scan, reference, image.read(inputs.mask))
        quality = describe(found)
        if quality["verdict"] == "failed":
            return quality
        codes = codes_of(open_image(inputs.in_file))
        preproc = image.write(
            directory / "preproc.nii.gz", brain.image, space=codes, step=INTENSITY_STEP
        )
        transform = write_affine(directory / "transform.txt", found.matrix)
        inverse = write_affine(directory / "inverse.txt", np.linalg.inv(found.matrix))
        aligned = _resample(directory / "aligned.nii.gz", preproc, [transform], inputs.reference)
        spacing = tuple(scan.grid.spacing)
        stripped = is_extracted(
            scan.data[0, 0].numpy(), brain.mask.data[0, 0].numpy() > 0.5, spacing
        )
        self._results |= {
            "preproc": str(preproc),
            "aligned": str(aligned),
            "transform": str(transform),
            "inverse": str(inverse),
            "skull_stripped": bool(stripped),
        }
        return quality


def describe(found: Alignment) -> dict[str, Any]:
    """Return the quality of an alignment, as it is written to JSON."""
    from bids_fcnreg.preprocessing.coregistration import DOUBTFUL, LEAST_SIMILARITY
    from bids_fcnreg.preprocessing.mirror import mirrored_reason

    reason = None
    if found.mirrored:
        reason = mirrored_reason(found.similarity, found.similarity_mirrored, "the reference")
    elif found.verdict != "good":
        least = LEAST_SIMILARITY if found.verdict == "failed" else DOUBTFUL
        reason = (
            f"its tissue is not similar to that of the reference (similarity "
            f"{found.similarity:.2f}, at least {least:g} expected). It may be of another person "
            "or part of the body, a thin slab, or have artefacts. Look at it; list it in "
            ".bidsignore to leave it out"
        )
    return {
        "verdict": found.verdict,
        "verdict_reason": reason,
        "similarity": round(found.similarity, 4),
        "brain_coverage": round(found.coverage, 4),
    }


class _ResampleAlignedInputSpec(ThreadsInputSpec):
    in_file = File(exists=True, desc="preprocessed image; nothing is made without it")
    transform = InputMultiObject(
        File(exists=True),
        desc="ITK transforms: map points of reference to in_file; the first acts first",
    )
    reference = File(exists=True, mandatory=True, desc="image that defines the grid of the result")


class _ResampleAlignedOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="in_file on the grid of reference")


class ResampleAligned(SimpleInterface):
    """Resample an aligned image to a template with one interpolation."""

    input_spec = _ResampleAlignedInputSpec
    output_spec = _ResampleAlignedOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        inputs = self.inputs
        if isdefined(inputs.in_file):
            set_threads(inputs.num_threads)
            path = Path(runtime.cwd) / "resampled.nii.gz"
            code = template_code(open_image(inputs.reference))
            _resample(path, inputs.in_file, inputs.transform, inputs.reference, code)
            self._results["out_file"] = str(path)
        return runtime


def _resample(
    path: Path,
    image_file: str | Path,
    transforms: list[Any],
    reference_file: str,
    code: int | None = None,
) -> Path:
    """Resample intensities through transforms to the grid of a reference, and write them."""
    from bids_fcnreg.io import image
    from bids_fcnreg.io.transform_chain import read_transforms
    from bids_fcnreg.preprocessing.intensity import INTENSITY_STEP

    reference = open_image(reference_file)
    chain = read_transforms([str(one) for one in transforms])
    moved = chain.resample(image.read(image_file), grid_of(reference))
    space = codes_of(reference) if code is None else code
    return image.write(path, moved, space=space, step=INTENSITY_STEP)


class _MoveLesionsInputSpec(BaseInterfaceInputSpec):
    in_files = InputMultiObject(File(exists=True), mandatory=True, desc="lesion masks")
    inverse = File(exists=True, desc="ITK transform: maps points of the masks to the reference")


class _MoveLesionsOutputSpec(TraitedSpec):
    out_files = traits.List(File(exists=True), desc="masks with the position of the reference")
    used = traits.List(traits.Str, desc="files of the masks that are used: none or all")


class MoveLesions(SimpleInterface):
    """Move lesion masks by a rigid transform: their headers change, their voxels do not.

    Without the transform, the masks become empty.
    """

    input_spec = _MoveLesionsInputSpec
    output_spec = _MoveLesionsOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.io.formats.sampled import linear_matrix
        from bids_fcnreg.io.itk import read_transform

        matrix = None
        if isdefined(self.inputs.inverse):
            matrix = linear_matrix(read_transform(self.inputs.inverse))
        moved = []
        for path in self.inputs.in_files:
            mask = None if matrix is None else read_lesion(path)
            if mask is None:
                data = np.zeros(read_grid(path).shape, "uint8")
                mask = nib.Nifti1Image(data, load(path).affine)
            affine = mask.affine if matrix is None else matrix @ mask.affine
            written = nib.Nifti1Image(np.asanyarray(mask.dataobj), affine)
            moved.append(str(write(Path(runtime.cwd) / Path(path).name, written)))
        used = [] if matrix is None else [str(path) for path in self.inputs.in_files]
        self._results |= {"out_files": moved, "used": used}
        return runtime


class _AlignmentVerdictInputSpec(BaseInterfaceInputSpec):
    quality = File(exists=True, mandatory=True, desc="JSON of the alignment")
    name = traits.Str(mandatory=True, desc="name of the image")


class _AlignmentVerdictOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="HTML fragment: one line")


class AlignmentVerdict(SimpleInterface):
    """Format the verdict on an alignment for the report."""

    input_spec = _AlignmentVerdictInputSpec
    output_spec = _AlignmentVerdictOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        quality = json.loads(Path(self.inputs.quality).read_text())
        level, reason = quality["verdict"], quality["verdict_reason"]
        text = f"{self.inputs.name}: {_VERDICTS[level]}{reason or ''}"
        path = Path(runtime.cwd) / "verdict.html"
        path.write_text(render("verdict.html.j2", level=level, text=text), encoding="utf-8")
        self._results["out_file"] = str(path)
        return runtime


class _DrawAlignedInputSpec(_SlicesInputSpec):
    background = File(exists=True, desc="aligned image; nothing is drawn without it")


class DrawAligned(Slices):
    """Draw slices of an image, if it was aligned."""

    input_spec = _DrawAlignedInputSpec

    def _run_interface(self, runtime: Any) -> Any:
        return super()._run_interface(runtime) if isdefined(self.inputs.background) else runtime


class _StoreAlignedInputSpec(_DerivativesDataSinkInputSpec):
    in_file = InputMultiObject(
        File(exists=True), desc="the object to be saved; nothing is stored without it"
    )


class StoreAligned(DerivativesDataSink):
    """Store a result of the alignment in the derivatives, if there is one."""

    input_spec = _StoreAlignedInputSpec

    def _run_interface(self, runtime: Any) -> Any:
        return super()._run_interface(runtime) if isdefined(self.inputs.in_file) else runtime
