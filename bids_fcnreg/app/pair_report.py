"""Visual report of one registered pair of images: one HTML file."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from markupsafe import Markup

from bids_fcnreg import __version__
from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.figures.deformation import draw_deformation
from bids_fcnreg.figures.intensity_window import intensity_window
from bids_fcnreg.figures.slices import draw_flicker, draw_slices
from bids_fcnreg.html import render
from bids_fcnreg.interfaces.quality import quality_html, verdict_html
from bids_fcnreg.io.itk import read_transform
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.preprocessing.contrast import describe_extracted, describe_replaced
from bids_fcnreg.qc.verdict import MEASURED_ON


def make_pair_report(
    path: Path,
    fixed: Path,
    moving: Path,
    mask: Path,
    warped: Path,
    transform: Path,
    quality: dict[str, Any],
    fixed_name: str | None = None,
    *,
    contours_of: Path | None = None,
) -> Path:
    """Write a visual report of a registered pair, like that of a participant.

    Parameters
    ----------
    path : Path
        HTML file with embedded figures.
    fixed, mask : Path
        The fixed image and its brain mask, on one grid.
    moving : Path
        The moving image.
    warped : Path
        The moving image on that grid.
    transform : Path
        ITK .h5 that resampled it.
    quality : dict
        Quality metrics and verdict.
    fixed_name : str, optional
        Name of the fixed image, if it is a built-in template.
    contours_of : Path, optional
        T1w-like image of the fixed image, for its white matter border.

    Returns
    -------
    Path
        `path`.
    """
    builtin, name_of_fixed = fixed_name is not None, fixed_name or fixed.name
    captions = {
        "Comparison": "The moving image on the grid of the fixed one. Hold the mouse pointer over "
        "the figure, or touch it, to alternate with the fixed image.",
        "Registration": "The moving image on the grid of the fixed one. Red: white matter border "
        "of the fixed image; blue: outline of its brain.",
        "Deformation": "Nonlinear part of the deformation. Blue: smaller in the moving image; "
        "red: larger, by the given factor. Lines: 8 mm apart in the moving image.",
    }
    bounds = f"Based on bounds for {MEASURED_ON}."
    parts = [_part("Verdict", bounds, verdict_html(quality, f"{moving.name} to {name_of_fixed}"))]
    with tempfile.TemporaryDirectory() as directory:
        for name, drawn in _draw(
            Path(directory), fixed, mask, warped, transform, contours_of or fixed
        ).items():
            parts.append(_part(name, captions[name], _inline(drawn)))
    metrics = quality_html(quality, name_of_fixed, "Fixed image", ranges=builtin)
    descriptions = (
        describe_extracted(quality["brain_extracted"]),
        describe_replaced(quality["t1w_like"]),
    )
    parts.append(_part("Quality metrics", " ".join(filter(None, descriptions)), metrics))
    text = render(
        "report.html.j2",
        title=f"{moving.name} registered to {name_of_fixed}",
        sections=[{"name": "", "reportlets": parts}],
        footer=[Markup("<p>Made by bids_fcnreg {}.</p>").format(__version__)],
    )
    write_bytes(path, text.encode())
    return path


def _draw(
    directory: Path, fixed: Path, mask: Path, warped: Path, transform: Path, contours_of: Path
) -> dict[str, Path]:
    """Draw the skull-stripped images; return the figures by heading."""
    brain = open_image(mask)
    moving, fixed_brain, outlined = (
        _mask_background(open_image(path), brain) for path in (warped, fixed, contours_of)
    )
    pair = moving, fixed_brain
    return {
        "Comparison": draw_flicker(directory / "flicker.svg", pair, brain, ("moving", "fixed")),
        "Registration": draw_slices(directory / "slices.png", moving, brain, contours_of=outlined),
        "Deformation": draw_deformation(
            directory / "deformation.png", read_transform(transform), moving, brain
        ),
    }


def _mask_background(
    image: nib.spatialimages.SpatialImage, mask: nib.spatialimages.SpatialImage
) -> nib.Nifti1Image:
    """Set intensities outside the brain to black: 0, or less if the brain has negative ones."""
    data, inside = image.get_fdata(dtype="float32"), np.asanyarray(mask.dataobj) > 0
    darkest, _ = intensity_window(data, inside)
    masked = np.where(inside, data, min(darkest, 0)).astype("float32")
    return nib.Nifti1Image(masked, image.affine)


def _part(name: str, caption: str, content: Markup) -> dict[str, Any]:
    """Return a section of the page."""
    return {"name": name, "subtitle": name, "components": [(content, caption)]}


def _inline(picture: Path) -> Markup:
    """Return a figure as HTML."""
    if picture.suffix == ".svg":
        text = picture.read_text(encoding="utf-8")
        return Markup(text[text.index("<svg") :])
    data = base64.b64encode(picture.read_bytes()).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(picture.stem, data)
