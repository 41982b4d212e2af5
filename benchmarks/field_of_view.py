"""Brains that are cut off by the field of view. `python field_of_view.py FIXED MOVING [options]`.

FIXED and MOVING are brain-extracted images. They are registered as they are, and with the lowest
quarter or the highest fifth of either brain outside its field of view. Printed are, over points of
the fixed brain in what is left, distances (mm) between where both registrations put them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from bids_fcnreg.fcn.register import register
from bids_fcnreg.fcn.spatial.grid import Image, apply_affine
from bids_fcnreg.io import image

#: Missing part of the height of the brain.
CUTS = {"lowest": 0.25, "highest": 0.2}


def main() -> None:
    """Run the benchmark with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("--mode", default="refine")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    images = {"fixed": image.read(options.fixed), "moving": image.read(options.moving)}
    how = {"mode": options.mode, "device": options.device}
    whole = register(**images, **how)
    inside = images["fixed"].data[0, 0] > 0
    points = images["fixed"].grid.points()[inside][::20]
    ends = whole.forward.map(points)
    print("part missing    of   median    95 %    99 %   sd log J")
    for part in CUTS:
        for which, there in (("moving", ends), ("fixed", points)):
            cut = without(images[which], part)
            found = register(**images | {which: cut}, **how)
            voxels = apply_affine(np.linalg.inv(cut.grid.affine), there.numpy())
            visible = ((voxels >= 0) & (voxels <= np.array(cut.grid.shape) - 1)).all(axis=1)
            distance = (found.forward.map(points) - ends).norm(dim=1).numpy()[visible]
            median, most, nearly_all = np.percentile(distance, [50, 95, 99])
            print(
                f"{part:8} {which:>9} {median:8.2f} {most:7.2f} {nearly_all:7.2f} "
                f"{found.quality.sd_log_jacobian:10.3f}"
            )


def without(brain: Image, part: str) -> Image:
    """Return a brain image whose field of view leaves out its lowest or highest part."""
    axis = int(np.abs(brain.grid.affine[2, :3]).argmax())
    upwards = brain.grid.affine[2, axis] > 0
    occupied = (brain.data[0, 0] > 0).nonzero()[:, axis]
    first, stop = int(occupied.min()), int(occupied.max()) + 1
    missing = round(CUTS[part] * (stop - first))
    lower, upper = [0, 0, 0], list(brain.grid.shape)
    if (part == "lowest") == upwards:
        lower[axis] = first + missing
    else:
        upper[axis] = stop - missing
    i, j, k = map(slice, lower, upper)
    data = brain.data[..., i, j, k].contiguous()
    return Image(torch.as_tensor(data), brain.grid.crop(lower, upper))


if __name__ == "__main__":
    main()
