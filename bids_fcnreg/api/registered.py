"""A registered pair: images, transforms, quality metrics, and a plot of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from bids_fcnreg.atomic import replacing_files
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io import image, itk, nifti
from bids_fcnreg.io.formats.itk import write_affine
from bids_fcnreg.io.formats.sampled import linear_matrix
from bids_fcnreg.io.orientation import SCANNER, Codes
from bids_fcnreg.qc.metrics import REGISTRATION_METRICS, as_number

if TYPE_CHECKING:
    import pandas as pd
    from nilearn.plotting.displays import BaseSlicer


@dataclass(frozen=True, eq=False, repr=False)
class Registered:
    """A registered pair.

    Attributes
    ----------
    fixed, moving : Image (1, 1, i, j, k)
        Fixed and moving image.
    forward, inverse : Transform
        Maps of points of the fixed space to the moving space (which resamples the moving image
        onto the fixed grid), and back. RAS+ mm.
    quality : dict
        Quality metrics by name, and the ``verdict`` (good, doubtful, failed or unknown), by
        bounds fitted on T1w brains registered to ``MNI152NLin2009cAsym``. ``t1w_like`` lists the
        images ("fixed", "moving") that a T1w-like image replaced; metrics are those of the
        T1w-like images.
    codes : int or (int, int)
        NIfTI space codes of the fixed image, which are also those of the warped image.
    fixed_mask : Image or None
        Brain mask of the fixed image; None if it was estimated from a skull-stripped image.
    t1w_like : dict of str to Image
        The T1w-like images that replaced images for the registration, by "fixed" and "moving".
    """

    fixed: Image
    moving: Image
    forward: Transform
    inverse: Transform
    quality: dict[str, Any]
    codes: Codes = SCANNER
    fixed_mask: Image | None = None
    t1w_like: dict[str, Image] = field(default_factory=dict)

    def __repr__(self) -> str:
        shape, similarity = self.fixed.grid.shape, self.quality["similarity"]
        verdict = self.quality["verdict"]
        return f"Registered(onto {shape}, similarity={similarity:.3f}, verdict={verdict!r})"

    @property
    def affine(self) -> np.ndarray:
        """Linear part (4, 4): fixed to moving points, RAS+ mm."""
        linear = Transform(tuple(step for step in self.forward.steps if isinstance(step, Affine)))
        matrix = linear_matrix(linear)
        assert matrix is not None  # all steps are linear
        return matrix

    @property
    def warped(self) -> nib.Nifti1Image:
        """Moving image resampled onto the grid of the fixed image."""
        resampled = self.forward.resample(self.moving, self.fixed.grid)
        return image.to_nifti(resampled, space=self.codes)

    @property
    def metrics(self) -> pd.DataFrame:
        """Quality metrics, one per row: ``value``, ``unit`` and ``meaning``, by name."""
        import pandas as pd

        known = {one: as_number(self.quality.get(one.key)) for one in REGISTRATION_METRICS}
        rows = {
            one.key: (value, one.unit, one.label)
            for one, value in known.items()
            if value is not None
        }
        columns = ["value", "unit", "meaning"]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        return table.rename_axis("metric")

    def plot(self, *, before: bool = False, **options: Any) -> BaseSlicer | None:
        """Plot the warped image with the edges of the fixed image, in red.

        Parameters
        ----------
        before : bool
            Plot the moving image before registration instead, placed by the image headers.
        **options
            Options of `nilearn.plotting.plot_anat`, such as ``display_mode``, ``cut_coords``,
            ``title``, ``axes`` and ``output_file``.

        Returns
        -------
        nilearn.plotting.displays.BaseSlicer or None
            The display, to which more can be added. None if it was written to ``output_file``.
        """
        from nilearn.plotting import plot_anat  # takes seconds

        output = options.pop("output_file", None)
        shown = self.warped
        if before:
            placed = Transform(()).resample(self.moving, self.fixed.grid)
            shown = image.to_nifti(placed, space=self.codes)
        chosen: dict[str, Any] = {
            "title": "before registration" if before else "after registration",
            "draw_cross": False,
            "colorbar": False,
        }
        if options.get("display_mode", "ortho") in ("ortho", "tiled"):
            chosen["cut_coords"] = self._brain_center()  # the same before and after
        display = plot_anat(shown, **chosen | options)
        display.add_edges(image.to_nifti(self.fixed, space=self.codes))
        if output is None:
            return display
        display.savefig(output)
        display.close()
        return None

    def _brain_center(self) -> list[float]:
        """Return the center of mass of the fixed brain, RAS+ mm."""
        if self.fixed_mask is None:
            inside = foreground(self.fixed.data[0, 0].numpy())
        else:
            inside = self.fixed_mask.data[0, 0].numpy() > 0.5
        affine = self.fixed.grid.affine
        center = affine[:3, :3] @ np.argwhere(inside).mean(axis=0) + affine[:3, 3]
        return [round(float(position), 1) for position in center]

    def _repr_html_(self) -> str:
        verdict = escape(f"Verdict: {self.quality['verdict']}")
        if reason := self.quality["verdict_reason"]:
            verdict += escape(f" ({reason})")
        return f"<p>{verdict}</p>{self.metrics.to_html(float_format='{:.3f}'.format)}"

    def save(self, prefix: str | os.PathLike[str]) -> list[Path]:
        """Write the warped image and the transforms.

        Returns
        -------
        list of Path
            ``PREFIXwarped.nii.gz``; ``PREFIXxfm.h5`` and ``PREFIXinverse_xfm.h5``, in ITK's
            format; and ``PREFIXaffine.mat``, the linear part of the former, as ANTs' file
            ``0GenericAffine.mat``. If one cannot be written, none is.
        """
        directory, start = os.path.split(os.fspath(prefix))
        with replacing_files(directory or ".") as new:
            grid = self.fixed.grid
            made = [
                nifti.write(new / f"{start}warped.nii.gz", self.warped),
                itk.write_transform(new / f"{start}xfm.h5", self.forward, over=grid),
                itk.write_transform(new / f"{start}inverse_xfm.h5", self.inverse, over=grid),
                write_affine(new / f"{start}affine.mat", self.affine),
            ]
        return [Path(directory) / path.name for path in made]
