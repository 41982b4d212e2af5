"""Steps of a study template: mean shape, mean image, collapsed transforms."""

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

from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads
from bids_fcnreg.io.nifti import grid_of, write
from bids_fcnreg.io.orientation import TEMPLATE, set_codes
from bids_fcnreg.io.spatial_image import open_image

#: Margin around the brain of a study template in mm, in which deformations taper to zero.
MARGIN_MM = 14.0


class _MeanShapeInputSpec(ThreadsInputSpec):
    transforms = InputMultiObject(
        File(exists=True),
        mandatory=True,
        desc="ITK .h5 of each image: maps points of the template to the image",
    )
    weights = traits.List(traits.Float, mandatory=True, desc="weight of each image")
    mask = File(exists=True, mandatory=True, desc="brain mask of the template")
    anchored = traits.Bool(False, usedefault=True, desc="keep the template's scale")
    symmetric = traits.Bool(False, usedefault=True, desc="left–right symmetric")
    enlarge = traits.Bool(False, usedefault=True, desc="enlarge the grid if the brain needs it")


class _MeanShapeOutputSpec(TraitedSpec):
    update = File(
        exists=True, desc="ITK .h5: maps points of the mean shape to points of the template"
    )
    inverse_update = File(exists=True, desc="ITK .h5: its inverse")
    grid = File(exists=True, desc="image on the grid of the template of mean shape")
    moved_mm = traits.Float(desc="RMS displacement of the update in the brain")
    bias_mm = traits.Float(desc="RMS distance from the mean shape after the update")


class MeanShape(SimpleInterface):
    """Compute the update from a template to the mean shape of the registered images."""

    input_spec = _MeanShapeInputSpec
    output_spec = _MeanShapeOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.fcn.groupwise import enlarge_grid, mean_shape, shape_bias
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import read_transform, write_transform

        set_threads(self.inputs.num_threads)
        mask = image.read(self.inputs.mask)
        paths, weights = self.inputs.transforms, self.inputs.weights
        options = {"anchored": self.inputs.anchored, "symmetric": self.inputs.symmetric}
        shape = mean_shape(map(read_transform, paths), weights, mask, **options)
        grid = mask.grid
        if self.inputs.enlarge:
            grid = enlarge_grid(grid, mask, shape.stretch, MARGIN_MM)
        empty = nib.Nifti1Image(np.zeros(grid.shape, "uint8"), grid.affine)
        directory = Path(runtime.cwd)
        self._results |= {
            "update": str(write_transform(directory / "update.h5", shape.update)),
            "inverse_update": str(write_transform(directory / "inverse.h5", shape.inverse_update)),
            "grid": str(write(directory / "grid.nii.gz", set_codes(empty, TEMPLATE))),
            "moved_mm": shape.rms_mm(mask),
            "bias_mm": shape_bias(map(read_transform, paths), shape, weights, mask, **options),
        }
        return runtime


class _MeanImageInputSpec(BaseInterfaceInputSpec):
    images = InputMultiObject(File(exists=True), mandatory=True, desc="images on one grid")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="their brain masks")
    weights = traits.List(traits.Float, mandatory=True, desc="weight of each image")
    symmetric = traits.Bool(False, usedefault=True, desc="average it with its mirror image")
    sharpening = traits.Float(0.5, usedefault=True, desc="amount of unsharp masking")
    before = File(exists=True, desc="template of the previous iteration")


class _MeanImageOutputSpec(TraitedSpec):
    t1w = File(exists=True, desc="the template")
    mask = File(exists=True, desc="its brain mask")
    sharpness = traits.Float(desc="mean gradient over mean intensity in the brain, per mm")
    change = traits.Float(desc="RMS difference to `before` in the brain, over its mean intensity")


class MeanImage(SimpleInterface):
    """Compute the sharpened robust mean of images, a few planes at a time."""

    input_spec = _MeanImageInputSpec
    output_spec = _MeanImageOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.fcn.groupwise import sharpness
        from bids_fcnreg.io import image
        from bids_fcnreg.study.template import relative_change, robust_average

        inputs = self.inputs
        t1w, mask = robust_average(
            inputs.images, inputs.masks, inputs.weights, inputs.symmetric, inputs.sharpening
        )
        directory = Path(runtime.cwd)
        self._results |= {
            "t1w": str(image.write(directory / "T1w.nii.gz", t1w, space=TEMPLATE)),
            "mask": str(image.write(directory / "mask.nii.gz", mask, "uint8", TEMPLATE)),
            "sharpness": sharpness(t1w, mask.data),
        }
        if isdefined(inputs.before):
            self._results["change"] = relative_change(image.read(inputs.before), t1w, mask)
        return runtime


class _CollapseInputSpec(ThreadsInputSpec):
    transforms = InputMultiObject(
        File(exists=True), mandatory=True, desc="ITK .h5, template to image, the first acts first"
    )
    inverses = InputMultiObject(
        File(exists=True), mandatory=True, desc="ITK .h5, image to template, the first acts first"
    )
    reference = File(exists=True, mandatory=True, desc="the template")


class _CollapseOutputSpec(TraitedSpec):
    transform = File(exists=True, desc="ITK .h5 that resamples the image onto the template")
    inverse = File(exists=True, desc="ITK .h5 that resamples the template onto the image")


class CollapseTransforms(SimpleInterface):
    """Collapse a chain of transforms into one displacement and one affine, in both directions."""

    input_spec = _CollapseInputSpec
    output_spec = _CollapseOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.fcn.groupwise import collapse, collapse_inverse, linear_part
        from bids_fcnreg.io.itk import write_transform
        from bids_fcnreg.io.transform_chain import read_transforms

        set_threads(self.inputs.num_threads)
        grid = grid_of(open_image(self.inputs.reference))
        chain = read_transforms(self.inputs.transforms)
        matrix = linear_part(chain)
        inverse = collapse_inverse(read_transforms(self.inputs.inverses), matrix, grid)
        directory = Path(runtime.cwd)
        forward = collapse(chain, matrix, grid)
        self._results |= {
            "transform": str(write_transform(directory / "forward.h5", forward, over=grid)),
            "inverse": str(write_transform(directory / "inverse.h5", inverse, over=grid)),
        }
        return runtime


class _TissueMapsInputSpec(BaseInterfaceInputSpec):
    builtin = traits.Str(mandatory=True, desc="name of the built-in template")
    mask = File(exists=True, mandatory=True, desc="brain mask of the template")
    transform = File(
        exists=True,
        mandatory=True,
        desc="ITK .h5, maps points of the template to the built-in template",
    )


class _TissueMapsOutputSpec(TraitedSpec):
    csf = File(exists=True, desc="probability of cerebrospinal fluid")
    gm = File(exists=True, desc="probability of grey matter")
    wm = File(exists=True, desc="probability of white matter")


class TissueMaps(SimpleInterface):
    """Resample the tissue maps of a built-in template to another one."""

    input_spec = _TissueMapsInputSpec
    output_spec = _TissueMapsOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import read_transform
        from bids_fcnreg.study.template import tissue_maps

        maps = tissue_maps(
            read_transform(self.inputs.transform),
            image.read(self.inputs.mask),
            self.inputs.builtin,
        )
        for name, values in maps.items():
            path = Path(runtime.cwd) / f"{name}.nii.gz"
            self._results[name] = str(image.write(path, values, space=TEMPLATE))
        return runtime
