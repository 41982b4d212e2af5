"""The fully convolutional networks: a pair of images in, a displacement out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf


class FCN2017(nn.Module):
    """Network of Li & Fan 2017: convolution, pooling, deconvolution, a regression at each level.

    The fixed and the moving image enter as two channels. Convolutions and poolings go down to the
    coarsest resolution, deconvolutions come back up; a regression layer at each resolution on
    the way up gives the displacement there, which is supervised by image similarity at that
    resolution. The finest one has the resolution of the images. That plan is the paper's; kernel
    sizes, widths, instance normalisation and the absence of skip connections are choices of ours.

    Parameters
    ----------
    widths : sequence of int
        Number of features at each resolution, finest first; each next one is half the size.

    References
    ----------
    Li & Fan, Non-rigid image registration using self-supervised fully convolutional networks
    without training data, ISBI 2018, arXiv:1709.00799.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        inputs = (2, *self.widths[:-1])
        self.convolutions = nn.ModuleList(map(_convolution, inputs, self.widths))
        self.deconvolutions = nn.ModuleList(
            _deconvolution(coarse, fine)
            for fine, coarse in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.regressions = nn.ModuleList(map(_regression, self.widths))

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.widths)

    def forward(self, fixed: Tensor, moving: Tensor) -> list[Tensor]:
        """Displacements that pull the moving image onto the fixed one.

        Parameters
        ----------
        fixed, moving : Tensor (batch, 1, i, j, k)
            Intensities of about 0 to 1. Sizes that do not divide by 2 to the number of poolings
            are padded with zeros at the far ends.

        Returns
        -------
        list of Tensor (batch, 3, ...)
            Finest first: level n has the (padded) size divided by 2^n, in its own voxels. The
            finest is that of the images, without padding.
        """
        shape = fixed.shape[2:]
        features = pad_to_multiple(torch.cat([fixed, moving], dim=1), 2 ** (self.levels - 1))
        for level, convolution in enumerate(self.convolutions):
            features = convolution(features if level == 0 else nnf.max_pool3d(features, 2))
        displacements = [self.regressions[-1](features)]
        for level in reversed(range(self.levels - 1)):
            features = self.deconvolutions[level](features)
            displacements.insert(0, self.regressions[level](features))
        i, j, k = shape
        displacements[0] = displacements[0][..., :i, :j, :k]
        return displacements


def pad_to_multiple(data: Tensor, multiple: int) -> Tensor:
    """Append zeros to (batch, channels, i, j, k) until each size divides by `multiple`."""
    padding = [length for size in reversed(data.shape[2:]) for length in (0, -size % multiple)]
    return nnf.pad(data, padding)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution of 3 x 3 x 3 with normalisation, at one resolution."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1, bias=False),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.ReLU(inplace=True),
    )


def _deconvolution(inputs: int, outputs: int) -> nn.Sequential:
    """Up to twice the resolution."""
    return nn.Sequential(
        nn.ConvTranspose3d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.ReLU(inplace=True),
    )


def _regression(inputs: int) -> nn.Conv3d:
    """Displacement from features; starts close to none at all."""
    layer = nn.Conv3d(inputs, 3, 3, padding=1)
    nn.init.normal_(layer.weight, std=1e-4)
    nn.init.zeros_(layer.bias)
    return layer
