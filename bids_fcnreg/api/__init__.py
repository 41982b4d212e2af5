"""Registration as Python functions: images are files or nibabel's, transforms are files.

>>> import bids_fcnreg as fr
>>> result = fr.register(template, scan, mode="predict")
>>> result.warped.shape == template.shape
True
>>> _ = result.save(directory / "scan_to_template_")
>>> again = fr.apply(scan, template, [directory / "scan_to_template_xfm.h5"])
>>> float(abs(again.get_fdata() - result.warped.get_fdata()).max()) < 0.5
True
>>> growth = fr.jacobian([directory / "scan_to_template_xfm.h5"], template)
>>> growth.shape == template.shape
True
>>> there = fr.map_points([[0, 0, 0]], [directory / "scan_to_template_xfm.h5"])
>>> back = fr.map_points(there, [(directory / "scan_to_template_xfm.h5", True)])
>>> bool(abs(back).max() < 0.1)
True
"""

from __future__ import annotations

from bids_fcnreg.api.images import ImageLike
from bids_fcnreg.api.registration import Registered, register
from bids_fcnreg.api.transforms import apply, convert, jacobian, map_points
from bids_fcnreg.io.transform_chain import TransformLike

__all__ = [
    "ImageLike",
    "Registered",
    "TransformLike",
    "apply",
    "convert",
    "jacobian",
    "map_points",
    "register",
]
