"""Volumes keep their values when their order in memory changes."""

from __future__ import annotations

import numpy as np
import pytest

from bids_fcnreg.io.memory_order import in_c_order, in_fortran_order


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 4, 64), (9, 13, 130)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("source", ["C", "F", "strided"])
def test_order_changes_and_values_do_not(shape, dtype, source):
    data = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    given = np.repeat(data, 2, axis=1)[:, ::2] if source == "strided" else data.copy(source)
    for change, flag in ((in_c_order, "c_contiguous"), (in_fortran_order, "f_contiguous")):
        changed = change(given)
        assert getattr(changed.flags, flag) and changed.dtype == dtype
        np.testing.assert_array_equal(changed, data)
        if getattr(given.flags, flag):
            assert changed is given
