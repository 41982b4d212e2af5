"""Part of a grid in which a deformation is optimized: the brain and what is near.

Operations write the voxels of the region into an existing tensor and leave the others as they are.
On a CPU they cost nothing outside the region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.spatial.displacement import compose, warp
from bids_fcnreg.fcn.spatial.filters import gaussian


@dataclass(frozen=True, eq=False)
class Region:
    """Part of a grid: an interval of voxels in each row along k.

    Attributes
    ----------
    rows : ndarray (i, j, 2), int32
        First voxel of each row, and one past the last; equal where there is none.
    mask : Tensor (1, 1, i, j, k), bool
        The same, on the device of the images.
    """

    rows: np.ndarray
    mask: Tensor

    @classmethod
    def around(cls, weight: Tensor, margin: int) -> Region:
        """Return the region of nonzero weights (1, 1, i, j, k), grown by `margin` voxels."""
        size = weight.shape[-1]
        index = torch.arange(size, device=weight.device).to(torch.float32)
        used = weight[:, 0] > 0
        # Distances from either end of a row; maxima of them over neighbouring rows are the ends.
        ends = torch.stack(
            [(used * (size - index)).amax(-1), (used * (index + 1)).amax(-1)], dim=1
        )
        window = 2 * min(margin, min(weight.shape[2:4]) - 1) + 1
        ends = nnf.max_pool2d(ends, window, stride=1, padding=window // 2)
        ends = torch.where(ends > 0, (ends + margin).clamp(max=size), 0)[0]
        low, high = size - ends[0], ends[1]
        high = torch.maximum(low, high)
        mask = (index >= low[..., None]) & (index < high[..., None])
        rows = torch.stack([low, high], dim=-1).cpu().numpy().astype(np.int32)
        return cls(rows, mask[None, None])

    def warp(self, image: Tensor, displacement: Tensor, out: Tensor) -> Tensor:
        """Pull an image (1, channels, i, j, k) back; see `displacement.warp`."""
        if kernels.usable(image, displacement, out):
            return kernels.warp(image, displacement, self.rows, out)
        return self._write(warp(image, displacement), out)

    def smooth(self, data: Tensor, sigma: float, out: Tensor) -> Tensor:
        """Smooth (1, channels, i, j, k) by a Gaussian of `sigma` voxels."""
        if kernels.usable(data, out):
            return kernels.gaussian(data, [sigma] * 3, self.rows, out)
        return self._write(gaussian(data, sigma), out)

    def smooth_adaptively(
        self, data: Tensor, sigma: float, wide_sigma: float, share: Tensor, out: Tensor
    ) -> Tensor:
        """Smooth by two Gaussians; `share` (1, 1, i, j, k) is the weight of the wider one."""
        if kernels.usable(data, share, out):
            return kernels.blend(data, [sigma] * 3, [wide_sigma] * 3, share, self.rows, out)
        smooth = torch.lerp(gaussian(data, sigma), gaussian(data, wide_sigma), share)
        return self._write(smooth, out)

    def compose(
        self, direction: Tensor, length: float, displacement: Tensor, out: Tensor
    ) -> Tensor:
        """Compose a displacement with a step, which acts first.

        Parameters
        ----------
        direction : Tensor (1, 3, i, j, k)
            Any scale.
        length : float
            Largest length of the step, in voxels, after scaling.
        displacement : Tensor (1, 3, i, j, k)
            In voxels.
        out : Tensor (1, 3, i, j, k)
            Output.
        """
        if kernels.usable(displacement, direction, out):
            scale = length / max(kernels.largest_length(direction, self.rows), 1e-12)
            return kernels.compose(direction, displacement, self.rows, out, scale)
        longest = (direction * self.mask).square().sum(dim=1).max().sqrt()
        step = direction * (length / longest.clamp(min=1e-12))
        return self._write(compose(step, displacement), out)

    def _write(self, values: Tensor, out: Tensor) -> Tensor:
        return out.copy_(torch.where(self.mask, values, out))
