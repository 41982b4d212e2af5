"""Registration as Python functions, with images of nibabel and tables of pandas.

Images are files or images of nibabel. Transforms are files, or those of a registration.

>>> import bids_fcnreg as fr
>>> result = fr.register(template, scan, mode="predict")
>>> result.warped.shape == template.shape
True
>>> float(result.metrics.value["similarity"]) > 0.5
True
>>> _ = result.save(directory / "scan_to_template_")
>>> again = fr.apply(scan, template, [directory / "scan_to_template_xfm.h5"])
>>> float(abs(again.get_fdata() - result.warped.get_fdata()).max()) < 0.5
True
>>> growth = fr.jacobian(result.forward, template)
>>> growth.shape == template.shape
True
>>> there = fr.map_points([[0, 0, 0]], [directory / "scan_to_template_xfm.h5"])
>>> back = fr.map_points(there, [(directory / "scan_to_template_xfm.h5", True)])
>>> bool(abs(back).max() < 0.1)
True
"""

from __future__ import annotations

from bids_fcnreg.api.images import ImageLike
from bids_fcnreg.api.regions import region_volumes
from bids_fcnreg.api.registered import Registered
from bids_fcnreg.api.registration import register
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
    "region_volumes",
    "register",
]
