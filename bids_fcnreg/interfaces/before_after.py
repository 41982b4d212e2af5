"""Figure that shows two images in turn, windowed by the intensities of the brain."""

from __future__ import annotations

from nipype.interfaces.base import File
from nireports.interfaces.reporting.base import (
    SimpleBeforeAfterRPT,
    _SimpleBeforeAfterInputSpecRPT,
)

#: Slices along each axis.
CUTS = 7


class _BeforeAfterInputSpec(_SimpleBeforeAfterInputSpecRPT):
    mask = File(exists=True, mandatory=True, desc="brain mask on the grid of both images")


class BeforeAfter(SimpleBeforeAfterRPT):
    """Show an image and, under the pointer, another one on the same grid."""

    input_spec = _BeforeAfterInputSpec

    def _generate_report(self):
        import nibabel as nib
        import numpy as np
        from nireports.reportlets.mosaic import plot_registration
        from nireports.reportlets.utils import compose_view, cuts_from_bbox

        from bids_fcnreg.window import intensity_window

        mask = nib.load(self.inputs.mask)
        inside = np.asanyarray(mask.dataobj) > 0
        box = inside if inside.any() else np.ones_like(inside)
        cuts = cuts_from_bbox(nib.Nifti1Image(box.astype("uint8"), mask.affine), cuts=CUTS)
        views = []
        for name, path, label in (
            ("fixed-image", self._fixed_image, self._fixed_image_label),
            ("moving-image", self._moving_image, self._moving_image_label),
        ):
            shown = nib.load(path)
            darkest, brightest = intensity_window(shown.get_fdata(), inside)
            views.append(
                plot_registration(
                    shown,
                    name,
                    cuts=cuts,
                    label=label,
                    compress=self.inputs.compress_report,
                    plot_params={"vmin": darkest, "vmax": brightest},
                )
            )
        compose_view(*views, out_file=self._out_report)
