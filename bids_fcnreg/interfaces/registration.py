"""Registration, and resampling with its transform."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import (
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads
from bids_fcnreg.io.jacobian import JACOBIAN_STEP
from bids_fcnreg.io.nifti import grid_of, write
from bids_fcnreg.io.orientation import codes_of, template_code
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.preprocessing.lesions import excluded_percent, is_empty

if TYPE_CHECKING:
    from bids_fcnreg.fcn.spatial.transform import Transform


class _RegisterInputSpec(ThreadsInputSpec):
    fixed = File(exists=True, mandatory=True, desc="brain of the template")
    moving = File(exists=True, mandatory=True, desc="brain of the subject")
    fixed_mask = File(exists=True, desc="brain mask of the template, on the grid of `fixed`")
    moving_mask = File(exists=True, desc="brain mask of the subject, on the grid of `moving`")
    moving_exclude = File(
        exists=True, desc="lesion mask of the subject, excluded from the similarity"
    )
    to_t1w_like = traits.Bool(
        False,
        usedefault=True,
        desc="`moving` is a T1w-like image; `fixed` is replaced by one, too, unless its white "
        "matter is brighter than its gray matter",
    )
    initial = File(exists=True, desc="linear ITK transform: maps points of fixed to moving")
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
        from bids_fcnreg.io.registration import write_registration
        from bids_fcnreg.preprocessing.contrast import RegistrationInput, comparable_input

        set_threads(self.inputs.num_threads)
        names = ("fixed_mask", "moving_mask", "moving_exclude")
        files = {name: getattr(self.inputs, name) for name in names}
        files = {name: path for name, path in files.items() if isdefined(path)}
        metrics: dict[str, Any] = {}
        if "moving_exclude" in files:
            lesion, brain = files["moving_exclude"], files.get("moving_mask")
            metrics["excluded_percent"] = excluded_percent(lesion, brain)
            if is_empty(lesion):  # the participant has no lesion
                del files["moving_exclude"]
        masks = {name: image.read(path) for name, path in files.items()}
        template = image.read(self.inputs.fixed)
        fixed = RegistrationInput(template, masks.get("fixed_mask"))
        if self.inputs.to_t1w_like:
            fixed = comparable_input(fixed)
            metrics["t1w_like"] = ["fixed"] if fixed.replaced else []
        result = register(
            fixed.image,
            image.read(self.inputs.moving),
            initial=_linear(self.inputs.initial) if isdefined(self.inputs.initial) else None,
            mode=self.inputs.mode,
            network=self.inputs.network,
            model=Path(self.inputs.model) if isdefined(self.inputs.model) else None,
            device=self.inputs.device,
            seed=self.inputs.seed,
            threads=self.inputs.num_threads,
            fixed_mask=fixed.mask,
            moving_mask=masks.get("moving_mask"),
            moving_exclude=masks.get("moving_exclude"),
        )
        directory = Path(runtime.cwd)
        brains = (fixed.mask, masks.get("moving_mask"))
        self._results |= write_registration(directory, result, template.grid, brains, **metrics)
        return runtime


def _linear(path: str) -> Transform:
    """Read a linear ITK transform."""
    from bids_fcnreg.io.itk import read_transform

    transform = read_transform(path)
    if transform.displacements:
        raise InputError(f"{path} is nonlinear. Remove it, or choose other --derivatives.")
    return transform


class _ResampleInputSpec(ThreadsInputSpec):
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
        from bids_fcnreg.io import image
        from bids_fcnreg.io.resampling import resample_labels
        from bids_fcnreg.io.transform_chain import read_transforms

        inputs = self.inputs
        set_threads(inputs.num_threads)
        chain, reference = read_transforms(inputs.transform), open_image(inputs.reference)
        grid = grid_of(reference)
        space = template_code(reference) if inputs.onto_template else codes_of(reference)
        out_file = Path(runtime.cwd) / f"resampled.nii{'.gz' if inputs.compress else ''}"
        if inputs.interpolation == "linear":
            image.write(out_file, chain.resample(image.read(inputs.in_file), grid), space=space)
        else:
            write(
                out_file, resample_labels(inputs.in_file, grid, chain, inputs.interpolation, space)
            )
        self._results["out_file"] = str(out_file)
        return runtime


class _ToTemplateInputSpec(ThreadsInputSpec):
    preproc = File(exists=True, mandatory=True, desc="T1w image of the subject")
    mask = File(exists=True, mandatory=True, desc="brain mask of the subject")
    transform = File(
        exists=True,
        mandatory=True,
        desc="ITK .h5: maps points of the template to points of the subject",
    )
    reference = File(exists=True, mandatory=True, desc="image of the template")
    template_mask = File(exists=True, mandatory=True, desc="brain mask of the template")


class _ToTemplateOutputSpec(TraitedSpec):
    preproc_std = File(exists=True, desc="preproc on the grid of the template, linear")
    mask_std = File(exists=True, desc="mask on the grid of the template")
    log_jacobian = File(
        exists=True, desc="log Jacobian determinant in the brain, subject over template"
    )


class ToTemplate(SimpleInterface):
    """Resample a subject's image and mask to a template; compute the log-Jacobian."""

    input_spec = _ToTemplateInputSpec
    output_spec = _ToTemplateOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.fcn.spatial.normalization import normalize
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import read_transform
        from bids_fcnreg.preprocessing.intensity import INTENSITY_STEP

        inputs = self.inputs
        set_threads(inputs.num_threads)
        reference = open_image(inputs.reference)
        made = normalize(
            image.read(inputs.preproc),
            image.read(inputs.mask),
            read_transform(inputs.transform),
            grid_of(reference),
            image.read(inputs.template_mask),
        )
        space = template_code(reference)
        outputs = (
            ("preproc_std", "float32", INTENSITY_STEP),
            ("mask_std", "uint8", None),
            ("log_jacobian", "float32", JACOBIAN_STEP),
        )
        for (name, dtype, step), one in zip(outputs, made, strict=True):
            path = image.write(Path(runtime.cwd) / f"{name}.nii.gz", one, dtype, space, step)
            self._results[name] = str(path)
        return runtime
