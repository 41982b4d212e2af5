"""Pictures of the visual report: slices of brains, and of what a deformation does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

from bids_fcnreg.window import intensity_window

if TYPE_CHECKING:
    import nibabel as nib

#: At most so many labels are named in a picture.
LEGEND = 8

#: Slices shown along each axis.
CUTS = 7

#: Shown around the brain, in mm.
MARGIN_MM = 12.0

#: Of a T1-weighted brain, about this share of voxels is darker than white matter.
WHITE_MATTER_PERCENTILE = 60

#: Voxel size at which a deformation is shown where voxels are smaller, in mm.
FINEST_MM = 2.0

#: Distance of the lines of a deformed grid, in mm.
LINES_MM = 8.0


class _PictureOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="PNG")


class _SlicesInputSpec(BaseInterfaceInputSpec):
    background = File(exists=True, mandatory=True, desc="image shown in grey")
    mask = File(exists=True, mandatory=True, desc="brain mask: its outline, and where to cut")
    contours_of = File(
        exists=True, desc="T1w image on the mask's grid whose white matter is outlined"
    )
    labels = File(exists=True, desc="label image shown in colours")
    lookup = File(exists=True, desc="TSV of its labels: index, name; few of them are a legend")


class Slices(SimpleInterface):
    """Draw slices of an image with the outline of a mask, contours of a brain, or labels."""

    input_spec = _SlicesInputSpec
    output_spec = _PictureOutputSpec

    def _run_interface(self, runtime):
        import matplotlib
        import nibabel as nib
        from matplotlib.colors import ListedColormap

        mask, labels, brain, legend = nib.load(self.inputs.mask), None, None, {}
        if isdefined(self.inputs.labels):
            labels, indices = _consecutive(self.inputs.labels)
            opaque = matplotlib.colormaps["gist_rainbow"](np.linspace(0, 1, 256))
            colours = np.column_stack([opaque[:, :3], np.full(256, 0.4)])
            if isdefined(self.inputs.lookup) and len(indices) <= LEGEND:
                shown = (opaque[round(255 * n / len(indices))] for n in range(1, len(indices) + 1))
                names = _names(self.inputs.lookup)
                legend = dict(zip((names[index] for index in indices), shown, strict=True))
        if isdefined(self.inputs.contours_of):
            brain = nib.load(self.inputs.contours_of)
            level = white_matter_level(brain.get_fdata(), np.asanyarray(mask.dataobj) > 0)

        def draw(display: Any, axis: str) -> None:
            if labels is not None:
                display.add_overlay(
                    labels,
                    cmap=ListedColormap(colours),
                    threshold=0.5,
                    vmin=0,
                    vmax=max(len(indices), 1),
                )
            outline = "deepskyblue" if labels is None else "white"
            display.add_contours(mask, levels=[0.5], colors=outline, linewidths=0.9)
            if brain is not None:
                display.add_contours(brain, levels=[level], colors="red", linewidths=0.5)

        background = nib.load(self.inputs.background)
        out_file = Path(runtime.cwd) / "slices.png"
        self._results["out_file"] = str(draw_slices(background, mask, draw, out_file, legend))
        return runtime


class _DeformationInputSpec(BaseInterfaceInputSpec):
    background = File(exists=True, mandatory=True, desc="image on the template's grid")
    mask = File(exists=True, mandatory=True, desc="brain mask of the template")
    transform = File(exists=True, mandatory=True, desc="ITK .h5, displacement and affine")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="processor cores to use")


class Deformation(SimpleInterface):
    """Draw what a transform does beside its affine part: change of volume, a deformed grid."""

    input_spec = _DeformationInputSpec
    output_spec = _PictureOutputSpec

    def _run_interface(self, runtime):
        import nibabel as nib
        import torch

        from bids_fcnreg.fcn.geometry import Grid, Image
        from bids_fcnreg.fcn.itk import read_transform
        from bids_fcnreg.fcn.transform import Displacement, Transform

        torch.set_num_threads(self.inputs.num_threads)
        mask = nib.load(self.inputs.mask)
        inside = np.asanyarray(mask.dataobj) > 0
        steps = read_transform(self.inputs.transform).steps
        bent = Transform(tuple(step for step in steps if isinstance(step, Displacement)))
        full = Grid(mask.shape, mask.affine)
        grid = full.with_spacing(np.maximum(FINEST_MM, full.spacing))
        brain = Transform(()).resample(
            Image(torch.from_numpy(inside)[None, None].float(), full), grid
        )
        inside = brain.data[0, 0].numpy() > 0.5
        change = bent.log_jacobian(grid)[0, 0].numpy() * inside
        top = float(np.percentile(np.abs(change[inside]), 99)) or 1.0
        shown = nib.Nifti1Image(change, grid.affine)
        # Where every voxel comes from: an image of each of the coordinates.
        points = bent.map(grid.points()).float().numpy()
        places = [nib.Nifti1Image(points[..., n], grid.affine) for n in range(3)]

        def draw(display: Any, axis: str) -> None:
            display.add_overlay(
                shown, cmap="RdBu_r", vmin=-top, vmax=top, threshold=1e-6, transparency=0.6
            )
            for direction, place in zip("xyz", places, strict=True):
                if direction != axis:
                    values = place.get_fdata()[inside]
                    levels = np.arange(values.min(), values.max(), LINES_MM).tolist()
                    display.add_contours(
                        place, levels=levels, colors="white", linewidths=0.4, linestyles="solid"
                    )

        background = nib.load(self.inputs.background)
        out_file = Path(runtime.cwd) / "deformation.png"
        legend = _factors(top)
        self._results["out_file"] = str(draw_slices(background, mask, draw, out_file, legend))
        return runtime


def _factors(top: float) -> dict[str, Any]:
    """Colours of changes of volume from exp(-top) to exp(top), by their factor in words."""
    import matplotlib

    colours = matplotlib.colormaps["RdBu_r"]
    return {
        f"× {np.exp(top * part):.2f}": colours((part + 1) / 2) for part in np.linspace(-1, 1, 5)
    }


def draw_slices(
    background: nib.Nifti1Image,
    mask: nib.Nifti1Image,
    draw: Callable[[Any, str], None],
    path: Path,
    legend: Mapping[str, Any] | None = None,
) -> Path:
    """Draw a row of slices along each axis.

    Parameters
    ----------
    background : nibabel.Nifti1Image
        Shown in grey, around the brain only.
    mask : nibabel.Nifti1Image
        Brain mask on the same grid: the slices lie inside it.
    draw : callable
        Puts something over a row; is given nilearn's display and the axis, "x", "y" or "z".
    path : Path
        PNG to write.
    legend : mapping of str to colour, optional
        What colours mean, above the slices.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch
    from nilearn.plotting import plot_anat

    inside = np.asanyarray(mask.dataobj) > 0
    cuts = slice_positions(inside, mask.affine)
    shown = crop(background, inside)
    darkest, brightest = intensity_window(background.get_fdata(), inside)
    strip = 0.05 if legend else 0.0
    figure = plt.figure(figsize=(14, 7 / (1 - strip)), facecolor="black")
    for row, axis in enumerate("yxz"):
        display = plot_anat(
            shown,
            display_mode=axis,
            cut_coords=cuts[axis],
            figure=figure,
            axes=(0, row * (1 - strip) / 3, 1, (1 - strip) / 3),
            colorbar=False,
            dim=0,
            vmin=darkest,
            vmax=brightest,
        )
        draw(display, axis)
    if legend:
        # A dollar sign would begin a formula.
        labels = {name.replace("$", r"\$"): colour for name, colour in legend.items()}
        handles = [Patch(color=colour, label=name) for name, colour in labels.items()]
        figure.legend(
            handles=handles,
            loc="upper left",
            ncol=len(handles),
            labelcolor="white",
            facecolor="black",
            frameon=False,
        )
    figure.savefig(path, dpi=100, facecolor="black")
    plt.close(figure)
    return path


def crop(image: nib.Nifti1Image, inside: np.ndarray) -> nib.Nifti1Image:
    """The part of an image around a mask (bool, its shape), with a margin; all if it is empty."""
    import nibabel as nib

    if not inside.any():
        return image
    margin = np.ceil(MARGIN_MM / nib.affines.voxel_sizes(image.affine)).astype(int)
    found = np.argwhere(inside)
    lower, upper = np.maximum(found.min(0) - margin, 0), found.max(0) + margin + 1
    return image.slicer[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]


def slice_positions(mask: np.ndarray, affine: np.ndarray) -> dict[str, list[float]]:
    """Evenly spaced cuts through a mask.

    Parameters
    ----------
    mask : ndarray (i, j, k), bool
        Where the brain is; all of the volume if it is empty.
    affine : ndarray (4, 4)
        Voxel indices to RAS+ mm.

    Returns
    -------
    dict of list of float
        For "x", "y" and "z": `CUTS` positions in mm, inside the extent of the mask.
    """
    from nibabel.affines import apply_affine

    points = apply_affine(affine, np.argwhere(mask if mask.any() else np.ones_like(mask)))
    lower, upper = np.percentile(points, [1, 99], axis=0)
    cuts = np.linspace(lower, upper, CUTS + 2)[1:-1]
    return {axis: cuts[:, n].round(1).tolist() for n, axis in enumerate("xyz")}


def white_matter_level(brain: np.ndarray, inside: np.ndarray) -> float:
    """Intensity at the border of grey and white matter of a T1w image, `inside` its brain."""
    found = brain[inside & np.isfinite(brain)]
    return float(np.percentile(found, WHITE_MATTER_PERCENTILE)) if found.size else 0.0


def _names(lookup: str) -> dict[int, str]:
    """Names of labels by their index."""
    from bids_fcnreg.bids.derivatives import read_tsv

    return {int(row["index"]): row["name"] for row in read_tsv(lookup)}


def _consecutive(path: str) -> tuple[nib.Nifti1Image, list[int]]:
    """Label image with its labels renumbered 1, 2, 3, …, so that colours are spread evenly.

    Also returns what those numbers were before.
    """
    import nibabel as nib

    nifti = nib.load(path)
    found, numbers = np.unique(np.asanyarray(nifti.dataobj), return_inverse=True)
    numbers = numbers.reshape(nifti.shape) + (0 if found[0] == 0 else 1)
    renumbered = nib.Nifti1Image(numbers.astype("int32"), nifti.affine)
    return renumbered, [int(index) for index in found if index]
