"""Registration of a pair of images and use of its transforms, for workflows of your own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.utils.filemanip import fname_presuffix

from bids_fcnreg.config import CONTRASTS, INTERPOLATIONS, NETWORKS
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import MODES, TRANSFORMS
from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads
from bids_fcnreg.io import nifti

_TEMPLATE = "or name of a template, such as MNI152NLin2009cAsym"


class _RegistrationInputSpec(ThreadsInputSpec):
    fixed = traits.Str(mandatory=True, desc=f"fixed image, {_TEMPLATE}")
    moving = File(exists=True, mandatory=True, desc="moving image")
    transform = traits.Enum(
        *reversed(TRANSFORMS), usedefault=True, desc="deformable, or a linear transform"
    )
    mode = traits.Enum(*MODES, usedefault=True, desc="how the deformation is found")
    initial = InputMultiObject(
        File(exists=True),
        desc="transforms from which the registration starts; the first acts first",
    )
    fixed_mask = File(exists=True, desc="brain mask of the fixed image; templates have their own")
    moving_mask = File(exists=True, desc="brain mask of the moving image")
    fixed_exclude = File(exists=True, desc="lesion mask of the fixed image")
    moving_exclude = File(exists=True, desc="lesion mask of the moving image")
    fixed_contrast = traits.Enum(*CONTRASTS, usedefault=True, desc="contrast of the fixed image")
    moving_contrast = traits.Enum(*CONTRASTS, usedefault=True, desc="contrast of the moving image")
    labels = File(exists=True, desc="labels in the space of the moving image, to resample as well")
    network = traits.Enum(*NETWORKS, usedefault=True, desc="network architecture")
    model = File(exists=True, desc="trained weights instead of those of the package")
    device = traits.Str("auto", usedefault=True, desc="auto, cpu, cuda or cuda:N")
    seed = traits.Int(0, usedefault=True, desc="seed of the random numbers")


class _RegistrationOutputSpec(TraitedSpec):
    warped = File(exists=True, desc="moving image on the grid of the fixed image")
    warped_labels = File(desc="labels on the grid of the fixed image, if there are labels")
    xfm = File(exists=True, desc="ITK .h5 that resamples the moving onto the fixed image")
    inverse_xfm = File(exists=True, desc="ITK .h5 that resamples the fixed onto the moving image")
    affine = File(exists=True, desc="ITK .mat, the linear part of xfm")
    quality = File(exists=True, desc="JSON of the quality metrics and the verdict")
    verdict = traits.Str(desc="good, doubtful, failed or unknown")


class Registration(SimpleInterface):
    """Register a moving image to a fixed one, as `bids_fcnreg.register` does.

    The names of the output files begin with that of the moving image.

    Examples
    --------
    >>> from bids_fcnreg.interfaces import Registration
    >>> node = Registration(fixed="MNI152NLin2009cAsym", mode="predict")
    >>> node.inputs.transform
    'deformable'
    """

    input_spec = _RegistrationInputSpec
    output_spec = _RegistrationOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg import api  # imports PyTorch, which takes seconds

        given = self.inputs.get_traitsfree()
        set_threads(given.pop("num_threads"))
        labels = given.pop("labels", None)
        fixed, moving = given.pop("fixed"), given.pop("moving")
        result = api.register(fixed, moving, **given)
        prefix = fname_presuffix(moving, suffix="_", newpath=runtime.cwd, use_ext=False)
        files = result.save(prefix)
        names = ("warped", "xfm", "inverse_xfm", "affine")
        self._results |= {name: str(path) for name, path in zip(names, files, strict=True)}
        if labels is not None:
            warped = api.apply(labels, fixed, result.forward, interpolation="label")
            path = nifti.write(f"{prefix}warped_labels.nii.gz", warped)
            self._results["warped_labels"] = str(path)
        quality = Path(f"{prefix}quality.json")
        quality.write_text(json.dumps(result.quality, indent=2) + "\n")
        self._results |= {"quality": str(quality), "verdict": result.quality["verdict"]}
        return runtime


class _ApplyTransformsInputSpec(ThreadsInputSpec):
    input_image = File(exists=True, mandatory=True, desc="image or series to resample")
    reference_image = traits.Str(desc=f"image that defines the grid, {_TEMPLATE}")
    transforms = InputMultiObject(
        traits.Either("identity", File(exists=True)),
        mandatory=True,
        desc="as in antsApplyTransforms: the last one is applied to the image first",
    )
    invert_transform_flags = InputMultiObject(
        traits.Bool, desc="whether to invert each of the transforms"
    )
    interpolation = traits.Enum(
        *INTERPOLATIONS, usedefault=True, desc="use label or nearest for label images"
    )
    default_value = traits.Float(0.0, usedefault=True, desc="value outside the image")
    spacing = traits.List(
        traits.Float, minlen=1, maxlen=3, desc="voxel size, one number or three, in mm"
    )


class _ApplyTransformsOutputSpec(TraitedSpec):
    output_image = File(exists=True, desc="input_image on the grid of reference_image")


class ApplyTransforms(SimpleInterface):
    """Resample an image through transforms, as `bids_fcnreg.apply` does.

    Inputs and outputs have the names of Nipype's interface to antsApplyTransforms. Without a
    reference, the grid is that of the image.
    """

    input_spec = _ApplyTransformsInputSpec
    output_spec = _ApplyTransformsOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg import api  # imports PyTorch, which takes seconds

        inputs = self.inputs
        set_threads(inputs.num_threads)
        transforms = inputs.transforms
        flags = [False] * len(transforms)
        if isdefined(inputs.invert_transform_flags):
            flags = inputs.invert_transform_flags
        if len(flags) != len(transforms):
            raise InputError(
                f"There are {len(flags)} invert_transform_flags for {len(transforms)} transforms. "
                "Provide one for each."
            )
        resampled = api.apply(
            inputs.input_image,
            inputs.reference_image if isdefined(inputs.reference_image) else None,
            list(zip(transforms, flags, strict=True)),
            interpolation=inputs.interpolation,
            default_value=inputs.default_value,
            spacing=inputs.spacing if isdefined(inputs.spacing) else None,
        )
        output = fname_presuffix(
            inputs.input_image, suffix="_trans.nii.gz", newpath=runtime.cwd, use_ext=False
        )
        self._results["output_image"] = str(nifti.write(output, resampled))
        return runtime
