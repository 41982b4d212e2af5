"""Registrations as files."""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.quality import Quality
from bids_fcnreg.fcn.register import Registration
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io.registration import read_registration, write_registration
from bids_fcnreg.io.rounding import BRAIN_MARGIN_MM, ROUNDING_ERROR_MM
from tests.smooth_fields import FIXED_GRID, smooth_displacement


def test_each_transform_is_precise_near_the_brain_of_its_own_space(tmp_path):
    """The brains are balls in opposite corners; the affine moves the one to the other."""
    shift = np.eye(4)
    shift[:3, 3] = [30, -32, 26]
    there, points = smooth_displacement(), FIXED_GRID.points().float()
    distances = [
        (points - points.new_tensor(sign * shift[:3, 3] / 2)).norm(dim=-1) - 6 for sign in (-1, 1)
    ]
    balls = tuple(Image((one <= 0).float()[None, None], FIXED_GRID) for one in distances)
    forward = Transform((there, Affine(shift)))
    inverse = Transform((Affine(np.linalg.inv(shift)), there))  # only how it is stored counts
    found = Registration(forward, inverse, Quality("predict", "cpu"))
    paths = write_registration(tmp_path, found, FIXED_GRID, balls)
    read = read_registration(**paths)
    spacing = points.new_tensor(FIXED_GRID.spacing).view(3, 1, 1, 1)
    i, j, k = FIXED_GRID.shape  # the stored field is padded at the end
    for transform in (read.forward, read.inverse):
        (step,) = transform.displacements
        error = ((step.field[0, :, :i, :j, :k] - there.field[0]) * spacing).norm(dim=0)
        # Points of the second brain come to the place of the first one before the displacement.
        near = distances[0] <= BRAIN_MARGIN_MM
        assert error[near].max() <= ROUNDING_ERROR_MM * 1.01
        assert error[distances[1] <= 0].max() > 2 * ROUNDING_ERROR_MM
