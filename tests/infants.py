"""Images of adults, changed to the contrast of infants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from bids_fcnreg.fcn.spatial.grid import Image

#: Intensities of gray and white matter, as fractions of a T1w brain's 98th percentile.
GRAY, WHITE = 0.72, 0.95


def of_an_infant(brain: Image) -> Image:
    """Make the white matter of a T1w brain darker than its gray matter.

    Returns
    -------
    Image
        100 at the 98th percentile of the brain that is given.
    """
    value = brain.data / float(np.quantile(brain.data[brain.data > 0].numpy(), 0.98))
    darker = GRAY - 0.8 * (value - GRAY).clamp(max=WHITE - GRAY)
    return replace(brain, data=100 * torch.where(value > GRAY, darker, value))
