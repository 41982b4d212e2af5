"""Registration, and resampling with its transform."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

from bids_fcnreg.fcn.modes import MODES

if TYPE_CHECKING:
    from bids_fcnreg.fcn.spatial.grid import Grid, Image


class _ThreadsInputSpec(BaseInterfaceInputSpec):
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="processor cores to use")


class _RegisterInputSpec(_ThreadsInputSpec):
    fixed = File(exists=True, mandatory=True, desc="brain of the template")
    moving = File(exists=True, mandatory=True, desc="brain of the subject")
    fixed_mask = File(exists=True, desc="brain mask of the template, on the grid of `fixed`")
    moving_mask = File(exists=True, desc="brain mask of the subject, on the grid of `moving`")
    moving_exclude = File(
        exists=True, desc="lesion mask of the subject, excluded from the similarity"
    )
    mode = traits.Enum(*MODES, usedefault=True, desc="registration mode")
    network = traits.Enum("diffeomorphic", "2017", usedefault=True, desc="network architecture")
    model = File(exists=True, desc="trained weights instead of those of the package")
    device = traits.Str("auto", usedefault=True, desc="auto, cpu, cuda or cuda:N")
    seed = traits.Int(0, usedefault=True, desc="seed of the random numbers")
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="occupies a GPU slot")


class _RegisterOutputSpec(TraitedSpec):
    transform = File(exists=True, desc="ITK .h5 that resamples the subject onto the template")
    inverse = File(exists=True, desc="ITK .h5 that resamples the template onto the subject")
    quality = File(exists=True, desc="JSON of the quality metrics")


class Register(SimpleInterface):
    """Register a subject's brain to a template's brain; write the transform and its inverse."""

    input_spec = _RegisterInputSpec
    output_spec = _RegisterOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.fcn.register import register
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import write_transform
        from bids_fcnreg.io.spatial_image import open_image

        names = ("fixed_mask", "moving_mask", "moving_exclude")
        files = {name: getattr(self.inputs, name) for name in names}
        files = {name: path for name, path in files.items() if isdefined(path)}
        excludes = "moving_exclude" in files
        if excludes and not np.asanyarray(open_image(files["moving_exclude"]).dataobj).any():
            del files["moving_exclude"]  # the participant has no lesion
        masks = {name: image.read(path) for name, path in files.items()}
        fixed = image.read(self.inputs.fixed)
        result = register(
            fixed,
            image.read(self.inputs.moving),
            mode=self.inputs.mode,
            network=self.inputs.network,
            model=Path(self.inputs.model) if isdefined(self.inputs.model) else None,
            device=self.inputs.device,
            seed=self.inputs.seed,
            threads=self.inputs.num_threads,
            **masks,
        )
        folder = Path(runtime.cwd)
        metrics = result.quality.as_dict()
        if excludes:
            metrics["excluded_percent"] = _excluded_percent(masks)
        quality = folder / "quality.json"
        quality.write_text(json.dumps(metrics, indent=2) + "\n")
        for name, file, made in (
            ("transform", "forward.h5", result.forward),
            ("inverse", "inverse.h5", result.inverse),
        ):
            self._results[name] = str(write_transform(folder / file, made, over=fixed.grid))
        self._results["quality"] = str(quality)
        return runtime


def _excluded_percent(masks: Mapping[str, Image]) -> float | None:
    """Compute the lesion percentage of the subject's brain; None without a brain mask."""
    from bids_fcnreg.preprocessing.lesions import lesion_fraction

    if "moving_exclude" not in masks:
        return 0.0
    if "moving_mask" not in masks:
        return None
    lesion, brain = (masks[f"moving_{name}"].data.numpy() > 0.5 for name in ("exclude", "mask"))
    return 100 * lesion_fraction(lesion, brain)


class _ResampleInputSpec(_ThreadsInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image in its original space")
    reference = File(exists=True, mandatory=True, desc="image that defines the grid of the result")
    transform = InputMultiObject(
        File(exists=True),
        mandatory=True,
        desc="ITK .h5: maps points of reference to in_file; of several, the first acts first",
    )
    interpolation = traits.Enum(
        "linear", "nearest", "label", usedefault=True, desc="label: majority of trilinear weights"
    )
    onto_template = traits.Bool(False, usedefault=True, desc="reference is in a template's space")
    compress = traits.Bool(True, usedefault=True, desc="write .nii.gz, else .nii")


class _ResampleOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="in_file on the grid of reference")


class Resample(SimpleInterface):
    """Resample an image or labels through transforms with one interpolation."""

    input_spec = _ResampleInputSpec
    output_spec = _ResampleOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import torch

        from bids_fcnreg.io import image, nifti
        from bids_fcnreg.io.transform_chain import read_transforms

        torch.set_num_threads(self.inputs.num_threads)
        chain, how = read_transforms(self.inputs.transform), self.inputs.interpolation
        grid = grid_of_file(self.inputs.reference)
        space = resampled_codes(self.inputs.reference, self.inputs.onto_template)
        extension = ".nii.gz" if self.inputs.compress else ".nii"
        out_file = Path(runtime.cwd) / f"resampled{extension}"
        if how == "linear":
            resampled = chain.resample(image.read(self.inputs.in_file), grid)
            image.write(out_file, resampled, dtype="float32", space=space)
        else:
            indices, labels = image.index_labels(nifti.load(self.inputs.in_file, dtype="float64"))
            resampled = chain.resample(indices, grid, interpolation=how)
            dtype = _integer_type(self.inputs.in_file, labels)
            nifti.write(out_file, image.restore_labels(resampled, labels, space), dtype=dtype)
        self._results["out_file"] = str(out_file)
        return runtime


class _ToTemplateInputSpec(_ThreadsInputSpec):
    preproc = File(exists=True, mandatory=True, desc="T1w image of the subject")
    mask = File(exists=True, mandatory=True, desc="brain mask of the subject")
    transform = File(
        exists=True,
        mandatory=True,
        desc="ITK .h5: maps points of the template to points of the subject",
    )
    reference = File(exists=True, mandatory=True, desc="image of the template")


class _ToTemplateOutputSpec(TraitedSpec):
    preproc_std = File(exists=True, desc="preproc on the grid of the template, linear")
    mask_std = File(exists=True, desc="mask on the grid of the template")
    log_jacobian = File(exists=True, desc="log Jacobian determinant, subject over template")


class ToTemplate(SimpleInterface):
    """Resample a subject's image and mask to a template; compute the log-Jacobian."""

    input_spec = _ToTemplateInputSpec
    output_spec = _ToTemplateOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import torch

        from bids_fcnreg.fcn.spatial.displacement import jacobian_determinant
        from bids_fcnreg.fcn.spatial.grid import Image
        from bids_fcnreg.fcn.spatial.transform import MIN_JACOBIAN, Transform
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import read_transform

        torch.set_num_threads(self.inputs.num_threads)
        grid = grid_of_file(self.inputs.reference)
        displacement = read_transform(self.inputs.transform).displacement(grid)
        whole = Transform((displacement,))
        preproc = whole.resample(image.read(self.inputs.preproc), grid)
        mask = whole.resample(image.read(self.inputs.mask), grid, interpolation="label")
        log_jacobian = jacobian_determinant(displacement.field).clamp(min=MIN_JACOBIAN).log()
        # Further decimal places are insignificant and do not compress.
        rounded = Image((1000 * log_jacobian).round() / 1000, grid)
        space = resampled_codes(self.inputs.reference, True)
        for name, made, dtype in (
            ("preproc_std", preproc, "float32"),
            ("mask_std", mask, "uint8"),
            ("log_jacobian", rounded, "float32"),
        ):
            out_file = Path(runtime.cwd) / f"{name}.nii.gz"
            image.write(out_file, made, dtype=dtype, space=space)
            self._results[name] = str(out_file)
        return runtime


def grid_of_file(path: str) -> Grid:
    """Return the grid of an image file, without reading its voxels."""
    from bids_fcnreg.io.nifti import grid_of
    from bids_fcnreg.io.spatial_image import open_image

    return grid_of(open_image(path))


def resampled_codes(reference: str, template: bool) -> int | tuple[int, int]:
    """Return the space codes of images resampled onto an image or template."""
    from bids_fcnreg.io.orientation import codes_of, template_code
    from bids_fcnreg.io.spatial_image import open_image

    nifti = open_image(reference)
    return template_code(nifti) if template else codes_of(nifti)


def _integer_type(path: str, labels: np.ndarray) -> str:
    """Return the data type for labels: that of their file if sufficient, else int32."""
    from bids_fcnreg.io.spatial_image import open_image

    dtype = open_image(path).get_data_dtype()
    fits = dtype.kind in "iu" and labels.max() <= np.iinfo(dtype).max
    return dtype.name if fits else "int32"
