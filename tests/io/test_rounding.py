"""How precisely displacements are stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io.itk import read_transform, write_transform
from bids_fcnreg.io.rounding import BRAIN_MARGIN_MM, FAR_ROUNDING_ERROR_MM, ROUNDING_ERROR_MM
from tests.smooth_fields import FIXED_GRID, smooth_displacement


@pytest.mark.parametrize("steps_before", [0, 1])
def test_displacements_are_precise_near_the_brain_only(tmp_path, steps_before):
    """`steps_before` is the number of affines between the brain and the displacement."""
    displacement = smooth_displacement()
    matrix = np.array([[0.9, 0.1, 0, 6], [-0.1, 1.1, 0, -9], [0, 0, 1, 4], [0, 0, 0, 1]])
    before = (Affine(matrix),) * steps_before
    points = FIXED_GRID.points().float()
    ball = Image(((points**2).sum(-1) < 12**2).float()[None, None], FIXED_GRID)
    whole, smaller = (
        write_transform(tmp_path / f"{name}.h5", Transform((*before, displacement)), brain=brain)
        for name, brain in (("whole", None), ("smaller", ball))
    )
    written = read_transform(smaller)
    error = (written.displacements[0].field - displacement.field)[0] * torch.from_numpy(
        FIXED_GRID.spacing
    ).view(3, 1, 1, 1)
    error = error.square().sum(0).sqrt()
    seen_from_the_brain = Transform(before).inverse().map(points)
    distance = seen_from_the_brain.square().sum(-1).sqrt() - 12
    near = distance <= BRAIN_MARGIN_MM / 1.2  # of which the affine makes up to the margin
    assert near.any() and error[near].max() <= ROUNDING_ERROR_MM * 1.01
    assert ROUNDING_ERROR_MM < error[~near].max() <= FAR_ROUNDING_ERROR_MM
    assert smaller.stat().st_size < 0.8 * whole.stat().st_size
