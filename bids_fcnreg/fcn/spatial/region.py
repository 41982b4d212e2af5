"""Part of a grid in which a deformation is optimized: the brain and what is near.

Operations write the voxels of the region into an existing tensor and leave the others as they are.
On a CPU they cost nothing outside the region. On a GPU they do not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.spatial.displacement import compose, damp_divergence, warp
from bids_fcnreg.fcn.spatial.filters import fill, gaussian, halve


@dataclass(frozen=True, eq=False)
class Region:
    """Part of a grid: an interval of voxels in each row along k.

    Attributes
    ----------
    ends : Tensor (2, i, j)
        First voxel of each row, and one past the last; equal where there is none.
    mask : Tensor (1, 1, i, j, k), bool
        The same.
    """

    ends: Tensor
    mask: Tensor

    @classmethod
    def around(cls, weight: Tensor, margin: int) -> Region:
        """Return the region of nonzero weights (1, 1, i, j, k), grown by `margin` voxels."""
        size = weight.shape[-1]
        index = torch.arange(size, device=weight.device).to(torch.float32)
        used = weight[:, 0] > 0
        # Distances from either end of a row; maxima of them over neighbouring rows are the ends.
        ends = torch.stack([(used * part).amax(-1) for part in (size - index, index + 1)], dim=1)
        ends = nnf.max_pool2d(ends, 2 * margin + 1, stride=1, padding=margin)
        ends = torch.where(ends > 0, (ends + margin).clamp(max=size), 0.0)[0]
        low = size - ends[0]
        ends = torch.stack([low, torch.maximum(low, ends[1])])
        mask = (index >= ends[0, ..., None]) & (index < ends[1, ..., None])
        return cls(ends, mask[None, None])

    @cached_property
    def rows(self) -> np.ndarray:
        """`ends` as the kernels need them, (i, j, 2), int32."""
        return np.ascontiguousarray(self.ends.permute(1, 2, 0).numpy().astype(np.int32))

    def warp(self, images: Tensor, displacements: Tensor, out: Tensor) -> None:
        """Pull images (batch, channels, i, j, k) back; see `displacement.warp`."""

        def compiled(image: Tensor, displacement: Tensor, out: Tensor) -> None:
            kernels.warp(image, displacement, self.rows, out)

        self._write(compiled, warp, (images, displacements), out)

    def fill(self, images: Tensor, known: Tensor, radius: int) -> None:
        """Replace unknown voxels of images (batch, channels, i, j, k), in place.

        `known` (1, 1, i, j, k) is how much of each voxel is known; see `filters.fill`.
        """

        def compiled(image: Tensor, known: Tensor, out: Tensor) -> None:
            torch.where(self.mask, fill(image, known, radius), image, out=out)

        def plain(images: Tensor, known: Tensor) -> Tensor:
            return fill(images, known[:1], radius)

        each = known.expand(len(images), -1, -1, -1, -1)
        self._write(compiled, plain, (images, each), images)

    def smooth(self, data: Tensor, sigma: float, out: Tensor) -> None:
        """Smooth (batch, channels, i, j, k) by a Gaussian of `sigma` voxels."""

        def compiled(data: Tensor, out: Tensor) -> None:
            kernels.gaussian(data, [sigma] * 3, self.rows, out)

        self._write(compiled, lambda data: gaussian(data, sigma), (data,), out)

    def smooth_adaptively(
        self, data: Tensor, sigma: float, wide_sigma: float, share: Tensor, out: Tensor
    ) -> None:
        """Smooth by two Gaussians; `share` (1, 1, i, j, k) is the weight of the wider one.

        The wider one is computed at half of the resolution. Averages of blocks and interpolation
        smooth, too: their variances are 1/4 and 3/4 of a voxel.
        """
        coarse_sigma = [(max(wide_sigma**2 - 1, 0) / 4) ** 0.5] * 3

        def compiled(data: Tensor, out: Tensor) -> None:
            coarse = gaussian(halve(data), coarse_sigma)
            kernels.blend(data, [sigma] * 3, coarse, share, self.rows, out)

        def plain(data: Tensor) -> Tensor:
            i, j, k = data.shape[2:]
            coarse = gaussian(halve(data), coarse_sigma)
            wide = nnf.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)
            return torch.lerp(gaussian(data, sigma), wide[..., :i, :j, :k], share)

        self._write(compiled, plain, (data,), out)

    def compose(
        self, directions: Tensor, length: float, displacements: Tensor, out: Tensor
    ) -> None:
        """Compose displacements with steps, which act first.

        Parameters
        ----------
        directions : Tensor (batch, 3, i, j, k)
            Any scale; zero outside the region.
        length : float
            Largest length of each step, in voxels, after scaling.
        displacements : Tensor (batch, 3, i, j, k)
            In voxels.
        out : Tensor (batch, 3, i, j, k)
            Output.
        """

        def compiled(direction: Tensor, displacement: Tensor, out: Tensor) -> None:
            scale = length / max(kernels.largest_length(direction, self.rows), 1e-12)
            kernels.compose(direction, displacement, self.rows, out, scale)

        def plain(directions: Tensor, displacements: Tensor) -> Tensor:
            lengths = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
            longest = lengths.amax(dim=(2, 3, 4), keepdim=True).clamp(min=1e-12)
            return compose(directions / (longest / length), displacements)

        self._write(compiled, plain, (directions, displacements), out)

    def damp_divergence(self, displacements: Tensor, rate: float, out: Tensor) -> None:
        """Smooth the divergence of displacements; see `displacement.damp_divergence`.

        Parameters
        ----------
        displacements : Tensor (batch, 3, i, j, k)
            In voxels.
        rate : float
            Length of the step.
        out : Tensor (batch, 3, i, j, k)
            Output; unchanged at the grid's border.
        """

        def compiled(displacement: Tensor, out: Tensor) -> None:
            kernels.damp_divergence(displacement, rate, self.rows, out)

        def plain(displacements: Tensor) -> Tensor:
            return damp_divergence(displacements, rate)

        self._write(compiled, plain, (displacements,), out)

    def _write(
        self,
        compiled: Callable[..., None],
        plain: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        out: Tensor,
    ) -> None:
        """Compute an operation with the kernels, for each of a batch, or with PyTorch."""
        for each in zip(*(data.split(1) for data in (*inputs, out)), strict=True):
            if not kernels.usable(*each):
                torch.where(self.mask, plain(*inputs), out, out=out)
                return
            compiled(*each)
