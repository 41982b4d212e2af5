"""Pictures and tables of the visual report."""

from __future__ import annotations

from html import escape
from pathlib import Path

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

#: Slices shown along each axis.
CUTS = 7
#: Of a T1-weighted brain, about this share of voxels is darker than white matter.
WHITE_MATTER_PERCENTILE = 60


class _ReportOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="picture (PNG) or fragment of HTML")


class _SlicesInputSpec(BaseInterfaceInputSpec):
    background = File(exists=True, mandatory=True, desc="image shown in grey")
    mask = File(exists=True, mandatory=True, desc="brain mask: its outline, and where to cut")
    contours_of = File(exists=True, desc="T1w brain whose white matter is outlined")
    labels = File(exists=True, desc="label image shown in colours")


class Slices(SimpleInterface):
    """Draw slices of an image with the outline of a mask, contours of a brain, or labels."""

    input_spec = _SlicesInputSpec
    output_spec = _ReportOutputSpec

    def _run_interface(self, runtime):
        import matplotlib

        matplotlib.use("Agg")
        import nibabel as nib
        from matplotlib import pyplot as plt
        from matplotlib.colors import ListedColormap
        from nilearn.plotting import plot_anat

        mask = nib.load(self.inputs.mask)
        cuts = slice_positions(np.asanyarray(mask.dataobj) > 0, mask.affine)
        background = nib.load(self.inputs.background)
        brightest = float(np.percentile(background.get_fdata(), 99.8))
        labels = brain = None
        if isdefined(self.inputs.labels):
            labels = _consecutive(self.inputs.labels)
        if isdefined(self.inputs.contours_of):
            brain = nib.load(self.inputs.contours_of)
            level = white_matter_level(brain.get_fdata())
        colours = matplotlib.colormaps["gist_rainbow"](np.linspace(0, 1, 256))
        colours[:, 3] = 0.3
        figure = plt.figure(figsize=(14, 7), facecolor="black")
        for row, axis in enumerate("yxz"):
            display = plot_anat(
                background,
                display_mode=axis,
                cut_coords=cuts[axis],
                figure=figure,
                axes=(0, row / 3, 1, 1 / 3),
                colorbar=False,
                dim=0,
                vmin=0,
                vmax=brightest,
            )
            if labels is not None:
                display.add_overlay(labels, cmap=ListedColormap(colours), threshold=0.5)
            display.add_contours(mask, levels=[0.5], colors="deepskyblue", linewidths=0.5)
            if brain is not None:
                display.add_contours(brain, levels=[level], colors="red", linewidths=0.5)
        out_file = Path(runtime.cwd) / "slices.png"
        figure.savefig(out_file, dpi=100, facecolor="black")
        plt.close(figure)
        self._results["out_file"] = str(out_file)
        return runtime


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


def white_matter_level(brain: np.ndarray) -> float:
    """Intensity at the border of grey and white matter of a T1w brain (zero outside)."""
    return float(np.percentile(brain[brain > 0], WHITE_MATTER_PERCENTILE))


def _consecutive(path: str):
    """Label image with its labels renumbered 1, 2, 3, …, so that colours are spread evenly."""
    import nibabel as nib

    nifti = nib.load(path)
    found, numbers = np.unique(np.asanyarray(nifti.dataobj), return_inverse=True)
    numbers = numbers.reshape(nifti.shape) + (0 if found[0] == 0 else 1)
    return nib.Nifti1Image(numbers.astype("int32"), nifti.affine)


class _SummaryInputSpec(BaseInterfaceInputSpec):
    t1w = InputMultiObject(File(exists=True), mandatory=True, desc="T1w images")
    lesions = InputMultiObject(File(exists=True), desc="lesion masks")
    skull_stripped = traits.Bool(mandatory=True, desc="the T1w came without skull")
    templates = traits.List(traits.Str, mandatory=True, desc="spaces registered to")
    mode = traits.Str(mandatory=True, desc="way of use")
    version = traits.Str(mandatory=True, desc="version of the software")


class Summary(SimpleInterface):
    """Say what was found for a subject and what was done to it."""

    input_spec = _SummaryInputSpec
    output_spec = _ReportOutputSpec

    def _run_interface(self, runtime):
        lesions = self.inputs.lesions if isdefined(self.inputs.lesions) else []
        extraction = "already done in the input" if self.inputs.skull_stripped else "done"
        rows = {
            "T1-weighted images": ", ".join(Path(path).name for path in self.inputs.t1w),
            "Lesion masks": ", ".join(Path(path).name for path in lesions) or "none",
            "Brain extraction": extraction,
            "Templates": ", ".join(self.inputs.templates),
            "Mode": self.inputs.mode,
            "bids_fcnreg": self.inputs.version,
        }
        self._results["out_file"] = str(write_table(Path(runtime.cwd) / "summary.html", rows))
        return runtime


def write_table(path: Path, rows: dict[str, str]) -> Path:
    """Write a table of names and values as a fragment of HTML."""
    lines = [
        f"<tr><th style='text-align:left;padding-right:2em'>{escape(name)}</th>"
        f"<td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
    ]
    path.write_text("\n".join(["<table>", *lines, "</table>"]) + "\n", encoding="utf-8")
    return path
