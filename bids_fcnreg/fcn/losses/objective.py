"""What a deformation costs at one level of resolution: dissimilarity plus roughness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bids_fcnreg.fcn.losses.regularization import bending, diffusion, total_variation
from bids_fcnreg.fcn.losses.similarity import local_ncc, ncc
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.spatial.displacement import warp
from bids_fcnreg.fcn.spatial.midpoint import Halves

REGULARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "tv": total_variation,
    "diffusion": diffusion,
    "bending": bending,
}


@dataclass(frozen=True)
class Objective:
    """``-S(F, M∘φ) + λ R(φ)`` (Li & Fan 2017, arXiv:1709.00799).

    Parameters
    ----------
    similarity : {"ncc", "local_ncc"}
        S: global as in 2017, or local.
    radius : int
        Half-width of local NCC's window, in voxels.
    regularity : {"tv", "diffusion", "bending"}
        R: total variation as in 2017, or a squared first or second difference.
    strength : float
        λ.
    """

    similarity: str = "local_ncc"
    radius: int = 2
    regularity: str = "tv"
    strength: float = 0.005

    def __call__(
        self, fixed: Tensor, moving: Tensor, displacement: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Cost of a displacement.

        Parameters
        ----------
        fixed, moving : Tensor (batch, 1, i, j, k)
            On the same grid.
        displacement : Tensor (batch, 3, i, j, k)
            In voxels; pulls `moving` back onto `fixed`.
        weight : Tensor (batch, 1, i, j, k), optional
            How much each voxel of the fixed image counts.

        Returns
        -------
        Tensor ()
            Lower is better; differentiable with respect to `displacement`.
        """
        alike = self._alike(fixed, warp(moving, displacement), weight)
        return self.strength * REGULARITIES[self.regularity](displacement) - alike

    def halfway(self, pair: Pair, halves: Halves) -> Tensor:
        """Cost of a symmetric deformation, that of both halves.

        Parameters
        ----------
        pair : Pair
            The images, on the grid of the halves.
        halves : Halves
            What is judged.

        Returns
        -------
        Tensor ()
            Lower is better; differentiable with respect to both halves.
        """
        fixed, moving = halves.meet(pair.fixed, pair.moving)
        # Each term is differentiated with respect to one of the images only.
        alike = self._alike(fixed.detach(), moving, pair.counted)
        alike = (alike + self._alike(moving.detach(), fixed, pair.counted)) / 2
        regularity = REGULARITIES[self.regularity]
        return self.strength * (regularity(halves.to_fixed) + regularity(halves.to_moving)) - alike

    def _alike(self, fixed: Tensor, warped: Tensor, weight: Tensor | None) -> Tensor:
        """Similarity, differentiable with respect to `warped`."""
        if self.similarity == "ncc":
            return ncc(fixed, warped, weight)
        return local_ncc(fixed, warped, self.radius, weight)
