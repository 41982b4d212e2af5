"""Figures of the visual report: slices of brains and of deformations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_fcnreg.bids.derivatives import read_tsv
from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads
from bids_fcnreg.io.spatial_image import open_image


class _PictureOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="PNG, or SVG if animated")


class _SlicesInputSpec(BaseInterfaceInputSpec):
    background = File(exists=True, mandatory=True, desc="image drawn in grey")
    mask = File(
        exists=True, mandatory=True, desc="brain mask: outlined, and covered by the slices"
    )
    contours_of = File(
        exists=True, desc="T1w image on the mask's grid whose white matter is outlined"
    )
    labels = File(exists=True, desc="label image drawn in colours")
    lookup = File(
        exists=True, desc="TSV of its labels: index, name; for a legend if there are few"
    )


class Slices(SimpleInterface):
    """Draw slices of an image with a mask outline, contours of a brain, or labels."""

    input_spec = _SlicesInputSpec
    output_spec = _PictureOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.figures.slices import draw_slices  # imports Matplotlib

        names = ("background", "mask", "contours_of", "labels")
        files = {name: getattr(self.inputs, name) for name in names}
        images = {name: open_image(path) for name, path in files.items() if isdefined(path)}
        regions = None
        if isdefined(self.inputs.lookup):
            rows = read_tsv(self.inputs.lookup)
            regions = {int(row["index"]): row["name"] for row in rows}
        picture = draw_slices(Path(runtime.cwd) / "slices.png", **images, names=regions)
        self._results["out_file"] = str(picture)
        return runtime


class _FlickerInputSpec(BaseInterfaceInputSpec):
    before = File(exists=True, mandatory=True, desc="image shown by default")
    after = File(exists=True, mandatory=True, desc="image shown under the mouse pointer")
    mask = File(exists=True, mandatory=True, desc="brain mask on the grid of both images")
    before_label = traits.Str("before", usedefault=True, desc="name of the first image")
    after_label = traits.Str("after", usedefault=True, desc="name of the other image")


class Flicker(SimpleInterface):
    """Show two images on one grid, alternating under the mouse pointer."""

    input_spec = _FlickerInputSpec
    output_spec = _PictureOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.figures.slices import draw_flicker  # imports Matplotlib

        inputs = self.inputs
        picture = draw_flicker(
            Path(runtime.cwd) / "flicker.svg",
            [open_image(inputs.before), open_image(inputs.after)],
            open_image(inputs.mask),
            (inputs.before_label, inputs.after_label),
        )
        self._results["out_file"] = str(picture)
        return runtime


class _DeformationInputSpec(ThreadsInputSpec):
    background = File(exists=True, mandatory=True, desc="image on the template's grid")
    mask = File(exists=True, mandatory=True, desc="brain mask of the template")
    transform = File(exists=True, mandatory=True, desc="ITK .h5, displacement and affine")


class Deformation(SimpleInterface):
    """Draw the nonlinear part of a transform: volume change and deformed grid."""

    input_spec = _DeformationInputSpec
    output_spec = _PictureOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.figures.deformation import draw_deformation
        from bids_fcnreg.io.itk import read_transform

        set_threads(self.inputs.num_threads)
        picture = draw_deformation(
            Path(runtime.cwd) / "deformation.png",
            read_transform(self.inputs.transform),
            open_image(self.inputs.background),
            open_image(self.inputs.mask),
        )
        self._results["out_file"] = str(picture)
        return runtime
