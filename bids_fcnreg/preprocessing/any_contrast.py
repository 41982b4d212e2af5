"""The brain in a scan of any contrast, and what it would look like in a T1w image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import MIN_VOLUME_MM3
from bids_fcnreg.fcn.nets.anatomy import AnatomyFCN
from bids_fcnreg.fcn.segment import Anatomy, segment
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.tissue import classify, white_matter_is_darker
from bids_fcnreg.preprocessing.intensity import bias_field, make_positive, normalize


@dataclass(frozen=True, eq=False)
class Brain:
    """A preprocessed scan of any contrast.

    Attributes
    ----------
    image : Image (1, 1, i, j, k)
        Bias-corrected, 100 at the brain's 98th percentile, with its skull.
    mask : Image (1, 1, i, j, k)
        Brain mask.
    t1w_like : Image (1, 1, i, j, k)
        Brain like that of a T1w image, 0 in the background.
    tissues : Image (1, 3, i, j, k)
        Probabilities of gray matter, white matter and cerebrospinal fluid.
    anatomy : Anatomy
        Posteriors of the network.
    """

    image: Image
    mask: Image
    t1w_like: Image
    tissues: Image
    anatomy: Anatomy

    @property
    def white_matter_is_darker(self) -> bool:
        """Whether white matter is known not to be brighter than gray matter."""
        return white_matter_is_darker(self.image, self.tissues)


def prepare_brain(
    scan: Image, network: AnatomyFCN | None = None, brain: Image | None = None
) -> Brain:
    """Find the brain of a scan of any contrast, correct its bias field and classify its tissue.

    Parameters
    ----------
    scan : Image (1, 1, i, j, k)
        Head or brain.
    network : AnatomyFCN, optional
        Trained, in evaluation mode; by default the packaged one.
    brain : Image (1, 1, i, j, k), optional
        Approximate brain mask on the grid of `scan`.

    Raises
    ------
    InputError
        If no brain is found, or the field of view is too large for a head.
    """
    anatomy = segment(scan, network, brain=brain)
    mask = anatomy.brain_mask(scan.grid)
    volume = float(mask.data.sum()) * float(np.prod(scan.grid.spacing))
    if volume < MIN_VOLUME_MM3:
        raise InputError(f"no brain was found in it ({volume / 1000:.0f} ml)")
    inside = mask.data[0, 0].numpy() > 0.5
    data = make_positive(scan.data[0, 0].numpy(), inside)
    data = normalize(data / bias_field(data, inside, tuple(scan.grid.spacing)), inside)
    image = Image(torch.from_numpy(np.ascontiguousarray(data))[None, None], scan.grid)
    found = classify(image, anatomy)
    like = Image(found.t1w_like.data * mask.data, scan.grid)
    return Brain(image, mask, like, found.tissues, anatomy)
