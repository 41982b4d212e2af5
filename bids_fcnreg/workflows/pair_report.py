"""The visual report of one registered pair, outside of any dataset: one HTML file."""

from __future__ import annotations

import base64
import os
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jinja2 import Environment
from nipype import logging

from bids_fcnreg import __version__
from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.figures.intensity_window import intensity_window
from bids_fcnreg.interfaces.pictures import Deformation, Flicker, Slices
from bids_fcnreg.interfaces.quality import quality_html, verdict_html
from bids_fcnreg.io import image
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.qc.verdict import MEASURED_ON
from bids_fcnreg.workflows.report import PAGE


def make_pair_report(
    path: Path,
    fixed: Path,
    moving: Path,
    mask: Path,
    warped: Path,
    transform: Path,
    quality: dict[str, Any],
    fixed_name: str | None = None,
) -> Path:
    """Draw a registered pair as the report of a participant does.

    Parameters
    ----------
    path : Path
        HTML to write; pictures are inside it.
    fixed, mask : Path
        The fixed image and its brain mask, on one grid.
    moving : Path
        The moving image.
    warped : Path
        The moving image on that grid.
    transform : Path
        ITK .h5 that brought it there.
    quality : dict
        Quality numbers and verdict.
    fixed_name : str, optional
        What the fixed image is called, if that is the built-in template.

    Returns
    -------
    Path
        `path`.
    """
    # Each interface runs in a folder of its own, and would tell the screen about it.
    builtin, name_of_fixed = fixed_name is not None, fixed_name or fixed.name
    fixed, mask, warped, transform = (one.absolute() for one in (fixed, mask, warped, transform))
    logging.getLogger("nipype.interface").setLevel("WARNING")
    captions = {
        "Beside each other": "The moving image on the grid of the fixed one. Hold the pointer "
        "over the picture, or touch it, to see the fixed image in its place.",
        "Registration": "The moving image on the grid of the fixed one. Red, the border of the "
        "fixed image's white matter; blue, the outline of its brain.",
        "Deformation": "What the deformation does beside the affine alignment. Blue, places that "
        "are smaller in the moving image; red, larger, by the factor that is given. "
        "Lines, 8 mm apart in the moving image.",
    }
    bounds = f"By bounds for {MEASURED_ON}."
    parts = [_part("Verdict", bounds, verdict_html(quality, f"{moving.name} to {name_of_fixed}"))]
    with tempfile.TemporaryDirectory() as folder:
        for name, interface in _pictures(folder, fixed, mask, warped, transform).items():
            drawn = interface.run(cwd=_new(folder, name)).outputs.out_file
            parts.append(_part(name, captions[name], _inline(Path(drawn))))
    numbers = quality_html(quality, name_of_fixed, "Fixed image", ranges=builtin)
    parts.append(_part("Quality numbers", "", numbers))
    page = Environment().from_string(PAGE.read_text(encoding="utf-8"))
    text = page.render(
        title=escape(f"{moving.name} registered to {name_of_fixed}"),
        sections=[{"name": "", "reportlets": parts}],
        footer=[f"<p>Made by bids_fcnreg {__version__}.</p>"],
    )
    write_bytes(path, text.encode())
    return path


def _pictures(
    folder: str, fixed: Path, mask: Path, warped: Path, transform: Path
) -> dict[str, Any]:
    """Interfaces that draw the brain alone, by the heading of what they draw."""
    inside = np.asanyarray(open_image(mask).dataobj) > 0
    bare = {}
    for name, path in (("fixed", fixed), ("warped", warped)):
        nifti = open_image(path)
        brain = nib.Nifti1Image(_bare(nifti.get_fdata(dtype="float32"), inside), nifti.affine)
        bare[name] = str(image.write(Path(folder) / f"{name}.nii", brain))
    images = {"background": bare["warped"], "mask": str(mask)}
    return {
        "Beside each other": Flicker(
            before=bare["warped"],
            after=bare["fixed"],
            mask=images["mask"],
            before_label="moving",
            after_label="fixed",
        ),
        "Registration": Slices(contours_of=bare["fixed"], **images),
        "Deformation": Deformation(transform=str(transform), **images),
    }


def _bare(data: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Intensities of the brain; outside, black, which is 0 unless the brain has negative ones."""
    darkest, _ = intensity_window(data, inside)
    return np.where(inside, data, min(darkest, 0)).astype("float32")


def _new(folder: str, name: str) -> str:
    """A new folder for what an interface writes."""
    place = os.path.join(folder, name.replace(" ", "_"))
    os.makedirs(place)
    return place


def _part(name: str, caption: str, content: str) -> dict[str, Any]:
    """A part of the page."""
    return {"name": name, "subtitle": name, "components": [(content, caption)]}


def _inline(picture: Path) -> str:
    """A picture as part of a page."""
    if picture.suffix == ".svg":
        text = picture.read_text(encoding="utf-8")
        return text[text.index("<svg") :]
    data = base64.b64encode(picture.read_bytes()).decode()
    return f'<img alt="{picture.stem}" src="data:image/png;base64,{data}">'
