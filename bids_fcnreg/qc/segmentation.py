"""Plausibility of a segmentation, without a reference.

The anatomy network finds structures in any image, also in that of a knee. Then they have neither
the volumes nor the arrangement of those of a brain.
"""

from __future__ import annotations

from bids_fcnreg.fcn.arrangement import arrangement, label_structures
from bids_fcnreg.fcn.segment import Anatomy
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Transform


def assess_segmentation(anatomy: Anatomy, mask: Image | None = None) -> dict[str, float]:
    """Compute the quality metrics of a segmentation, of its largest connected part.

    Parameters
    ----------
    anatomy : Anatomy
        Posteriors of the structures.
    mask : Image (1, 1, i, j, k), optional
        Brain mask of another method, above 0.5.

    Returns
    -------
    dict of str to float
        By the keys of `bids_fcnreg.qc.metrics`.
    """
    labels = label_structures(anatomy.posteriors)
    structures = arrangement(labels, anatomy.grid.affine)
    found = {
        "structures_implausible": float(structures.implausible),
        "structures_misplaced_mm": structures.misplaced_mm,
    }
    if structures.is_brain:
        found["head_turned_degrees"] = structures.turned_degrees
    if mask is not None:
        inside = Transform(()).resample(mask, anatomy.grid).data[0, 0].numpy() > 0.5
        both = int(inside.sum()) + int((labels > 0).sum())
        found["mask_agreement"] = 2 * int((inside & (labels > 0)).sum()) / max(both, 1)
    return found
