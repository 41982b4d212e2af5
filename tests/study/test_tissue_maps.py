"""Tissue maps of a built-in template on the grid of another template."""

from __future__ import annotations

import pytest
import torch

from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.config import BUILTIN_TEMPLATES
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io import image
from bids_fcnreg.study.template import tissue_maps


@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_tissue_maps_sum_to_one_in_the_brain(name):
    brain = image.read(BUILTIN_FILES[name].path("t1"))
    coarse = brain.grid.with_spacing(4)
    inside = Transform(()).resample(Image((brain.data > 0).float(), brain.grid), coarse)
    mask = Image((inside.data > 0.99).float(), coarse)
    maps = tissue_maps(Transform(()), mask, name)
    total = sum(one.data for one in maps.values())
    torch.testing.assert_close(total, mask.data, atol=1e-3, rtol=0)
    shares = {key: float(one.data.sum() / mask.data.sum()) for key, one in maps.items()}
    assert shares["csf"] < 0.2 < shares["wm"] < shares["gm"] < 0.6
