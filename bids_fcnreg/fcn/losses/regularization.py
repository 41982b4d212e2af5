"""Regularization of a displacement: total variation and diffusion energy.

Each takes a displacement (batch, 3, i, j, k) in voxels and returns a mean over voxels, so that
its weight does not depend on the size of the image.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce

from torch import Tensor

from bids_fcnreg.fcn.reproducible import mean


def total_variation(displacement: Tensor) -> Tensor:
    """Compute the mean absolute first difference, summed over components and axes.

    Parameters
    ----------
    displacement : Tensor (batch, 3, i, j, k)
        In voxels.

    Returns
    -------
    Tensor ()

    References
    ----------
    Li & Fan, arXiv:1709.00799.
    """
    return _sum(3 * mean(displacement.diff(dim=axis).abs()) for axis in (2, 3, 4))


def diffusion(displacement: Tensor) -> Tensor:
    """Compute the mean squared first difference, summed over components and axes.

    Parameters
    ----------
    displacement : Tensor (batch, 3, i, j, k)
        In voxels.

    Returns
    -------
    Tensor ()
    """
    return _sum(3 * mean(displacement.diff(dim=axis).square()) for axis in (2, 3, 4))


def _sum(terms: Iterable[Tensor]) -> Tensor:
    """Sum one or more tensors."""
    return reduce(operator.add, terms)
