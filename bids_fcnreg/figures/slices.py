"""Figures of a brain: slices with outlines or labels, and two images in alternation."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np
from PIL import Image

from bids_fcnreg.fcn.masks import values_inside
from bids_fcnreg.figures.mosaic import Lines, Mosaic, overlay, tile
from bids_fcnreg.html import render

#: Largest number of labels in a legend.
LEGEND = 8

#: Percentile of a T1-weighted brain's intensities at the border of white matter.
WHITE_MATTER_PERCENTILE = 60

#: Quality of JPEG pictures.
_QUALITY = 92

#: Opacity of labels.
_OPACITY = 0.4


def draw_slices(
    path: Path,
    background: nib.spatialimages.SpatialImage,
    mask: nib.spatialimages.SpatialImage,
    contours_of: nib.spatialimages.SpatialImage | None = None,
    labels: nib.spatialimages.SpatialImage | None = None,
    names: Mapping[int, str] | None = None,
) -> Path:
    """Draw slices of an image with a mask outline, contours of a brain, or labels.

    Parameters
    ----------
    path : Path
        PNG to write.
    background : nibabel image
        Image drawn in grey, on the grid of the mask.
    mask : nibabel image
        Brain mask: outlined, and covered by the slices.
    contours_of : nibabel image, optional
        T1w image on the grid of the mask whose white matter is outlined.
    labels : nibabel image, optional
        Label image drawn in colours.
    names : mapping of int to str, optional
        Names of the labels, for a legend if there are few.
    """
    inside = np.asanyarray(mask.dataobj) > 0
    mosaic = Mosaic(inside, mask.affine)
    picture = mosaic.grey(background, inside)
    legend: dict[str, Any] = {}
    outline = mosaic.contours(inside.astype(np.float32), mask.affine, [0.5])
    lines: list[Lines] = [(outline, "deepskyblue" if labels is None else "white", 0.9)]
    if labels is not None:
        colours, legend = _paint(mosaic, labels, names)
        picture = overlay(picture, colours)
    if contours_of is not None:
        data = np.asanyarray(contours_of.dataobj, dtype=np.float32)
        level = white_matter_level(data, inside)
        lines.append((mosaic.contours(data, contours_of.affine, [level]), "red", 0.5))
    return mosaic.save(picture, path, lines, legend)


def _paint(
    mosaic: Mosaic, labels: nib.spatialimages.SpatialImage, names: Mapping[int, str] | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return colours (row, column, RGBA) of the labels, and a legend if there are few."""
    data = np.asanyarray(labels.dataobj)
    indices = [int(index) for index in np.unique(data.ravel("K")) if index]
    # Consecutive indices, for evenly spread colours.
    slices = tile(mosaic.sample(data, labels.affine, order=0))
    indices_shown = np.where(slices == 0, 0, np.searchsorted(indices, slices) + 1)
    table = matplotlib.colormaps["gist_rainbow"](np.linspace(0, 1, len(indices) + 1))
    table[:, 3] = _OPACITY
    table[0, 3] = 0
    legend = {}
    if names is not None and len(indices) <= LEGEND:
        legend = {
            names[index]: colour for index, colour in zip(indices, table[1:, :3], strict=True)
        }
    return table[indices_shown], legend


def white_matter_level(brain: np.ndarray, inside: np.ndarray) -> float:
    """Estimate the intensity at the border of grey and white matter in the brain of a T1w."""
    found = values_inside(brain, inside)
    found = found[np.isfinite(found)]
    return float(np.percentile(found, WHITE_MATTER_PERCENTILE)) if found.size else 0.0


def draw_flicker(
    path: Path,
    images: Sequence[nib.spatialimages.SpatialImage],
    mask: nib.spatialimages.SpatialImage,
    names: Sequence[str],
) -> Path:
    """Draw two images on one grid that alternate under the mouse pointer.

    Parameters
    ----------
    path : Path
        SVG to write.
    images : sequence of two nibabel images
        The first is shown by default.
    mask : nibabel image
        Brain mask on their grid.
    names : sequence of two str
        Captions.
    """
    inside = np.asanyarray(mask.dataobj) > 0
    mosaic = Mosaic(inside, mask.affine)
    first, second = (mosaic.grey(image, inside) for image in images)
    height, width = first.shape[:2]
    layers = zip(("back", "front"), map(_jpeg, (second, first)), names[::-1], strict=True)
    text = render("flicker.svg.j2", width=width, height=height, layers=layers)
    path.write_text(text, encoding="utf-8")
    return path


def _jpeg(picture: np.ndarray) -> str:
    stream = io.BytesIO()
    pixels = (picture * 255).round().astype(np.uint8)
    Image.fromarray(pixels).convert("L").save(stream, "JPEG", quality=_QUALITY)
    return base64.b64encode(stream.getvalue()).decode()
