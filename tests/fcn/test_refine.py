"""Refinement where a part of it does not fit into the memory of a GPU."""

from __future__ import annotations

import pytest
import torch

from bids_fcnreg.fcn import refine as module
from bids_fcnreg.fcn.refine import Refinement, refine

pytestmark = pytest.mark.slow

SETTINGS = Refinement(spacings=(4.0, 2.0, 1.0), steps=(3, 3, 3))


def test_one_level_falls_back_to_the_cpu(make_random_pair, monkeypatch):
    """Every level is a part of its own, and gives the same wherever it is computed."""
    pair = make_random_pair((40, 40, 40))
    whole = refine(pair, settings=SETTINGS)
    parts = []

    def scarce(compute, place, part):
        parts.append(part)
        return compute(torch.device("cpu"))  # as after a failure on a GPU

    monkeypatch.setattr(module, "with_fallback", scarce)
    piecewise = refine(pair, settings=SETTINGS)
    assert parts == [f"the refinement at {spacing} mm" for spacing in (4, 2, 1)]
    assert torch.equal(piecewise.to_moving, whole.to_moving)
    assert float(whole.to_moving.abs().max()) > 0.1
