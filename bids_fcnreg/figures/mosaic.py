"""Mosaics of slices through a brain: the figures of the reports.

Slices are sampled in world space, so that oblique scans appear upright; only their pixels are
interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from contourpy import contour_generator
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from scipy.ndimage import map_coordinates

from bids_fcnreg.figures.intensity_window import intensity_window

#: Slices along each axis.
CUTS = 7

#: Width of a slice, in pixels.
WIDTH = 200

#: Margin around the brain, in mm.
MARGIN_MM = 6.0

#: Axes of world space (x, y, z) across, up, and through the slices of each row.
_ROWS = ((0, 2, 1), (1, 2, 0), (0, 1, 2))

#: Height of the strip of a legend, in pixels.
_LEGEND_HEIGHT = 32

#: Lines of one colour (see `Mosaic.contours`), the colour, and their width in points.
Lines = tuple[list[np.ndarray], str, float]


class Mosaic:
    """A row of coronal, of sagittal and of axial slices; left is on the left.

    Parameters
    ----------
    inside : ndarray (i, j, k) of bool
        Brain mask: the slices are inside it. If empty, the whole volume is shown.
    affine : ndarray (4, 4)
        Its voxel indices to RAS+ mm.

    Attributes
    ----------
    cuts : dict of str to list of float
        Positions of the slices along "x", "y" and "z" (RAS+ mm).
    """

    def __init__(self, inside: np.ndarray, affine: np.ndarray) -> None:
        self.cuts = slice_positions(inside, affine)
        lower, upper = _extent(inside, affine)
        self._pixel = float((upper - lower)[:2].max()) / WIDTH
        self._rows = [self._points(axes, (lower + upper) / 2, upper - lower) for axes in _ROWS]

    def sample(
        self, data: np.ndarray, affine: np.ndarray, order: int = 1, fill: float = 0
    ) -> list[np.ndarray]:
        """Sample the slices of a volume.

        Parameters
        ----------
        data : ndarray (i, j, k)
            Any grid.
        affine : ndarray (4, 4)
            Its voxel indices to RAS+ mm.
        order : {1, 0}
            Linear or, for labels, nearest neighbour.
        fill : float
            Value outside the volume and for non-finite values.

        Returns
        -------
        list of ndarray (cut, row, column)
            Coronal, sagittal and axial slices, the first row of pixels on top.
        """
        inverse = np.linalg.inv(affine)
        kind = np.float32 if order else data.dtype
        slices = []
        for points in self._rows:
            index = points @ inverse[:3, :3].T + inverse[:3, 3]
            values = map_coordinates(
                data.astype(kind, copy=False), np.moveaxis(index, -1, 0), order=order, cval=fill
            )
            slices.append(np.nan_to_num(values, nan=fill, posinf=fill, neginf=fill))
        return slices

    def grey(self, image: nib.spatialimages.SpatialImage, inside: np.ndarray) -> np.ndarray:
        """Return the slices of an image as one picture, windowed by the brain's intensities.

        Parameters
        ----------
        image : nibabel image
        inside : ndarray (i, j, k) of bool
            Brain mask on the image's grid.

        Returns
        -------
        ndarray (row, column, 3)
            From 0 to 1.
        """
        data = np.asanyarray(image.dataobj, dtype=np.float32)
        darkest, brightest = intensity_window(data, inside)
        shown = tile(self.sample(data, image.affine))
        grey = np.clip((shown - darkest) / (brightest - darkest), 0, 1)
        return np.repeat(grey[..., None], 3, axis=-1)

    def contours(
        self,
        data: np.ndarray,
        affine: np.ndarray,
        levels: Sequence[float],
        across: str = "",
        fill: float = 0,
    ) -> list[np.ndarray]:
        """Find contour lines in the slices of a volume.

        Parameters
        ----------
        data, affine, fill
            See `sample`; no lines where the fill is NaN.
        levels : sequence of float
        across : {"", "x", "y", "z"}
            Axis whose slices are omitted.

        Returns
        -------
        list of ndarray (point, 2)
            Column and row in the picture, in pixels.
        """
        lines: list[np.ndarray] = []
        top = 0
        for axes, row in zip(_ROWS, self.sample(data, affine, fill=fill), strict=True):
            _, height, width = row.shape
            for number, cut in enumerate(row if "xyz"[axes[2]] != across else ()):
                # Annotated with all that it may return; by default each line is an array.
                found: Any = contour_generator(z=np.ma.masked_invalid(cut))
                shift = number * width, top
                lines += [line + shift for level in levels for line in found.lines(level)]
            top += height
        return lines

    def save(
        self,
        picture: np.ndarray,
        path: Path,
        contours: Iterable[Lines] = (),
        legend: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a picture as PNG, annotated with slice positions in mm and L/R.

        Parameters
        ----------
        picture : ndarray (row, column, 3)
            From 0 to 1; see `grey` and `overlay`.
        path : Path
        contours : iterable of (lines, colour, width)
            Lines as `contours` returns them, width in points.
        legend : mapping of str to colour, optional
            Legend above the slices.
        """
        above = _LEGEND_HEIGHT if legend else 0
        height, width = picture.shape[:2]
        figure = Figure(figsize=(width / 100, (height + above) / 100), dpi=100, facecolor="black")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, height / (height + above)))
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        for lines, colour, thickness in contours:
            axes.add_collection(LineCollection(lines, colors=colour, linewidths=thickness))
        self._annotate(axes)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.set_axis_off()
        if legend:
            # A dollar sign starts a formula.
            labels = {name.replace("$", r"\$"): colour for name, colour in legend.items()}
            figure.legend(
                handles=[Patch(color=colour, label=name) for name, colour in labels.items()],
                loc="upper left",
                ncol=len(labels),
                labelcolor="white",
                facecolor="black",
                frameon=False,
            )
        figure.savefig(path, facecolor="black")
        return path

    def _points(self, axes: tuple[int, int, int], centre: np.ndarray, size: np.ndarray) -> Any:
        """Return the coordinates (cut, row, column, 3) of the pixels of a row, in RAS+ mm."""
        across, up, through = axes
        height = max(round(size[up] / self._pixel), 1)
        cuts = self.cuts["xyz"[through]]
        points = np.empty((len(cuts), height, WIDTH, 3), np.float32)
        points[..., across] = centre[across] + self._pixel * (np.arange(WIDTH) - WIDTH / 2 + 0.5)
        rows = centre[up] - self._pixel * (np.arange(height) - height / 2 + 0.5)
        points[..., up] = rows[:, None]
        points[..., through] = np.asarray(cuts)[:, None, None]
        return points

    def _annotate(self, axes: Any) -> None:
        halo = [withStroke(linewidth=2, foreground="black")]
        style = {"color": "white", "path_effects": halo, "zorder": 3}
        top = 0
        for (across, _, through), row in zip(_ROWS, self._rows, strict=True):
            bottom = top + row.shape[1]
            for number, cut in enumerate(self.cuts["xyz"[through]]):
                text = f"{'xyz'[through]} = {cut:.0f}"
                axes.text(number * WIDTH + 4, bottom - 6, text, fontsize=8, **style)
            if across == 0:
                axes.text(4, top + 4, "L", fontsize=9, va="top", **style)
                axes.text(WIDTH - 4, top + 4, "R", fontsize=9, va="top", ha="right", **style)
            top = bottom


def tile(slices: Sequence[np.ndarray]) -> np.ndarray:
    """Tile slices (cut, row, column) side by side, with one row per array."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in slices])


def overlay(picture: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Overlay colours (row, column, RGBA) on a picture (row, column, RGB)."""
    opacity = colours[..., 3:]
    return picture * (1 - opacity) + colours[..., :3] * opacity


def slice_positions(mask: np.ndarray, affine: np.ndarray) -> dict[str, list[float]]:
    """Return evenly spaced slice positions through a mask.

    Parameters
    ----------
    mask : ndarray (i, j, k), bool
        Brain mask; the whole volume if empty.
    affine : ndarray (4, 4)
        Voxel indices to RAS+ mm.

    Returns
    -------
    dict of list of float
        For "x", "y" and "z": `CUTS` positions in mm, inside the extent of the mask.
    """
    lower, upper = np.percentile(_world(mask, affine), [1, 99], axis=0)
    cuts = np.linspace(lower, upper, CUTS + 2)[1:-1]
    return {axis: cuts[:, n].round(1).tolist() for n, axis in enumerate("xyz")}


def _extent(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the bounding box of a mask with a margin, in RAS+ mm."""
    points = _world(mask, affine)
    return points.min(0) - MARGIN_MM, points.max(0) + MARGIN_MM


def _world(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return RAS+ mm of a sample of mask voxels; of the corners if it is empty."""
    step = max(int((mask.size / 1e6) ** (1 / 3)), 1)
    voxels = np.argwhere(mask[::step, ::step, ::step]) * step
    if not len(voxels):
        voxels = np.argwhere(mask)
    if not len(voxels):
        voxels = np.argwhere(np.ones((2, 2, 2))) * (np.array(mask.shape) - 1)
    return voxels @ affine[:3, :3].T + affine[:3, 3]
