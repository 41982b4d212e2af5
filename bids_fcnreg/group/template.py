"""A study template's mean image, and the folder it is laid out in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from bids_fcnreg import __version__
from bids_fcnreg.bids.derivatives import BIDS_VERSION, NAME
from bids_fcnreg.config import Config
from bids_fcnreg.fcn.geometry import Grid, Image
from bids_fcnreg.fcn.groupwise import mirror, robust_mean, sharpen
from bids_fcnreg.fcn.transform import Transform

#: Values held in memory at a time while images are averaged.
VALUES_AT_A_TIME = 30_000_000


def average(
    images: Sequence[str | Path],
    masks: Sequence[str | Path],
    weights: Sequence[float],
    symmetric: bool,
    sharpening: float,
) -> tuple[Image, Image]:
    """Robust mean of images on one grid, sharpened, and the brain mask most of them share.

    Parameters
    ----------
    images, masks : sequence of path
        Uncompressed NIfTI: only some planes of all of them are in memory at a time.
    weights : sequence of float
        How much each image counts.
    symmetric : bool
        Make both equal on the left and the right of the plane x = 0.
    sharpening : float
        Amount of unsharp masking.

    Returns
    -------
    t1w, mask : Image (1, 1, i, j, k)
    """
    share = np.asarray(weights, dtype=float) / np.sum(weights)
    first = nib.load(images[0])
    grid = Grid(first.shape[:3], first.affine)
    t1w = _over_planes(images, grid, lambda values: robust_mean(values, share))
    mask = _over_planes(masks, grid, lambda values: np.average(values, axis=0, weights=share))
    if symmetric:
        t1w, mask = ((one + mirror(Image(one, grid)).data) / 2 for one in (t1w, mask))
    return Image(sharpen(t1w, sharpening), grid), Image((mask >= 0.5).float(), grid)


def _over_planes(
    paths: Sequence[str | Path], grid: Grid, reduce: Callable[[np.ndarray], np.ndarray]
) -> torch.Tensor:
    """What a function makes of the values (n, planes, j, k) of all images, plane by plane."""
    sources = [nib.load(path).dataobj for path in paths]
    size = len(sources) * grid.shape[1] * grid.shape[2]
    step = max(1, VALUES_AT_A_TIME // size)
    parts = [
        reduce(np.stack([np.asarray(source[i : i + step], np.float32) for source in sources]))
        for i in range(0, grid.shape[0], step)
    ]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))[None, None]


def change(before: Image, after: Image, mask: Image) -> float:
    """RMS difference of two images in a mask, over the mean intensity; grids may differ."""
    earlier = Transform(()).resample(before, after.grid).data
    inside = mask.data > 0.5
    difference = (after.data - earlier)[inside].square().mean().sqrt()
    return float(difference / after.data[inside].mean())


def describe(name: str, t1w: Path, scans: Sequence[str], config: Config) -> dict[str, Any]:
    """Content of template_description.json, with the keys that TemplateFlow uses.

    Parameters
    ----------
    name : str
        Of the template.
    t1w : Path
        Its image.
    scans : sequence of str
        Labels of the scans it is the average of.
    config : Config
        How it was made.
    """
    nifti = nib.load(t1w)
    shape = "symmetric" if config.template_symmetric else "asymmetric"
    scale = " and scale" if config.template_anchored else ", but not scale,"
    return {
        "Identifier": name,
        "Name": f"Study template {name}: nonlinear {shape} average of {len(scans)} scans",
        "BIDSVersion": BIDS_VERSION,
        "GeneratedBy": [{"Name": NAME, "Version": __version__}],
        "Description": f"Robust average of the registered scans in their mean shape, sharpened; "
        f"orientation{scale} of {config.templates[0]}.",
        "Scans": list(scans),
        "res": {
            "01": {
                "origin": nifti.affine[:3, 3].tolist(),
                "shape": list(nifti.shape),
                "zooms": [float(size) for size in nifti.header.get_zooms()],
            }
        },
    }
