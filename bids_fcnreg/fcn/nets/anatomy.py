"""Network that segments the anatomy of a brain image of any contrast.

A U-shaped fully convolutional network maps one image at 2 mm, in RAS+ orientation, to posterior
probabilities of background and the structures in `STRUCTURES`. It is trained on nothing but
images simulated from label maps (`bids_fcnreg.training.simulation`), as in SynthSeg.

References
----------
Billot et al., SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without
retraining, Medical Image Analysis 86:102789, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from bids_fcnreg.fcn.nets.li_fan_2017 import convolution_dtype
from bids_fcnreg.fcn.structures import STRUCTURES

#: Voxel size in mm at which the network sees images.
SPACING = 2.0


class AnatomyFCN(nn.Module):
    """U-shaped network from an image to the logits of `STRUCTURES`.

    Few features have the full resolution, where convolutions are most expensive; the logits
    combine them with features interpolated from half the resolution. All convolutions that keep
    the resolution are residual.

    Parameters
    ----------
    widths : sequence of int
        Number of features at the resolution of the image, a half, a quarter, … of it.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 160, 192)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        pairs = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        self.stem = _Convolution(1, self.widths[0])
        self.down = nn.ModuleList(_Convolution(fine, coarse, 2) for fine, coarse in pairs)
        self.encode = nn.ModuleList(_Convolution(width, width) for width in self.widths)
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in pairs
        )
        self.decode = nn.ModuleList(_Convolution(width, width) for width in self.widths[:-1])
        self.last = _Convolution(self.widths[0], self.widths[0])
        half = self.widths[1]
        self.direct = nn.ConvTranspose3d(half, half // 2, 2, stride=2)
        self.head = nn.Linear(self.widths[0] + half // 2, len(STRUCTURES))

    @property
    def arguments(self) -> dict[str, object]:
        """Arguments that recreate this architecture."""
        return {"widths": self.widths}

    @property
    def multiple(self) -> int:
        """Number by which the sizes of the image must be divisible."""
        return 2 ** (len(self.widths) - 1)

    def forward(self, image: Tensor, voxels: Tensor) -> Tensor:
        """Compute the logits of all structures at a sample of voxels.

        Parameters
        ----------
        image : Tensor (1, 1, i, j, k)
            RAS+ orientation, 2 mm voxels, intensities from `normalize_intensities`; each
            size is divisible by `multiple`.
        voxels : Tensor (n,), int64
            Flat indices of voxels of `image`.

        Returns
        -------
        Tensor (n, structures)
        """
        features = [part.flatten(0, 2).index_select(0, voxels) for part in self._features(image)]
        return self.head(torch.cat(features, dim=1).float())

    @torch.no_grad()
    def posteriors(self, image: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Compute the posterior probabilities of all structures, without gradients.

        Parameters
        ----------
        image : Tensor (1, 1, i, j, k)
            See `forward`.
        shape : (3,)
            Size of the part to return posteriors of, from the first voxel; the rest is padding.

        Returns
        -------
        Tensor (1, structures, *shape)
        """
        features = self._features(image)
        i, j, k = shape
        posteriors = image.new_empty(1, self.head.out_features, i, j, k)
        bias = self.head.bias[:, None]
        for plane in range(i):  # what is computed of a plane fits into a processor's cache
            seen = torch.cat([part[plane, :j, :k].float() for part in features], dim=-1)
            logits = torch.addmm(bias, self.head.weight, seen.flatten(0, 1).T)
            posteriors[0, :, plane] = logits.softmax(dim=0).unflatten(1, (j, k))
        return posteriors

    def _features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features (i, j, k, width) of full resolution, and of half, interpolated."""
        precision = convolution_dtype(image.device, image.shape[2:], self.multiple)
        with torch.autocast(image.device.type, precision, enabled=precision != torch.float32):
            fine, coarse = self._convolve(image.contiguous(memory_format=torch.channels_last_3d))
        return fine[0].permute(1, 2, 3, 0), coarse[0].permute(1, 2, 3, 0)

    def _convolve(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features (1, width, i, j, k) of full resolution, and of half, interpolated."""
        features = self.stem(image)
        features = features + self.encode[0](features)
        skipped = []
        for down, encode in zip(self.down, self.encode[1:], strict=True):
            skipped.append(features)
            features = down(features)
            features = features + encode(features)
        for level in reversed(range(len(skipped))):
            if level == 0:
                direct = nnf.leaky_relu(self.direct(features), 0.1)
            features = self.up[level](features) + skipped[level]
            features = features + self.decode[level](features)
        return features + self.last(features), direct


class _Convolution(nn.Module):
    """Convolution of 3 × 3 × 3, instance normalization and rectification of one image."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(inputs, outputs, 3, padding=1, stride=stride, bias=False)
        self.scale = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor) -> Tensor:
        features = self.convolution(features)
        # In a batch of one it is instance normalization, and keeps the memory format.
        features = nnf.batch_norm(features, None, None, self.scale, self.shift, training=True)
        return nnf.leaky_relu(features, 0.1, inplace=True)


def normalize_intensities(image: Tensor) -> Tensor:
    """Scale intensities so that the 1st and 99th percentiles become 0 and 1, clipped to −0.2…1.5.

    Percentiles are those of the voxels that differ from a constant background, which
    skull-stripped and padded images have: a value that more than a twentieth of the voxels share.

    Parameters
    ----------
    image : Tensor (1, 1, i, j, k)
        Any scale and offset.

    Returns
    -------
    Tensor (1, 1, i, j, k)
        A constant background becomes 0.
    """
    sample = image.flatten()
    sample = sample[:: max(1, sample.numel() // SAMPLE)]
    background = sample.mode().values
    if (sample == background).float().mean() < 0.05:
        background = torch.full_like(background, torch.nan)
    foreground = sample[sample != background]
    if foreground.numel() < 100:
        return torch.zeros_like(image)
    low, high = torch.quantile(foreground, foreground.new_tensor(PERCENTILES))
    low = torch.minimum(low, high - 1e-6 * high.abs().clamp(min=1e-6))
    scaled = ((image - low) / (high - low)).clamp(-0.2, 1.5)
    return torch.where(image == background, torch.zeros_like(scaled), scaled)


#: Intensities are normalized by about this number of voxels.
SAMPLE = 100_000

#: Quantiles of the intensities that become 0 and 1.
PERCENTILES = (0.01, 0.99)


def segmentation_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Compute 1 − mean soft Dice of the structures present, plus 0.3 times the cross-entropy.

    Parameters
    ----------
    logits : Tensor (n, structures)
        Output of the network at a sample of voxels.
    target : Tensor (n,), int64
        Channel of each voxel's structure.
    weight : Tensor (n,)
        Number of voxels of the image that each of the sample stands for.

    Returns
    -------
    Tensor ()
    """
    channels = logits.shape[1]
    log_posterior = nnf.log_softmax(logits, dim=1)
    chosen = log_posterior.gather(1, target[:, None])[:, 0]
    overlap = chosen.new_zeros(channels).index_add(0, target, chosen.exp() * weight)
    present = weight.new_zeros(channels).index_add(0, target, weight)
    dice = 2 * overlap / (weight @ log_posterior.exp() + present + 1)
    cross_entropy = -(weight * chosen).sum() / weight.sum()
    there = (present > 0).float()
    return 1 - (dice * there).sum() / there.sum() + 0.3 * cross_entropy
