"""Brain extraction."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import MIN_VOLUME_MM3, foreground
from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads
from bids_fcnreg.io.nifti import load, write
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.preprocessing.brain import is_extracted, is_mask


class _BrainExtractionInputSpec(ThreadsInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image of a head or brain")
    mode = traits.Enum(
        "auto",
        "force",
        "skip",
        usedefault=True,
        desc="auto: extract unless skull-stripped; force: always; skip: already skull-stripped",
    )
    extractor = traits.Enum(
        "deepbet",
        "anatomy",
        "synthstrip",
        usedefault=True,
        desc="deepbet: for T1w images; anatomy: our network, for any contrast; synthstrip: "
        "requires FreeSurfer",
    )
    source = traits.Str(nohash=True, desc="name of the original image in messages")


class _BrainExtractionOutputSpec(TraitedSpec):
    mask = File(exists=True, desc="brain mask on the grid of in_file: 0 and 1")
    skull_stripped = traits.Bool(desc="whether in_file is skull-stripped")


class BrainExtraction(SimpleInterface):
    """Compute a brain mask.

    In mode ``auto`` the extractor always runs: if hardly anything in the image is outside the
    brain that it finds, the image is skull-stripped. The mask of such an image is its foreground,
    not the result of the extractor.
    """

    input_spec = _BrainExtractionInputSpec
    output_spec = _BrainExtractionOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        path, mode = Path(self.inputs.in_file), self.inputs.mode
        nifti = load(path)
        data = np.asanyarray(nifti.dataobj)
        if is_mask(data):
            raise InputError(
                f"{self._named(path)} has one value only, like a mask. Replace it by the scan, or "
                "exclude it with --bids-filter-file."
            )
        stripped = True
        if mode != "skip":
            mask = self._extract(nifti, path, Path(runtime.cwd))
            stripped = mode == "auto" and is_extracted(data, mask, nifti.header.get_zooms())
        if stripped:
            mask = foreground(data)
        volume = mask.sum() * abs(np.linalg.det(nifti.affine[:3, :3]))
        if volume < MIN_VOLUME_MM3:
            raise InputError(
                f"The brain in {self._named(path)} has {volume / 1000:.1f} ml, too little for "
                "registration. Check the voxel size and the field of view."
            )
        if stripped and mask.mean() > 0.9:
            raise InputError(
                f"{self._named(path)} has hardly any background. Use the whole field of view or, "
                "if the image is not skull-stripped, omit --skull-strip-t1w skip."
            )
        header = nifti.header.copy()
        header.set_data_dtype(np.uint8)
        written = nib.Nifti1Image(mask.astype(np.uint8), nifti.affine, header)
        self._results["mask"] = str(write(Path(runtime.cwd) / "mask.nii.gz", written))
        self._results["skull_stripped"] = bool(stripped)
        return runtime

    def _named(self, path: Path) -> str:
        return self.inputs.source if isdefined(self.inputs.source) else str(path)

    def _extract(self, nifti: nib.Nifti1Image, path: Path, directory: Path) -> np.ndarray:
        if self.inputs.extractor == "synthstrip":
            mask = _synthstrip(path, directory, self.inputs.num_threads)
        elif self.inputs.extractor == "anatomy":
            mask = _anatomy(nifti, self.inputs.num_threads)
        else:
            mask = _deepbet(nifti, self.inputs.num_threads)
        if not mask.any():
            raise InputError(
                f"No brain was found in {self._named(path)}. Check that it is an image of a "
                "head. If it is skull-stripped, use --skull-strip-t1w skip."
            )
        return mask


def _deepbet(nifti: nib.Nifti1Image, threads: int) -> np.ndarray:
    """Run deepbet on the CPU: brain mask (i, j, k), all false if it finds no brain."""
    from deepbet import BrainExtraction as DeepBet  # imports PyTorch

    set_threads(threads)
    try:
        _, mask, _ = DeepBet(no_gpu=True).run(nifti)
    except (AssertionError, ValueError):  # raised if its first stage finds no brain
        return np.zeros(nifti.shape, bool)
    return np.asanyarray(mask.dataobj) > 0


def _anatomy(nifti: nib.Nifti1Image, threads: int) -> np.ndarray:
    """Run the anatomy network: brain mask (i, j, k)."""
    from bids_fcnreg.fcn.segment import segment
    from bids_fcnreg.io.image import to_image

    set_threads(threads)
    scan = to_image(nifti)
    return segment(scan).brain_mask(scan.grid).data[0, 0].numpy() > 0


def find_synthstrip() -> str:
    """Return the path of FreeSurfer's SynthStrip.

    Raises
    ------
    InputError
        If it is not on the PATH.
    """
    program = shutil.which("mri_synthstrip")
    if program is None:
        raise InputError(
            "mri_synthstrip is not on the PATH. Install FreeSurfer 7.3 or later, or choose "
            "another --skull-strip-method."
        )
    return program


def _synthstrip(path: Path, directory: Path, threads: int) -> np.ndarray:
    """Run FreeSurfer's SynthStrip: brain mask (i, j, k)."""
    out_file = directory / "synthstrip.nii.gz"
    command = [find_synthstrip(), "-i", str(path), "-m", str(out_file), "-t", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"mri_synthstrip failed on {path}: {done.stderr.strip()}")
    return np.asanyarray(open_image(out_file).dataobj) > 0
