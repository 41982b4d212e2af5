"""Figures of the visual report: slices of brains and of deformations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

if TYPE_CHECKING:
    from bids_fcnreg.figures.mosaic import Mosaic

#: Largest number of labels in a legend.
LEGEND = 8

#: Percentile of a T1-weighted brain's intensities at the border of white matter.
WHITE_MATTER_PERCENTILE = 60

#: Smallest voxel size at which a deformation is drawn, in mm.
MIN_SPACING_MM = 2.0

#: Distance of the lines of a deformed grid, in mm.
GRID_LINES_MM = 8.0

#: Opacity of labels, and of volume changes.
_OPACITY = 0.4
_OPACITY_OF_CHANGES = 0.6


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
        from bids_fcnreg.figures.mosaic import Lines, Mosaic, overlay
        from bids_fcnreg.io.spatial_image import open_image

        mask, background = open_image(self.inputs.mask), open_image(self.inputs.background)
        inside = np.asanyarray(mask.dataobj) > 0
        mosaic = Mosaic(inside, mask.affine)
        picture = mosaic.grey(background, inside)
        legend: dict[str, Any] = {}
        lines: list[Lines] = []
        outline = mosaic.contours(inside.astype(np.float32), mask.affine, [0.5])
        if isdefined(self.inputs.labels):
            colours, legend = self._paint(mosaic)
            picture = overlay(picture, colours)
            lines.append((outline, "white", 0.9))
        else:
            lines.append((outline, "deepskyblue", 0.9))
        if isdefined(self.inputs.contours_of):
            brain = open_image(self.inputs.contours_of)
            data = np.asanyarray(brain.dataobj, dtype=np.float32)
            level = white_matter_level(data, inside)
            lines.append((mosaic.contours(data, brain.affine, [level]), "red", 0.5))
        out_file = Path(runtime.cwd) / "slices.png"
        self._results["out_file"] = str(mosaic.save(picture, out_file, lines, legend))
        return runtime

    def _paint(self, mosaic: Mosaic) -> tuple[np.ndarray, dict[str, Any]]:
        """Return colours (row, column, RGBA) of the labels, and a legend if there are few."""
        import matplotlib

        from bids_fcnreg.figures.mosaic import tile
        from bids_fcnreg.io.spatial_image import open_image

        nifti = open_image(self.inputs.labels)
        data = np.asanyarray(nifti.dataobj)
        indices = [int(index) for index in np.unique(data) if index]
        # Consecutive indices, for evenly spread colours.
        slices = tile(mosaic.sample(data, nifti.affine, order=0))
        indices_shown = np.where(slices == 0, 0, np.searchsorted(indices, slices) + 1)
        hues = np.linspace(0, 1, len(indices) + 1)
        table = matplotlib.colormaps["gist_rainbow"](hues)
        table[:, 3] = _OPACITY
        table[0, 3] = 0
        legend = {}
        if isdefined(self.inputs.lookup) and len(indices) <= LEGEND:
            names = _names(self.inputs.lookup)
            legend = {
                names[index]: colour for index, colour in zip(indices, table[1:, :3], strict=True)
            }
        return table[indices_shown], legend


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
        from bids_fcnreg.figures.mosaic import Mosaic, write_flicker
        from bids_fcnreg.io.spatial_image import open_image

        mask = open_image(self.inputs.mask)
        inside = np.asanyarray(mask.dataobj) > 0
        mosaic = Mosaic(inside, mask.affine)
        before, after = (
            mosaic.grey(open_image(path), inside)
            for path in (self.inputs.before, self.inputs.after)
        )
        names = self.inputs.before_label, self.inputs.after_label
        out_file = Path(runtime.cwd) / "flicker.svg"
        self._results["out_file"] = str(write_flicker(out_file, before, after, names))
        return runtime


class _DeformationInputSpec(BaseInterfaceInputSpec):
    background = File(exists=True, mandatory=True, desc="image on the template's grid")
    mask = File(exists=True, mandatory=True, desc="brain mask of the template")
    transform = File(exists=True, mandatory=True, desc="ITK .h5, displacement and affine")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="processor cores to use")


class Deformation(SimpleInterface):
    """Draw the nonlinear part of a transform: volume change and deformed grid."""

    input_spec = _DeformationInputSpec
    output_spec = _PictureOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import matplotlib
        import torch

        from bids_fcnreg.fcn.spatial.transform import Transform
        from bids_fcnreg.figures.mosaic import Lines, Mosaic, overlay, tile
        from bids_fcnreg.io.itk import read_transform
        from bids_fcnreg.io.nifti import grid_of
        from bids_fcnreg.io.spatial_image import open_image

        torch.set_num_threads(self.inputs.num_threads)
        mask, background = open_image(self.inputs.mask), open_image(self.inputs.background)
        inside = np.asanyarray(mask.dataobj) > 0
        mosaic = Mosaic(inside, mask.affine)
        deformation = Transform(read_transform(self.inputs.transform).displacements)
        full = grid_of(mask)
        grid = full.with_spacing(np.maximum(MIN_SPACING_MM, full.spacing))
        change = tile(mosaic.sample(deformation.log_jacobian(grid)[0, 0].numpy(), grid.affine))
        within = tile(mosaic.sample(inside.astype(np.float32), mask.affine)) > 0.5
        top = (float(np.percentile(np.abs(change[within]), 99)) if within.any() else 0.0) or 1.0
        colours = matplotlib.colormaps["RdBu_r"]((change / top + 1) / 2)
        colours[..., 3] = _OPACITY_OF_CHANGES * within
        # Contours of the mapped coordinates are the deformed grid.
        lines: list[Lines] = []
        for axis, coordinates in zip(
            "xyz", deformation.map(grid.points()).float().unbind(-1), strict=True
        ):
            levels = np.arange(
                float(coordinates.min()), float(coordinates.max()), GRID_LINES_MM
            ).tolist()
            found = mosaic.contours(coordinates.numpy(), grid.affine, levels, axis, fill=np.nan)
            lines.append((found, "white", 0.4))
        picture = overlay(mosaic.grey(background, inside), colours)
        out_file = Path(runtime.cwd) / "deformation.png"
        self._results["out_file"] = str(mosaic.save(picture, out_file, lines, _factors(top)))
        return runtime


def _factors(top: float) -> dict[str, Any]:
    """Return the colours of volume changes from exp(-top) to exp(top), by factor as text."""
    import matplotlib

    colours = matplotlib.colormaps["RdBu_r"]
    return {
        f"× {np.exp(top * part):.2f}": colours((part + 1) / 2) for part in np.linspace(-1, 1, 5)
    }


def white_matter_level(brain: np.ndarray, inside: np.ndarray) -> float:
    """Estimate the intensity at the border of grey and white matter in the brain of a T1w."""
    found = brain[inside & np.isfinite(brain)]
    return float(np.percentile(found, WHITE_MATTER_PERCENTILE)) if found.size else 0.0


def _names(lookup: str) -> dict[int, str]:
    """Read the names of labels by index."""
    from bids_fcnreg.bids.derivatives import read_tsv

    return {int(row["index"]): row["name"] for row in read_tsv(lookup)}
