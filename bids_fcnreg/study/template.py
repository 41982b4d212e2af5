"""Mean image, tissue maps and description of a study template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bids_fcnreg import __version__
from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.bids.derivatives import BIDS_VERSION, NAME, bids_uri
from bids_fcnreg.config import Config
from bids_fcnreg.fcn.groupwise import mirror, robust_mean, sharpen
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.fcn.structures import TISSUES
from bids_fcnreg.io import image, nifti
from bids_fcnreg.io.spatial_image import open_image

#: Number of values in memory while images are averaged.
VALUES_AT_A_TIME = 30_000_000


def robust_average(
    images: Sequence[str | Path],
    masks: Sequence[str | Path],
    weights: Sequence[float],
    symmetric: bool,
    sharpening: float,
) -> tuple[Image, Image]:
    """Compute the sharpened robust mean of images on one grid, and their majority brain mask.

    The mean brain has sharp borders, so that registering brains to it does not move their borders.

    Parameters
    ----------
    images, masks : sequence of path
        Uncompressed NIfTI: only some planes of each are in memory at a time.
    weights : sequence of float
        Weight of each image.
    symmetric : bool
        Make both symmetric about the plane x = 0.
    sharpening : float
        Amount of unsharp masking.

    Returns
    -------
    t1w, mask : Image (1, 1, i, j, k)
    """
    grid = nifti.grid_of(open_image(images[0]))
    share = _over_planes([masks], grid, lambda inside: np.average(inside, axis=0, weights=weights))
    if symmetric:
        share = (share + mirror(Image(share, grid)).data) / 2
    mask = (share >= 0.5).float()

    def reduce(values: np.ndarray, inside: np.ndarray, most: np.ndarray) -> np.ndarray:
        # Inside the majority mask only brain is averaged, outside only non-brain: so the
        # template's brain has sharp borders.
        return robust_mean(values, weights, (inside > 0.5) == (most > 0.5))

    t1w = _over_planes([images, masks], grid, reduce, mask[0].numpy())
    if symmetric:
        t1w = (t1w + mirror(Image(t1w, grid)).data) / 2
    return Image(sharpen(t1w, mask, sharpening), grid), Image(mask, grid)


def _over_planes(
    stacks: Sequence[Sequence[str | Path]],
    grid: Grid,
    reduce: Callable[..., np.ndarray],
    *volumes: np.ndarray,
) -> torch.Tensor:
    """Apply a function to the values (n, i, j, planes) of stacks of images, slab by slab.

    It also receives the planes of further `volumes` (1, i, j, k).
    """
    sources = [[open_image(path).dataobj for path in paths] for paths in stacks]
    size = sum(map(len, sources)) * grid.shape[0] * grid.shape[1]
    step = max(1, VALUES_AT_A_TIME // size)
    parts = []
    for k in range(0, grid.shape[2], step):  # neighbours along k are farthest apart in a file
        read = [
            np.stack([np.asarray(source[..., k : k + step], np.float32) for source in stack])
            for stack in sources
        ]
        parts.append(reduce(*read, *(volume[..., k : k + step] for volume in volumes)))
    return torch.from_numpy(np.concatenate(parts, axis=-1).astype(np.float32))[None, None]


def tissue_maps(transform: Transform, mask: Image, builtin: str) -> dict[str, Image]:
    """Resample the tissue maps of a built-in template to the grid of another one.

    Parameters
    ----------
    transform : Transform
        Maps points of the other template to points of the built-in one.
    mask : Image (1, 1, i, j, k)
        Brain mask of the other template.
    builtin : str
        Name of the built-in template.

    Returns
    -------
    dict of str to Image
        ``csf``, ``gm`` and ``wm``: probabilities that sum to 1 in the mask.
    """
    inside = (mask.data > 0.5).float()
    files = BUILTIN_FILES[builtin]
    gm, wm = (
        transform.resample(image.read(files.path(kind)), mask.grid).data / files.certain * inside
        for kind in ("gm", "wm")
    )
    both = (gm + wm).clamp(min=1.0)
    maps = {"csf": (inside - gm - wm).clamp(min=0), "gm": gm / both, "wm": wm / both}
    return {name: Image(values, mask.grid) for name, values in maps.items()}


def relative_change(before: Image, after: Image, mask: Image) -> float:
    """Compute the RMS difference of two images in a mask over the mean intensity."""
    earlier = Transform(()).resample(before, after.grid).data
    inside = mask.data > 0.5
    difference = (after.data - earlier)[inside].square().mean().sqrt()
    return float(difference / after.data[inside].mean())


def describe_files(
    name: str, zooms: Sequence[float], scans: Sequence[tuple[Path, Path]], config: Config
) -> dict[str, dict[str, Any]]:
    """Return the sidecars of the images of a template.

    Parameters
    ----------
    name : str
        Name of the template.
    zooms : sequence of float
        Size of its voxels in mm.
    scans : sequence of (Path, Path)
        Preprocessed image and brain mask of each averaged scan.
    config : Config
        Settings of the run.

    Returns
    -------
    dict of str to dict
        Content by the part of the file name after ``tpl-NAME_res-01_``, without extension.
    """
    reference = f"bids::tpl-{name}/tpl-{name}_res-01_T1w.nii.gz"
    common = {
        "SpatialReference": reference,
        "Resolution": f"Voxels of {' × '.join(f'{zoom:g}' for zoom in zooms)} mm",
        "GeneratedBy": [{"Name": NAME, "Version": __version__}],
    }
    images, masks = (
        [bids_uri(path, config.bids_dir, config.output_dir) for path in paths]
        for paths in zip(*scans, strict=True)
    )
    sidecars = [read_json(path.with_name(f"{path.name.split('.')[0]}.json")) for path, _ in scans]
    maps = {
        f"label-{label}_probseg": {
            "Description": f"Probability of {label}, resampled from a built-in template",
            "Sources": [reference],
            "Manual": False,
        }
        for label in TISSUES
    }
    files: dict[str, dict[str, Any]] = {
        "T1w": {
            "Description": "Sharpened robust average of the registered scans",
            "Sources": images,
            "SkullStripped": all(one.get("SkullStripped") is True for one in sidecars),
        },
        "desc-brain_mask": {
            "Description": "Majority of the brain masks of the registered scans",
            "Sources": masks,
            "Type": "Brain",
        },
        **maps,
    }
    return {ending: content | common for ending, content in files.items()}


def describe_template(
    name: str, t1w: Path, scans: Sequence[str], config: Config
) -> dict[str, Any]:
    """Return the content of template_description.json, with TemplateFlow's keys.

    Parameters
    ----------
    name : str
        Name of the template.
    t1w : Path
        Its image.
    scans : sequence of str
        Labels of the averaged scans.
    config : Config
        Settings of the run.
    """
    made = open_image(t1w)
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
                "origin": made.affine[:3, 3].tolist(),
                "shape": list(made.shape),
                "zooms": [float(size) for size in made.header.get_zooms()],
            }
        },
    }
