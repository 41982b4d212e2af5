"""Network of Li & Fan (2017): from an image pair to a displacement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from bids_fcnreg.fcn.losses.objective import Objective
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation
from bids_fcnreg.fcn.spatial.transform import Displacement


class FCN2017(nn.Module):
    """Network of Li & Fan (2017) with a regression layer at each resolution.

    The fixed and the moving image are two input channels. Convolution and pooling layers lead to
    the coarsest resolution, deconvolution layers back up. A regression layer at each resolution on
    the way up returns a displacement, supervised by image similarity at that resolution; the
    finest has the resolution of the images. This layout is the paper's. Kernel sizes, widths,
    instance normalization, the absence of skip connections, and training with local instead of
    global correlation are not specified there.

    Parameters
    ----------
    widths : sequence of int
        Number of features at each resolution, finest first; each level halves the resolution.
    spacing : float
        Voxel size of the input images in mm.

    References
    ----------
    Li & Fan, Non-rigid image registration using self-supervised fully convolutional networks
    without training data, ISBI 2018, arXiv:1709.00799.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64), spacing: float = 2.0) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.spacings = (float(spacing),)
        inputs = (2, *self.widths[:-1])
        self.convolutions = nn.ModuleList(map(_convolution, inputs, self.widths))
        self.deconvolutions = nn.ModuleList(
            _deconvolution(coarse, fine)
            for fine, coarse in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.regressions = nn.ModuleList(map(_regression, self.widths))

    @property
    def arguments(self) -> dict[str, object]:
        """Arguments that recreate this architecture."""
        return {"widths": self.widths, "spacing": self.spacings[0]}

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.widths)

    def forward(self, fixed: Tensor, moving: Tensor) -> list[Tensor]:
        """Compute displacements that pull the moving image onto the fixed one.

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
        multiple = 2 ** (self.levels - 1)
        images = pad_to_multiple(torch.cat([fixed, moving], dim=1), multiple)
        precision = convolution_dtype(images.device, images.shape[2:], multiple)
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            found = self._displacements(images.contiguous(memory_format=torch.channels_last_3d))
        i, j, k = fixed.shape[2:]
        finest, *coarser = (displacement.float().contiguous() for displacement in found)
        return [finest[..., :i, :j, :k], *coarser]

    def _displacements(self, images: Tensor) -> list[Tensor]:
        """Compute displacements at every resolution, finest first."""
        features = images
        for level, convolution in enumerate(self.convolutions):
            features = convolution(features if level == 0 else nnf.max_pool3d(features, 2))
        displacements = [self.regressions[-1](features)]
        for level in reversed(range(self.levels - 1)):
            features = self.deconvolutions[level](features)
            displacements.insert(0, self.regressions[level](features))
        return displacements

    def initialize_stage(self, stage: int) -> None:
        """Do nothing: there is one stage only."""

    def is_untrained(self, stage: int) -> bool:
        """Return False: there is no coarser stage."""
        return False

    def cost(self, pair: Pair, objective: Objective, stage: int = 0) -> Tensor:
        """Compute the cost of one pair, summed over resolutions (deep self-supervision).

        Parameters
        ----------
        pair : Pair
            At the network's voxel size or finer.
        objective : Objective
            Evaluated at every resolution, on images averaged to it.
        stage : int
            All resolutions are trained in one stage, 0.

        Returns
        -------
        Tensor ()
        """
        pair = pair.coarser(self.spacings[stage])
        displacements = self(pair.fixed, pair.moving)
        cost = objective(pair.fixed, pair.moving, displacements[0], pair.effective_weight)
        multiple = 2 ** (self.levels - 1)
        fixed, moving, weight = (
            pad_to_multiple(data, multiple)
            for data in (pair.fixed, pair.moving, pair.effective_weight)
        )
        for displacement in displacements[1:]:
            fixed, moving, weight = (nnf.avg_pool3d(data, 2) for data in (fixed, moving, weight))
            cost = cost + objective(fixed, moving, displacement, weight)
        return cost

    def deform(self, pair: Pair) -> MidpointDeformation:
        """Predict the deformation of a pair in one forward pass, without gradients."""
        pair = pair.coarser(self.spacings[0])
        with torch.no_grad():
            displacement = self(pair.fixed, pair.moving)[0]
        return MidpointDeformation.one_sided(Displacement(pair.grid, displacement))

    def start(self, pair: Pair) -> MidpointDeformation:
        """Predict a deformation to be refined: that of `deform`."""
        return self.deform(pair)


def pad_to_multiple(data: Tensor, multiple: int) -> Tensor:
    """Append zeros to (batch, channels, i, j, k) until each size divides by `multiple`."""
    padding = [length for size in reversed(data.shape[2:]) for length in (0, -size % multiple)]
    return nnf.pad(data, padding)


def convolution_dtype(device: torch.device, sizes: Sequence[int], multiple: int) -> torch.dtype:
    """Return the dtype of a network's convolutions: bfloat16 where the device supports it.

    Parameters
    ----------
    device : torch.device
        Where the network is.
    sizes : sequence of 3 int
        Of its input images, in voxels.
    multiple : int
        Downsampling factor of the network's coarsest resolution.
    """
    if min(sizes) < 3 * multiple:
        return torch.float32  # gradients in bfloat16 are wrong for 2 voxels (torch 2.13, CPU)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Make a 3 x 3 x 3 convolution with instance normalization."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1, bias=False),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.ReLU(inplace=True),
    )


def _deconvolution(inputs: int, outputs: int) -> nn.Sequential:
    """Make a deconvolution that doubles the resolution."""
    return nn.Sequential(
        nn.ConvTranspose3d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.ReLU(inplace=True),
    )


def _regression(inputs: int) -> nn.Conv3d:
    """Make the layer from features to a displacement, which starts close to zero."""
    layer = nn.Conv3d(inputs, 3, 3, padding=1)
    nn.init.normal_(layer.weight, std=1e-4)
    assert layer.bias is not None  # by default it has one
    nn.init.zeros_(layer.bias)
    return layer
