"""Objective of a registration at one resolution: dissimilarity plus regularization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bids_fcnreg.fcn.losses.regularization import diffusion, total_variation
from bids_fcnreg.fcn.losses.similarity import local_ncc, ncc
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.spatial.displacement import warp
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation

REGULARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "tv": total_variation,
    "diffusion": diffusion,
}


@dataclass(frozen=True)
class Objective:
    """``-S(F, M∘φ) + λ R(φ)`` (Li & Fan 2017, arXiv:1709.00799).

    Attributes
    ----------
    similarity : {"ncc", "local_ncc"}
        S: global as in 2017, or local.
    radius : int
        Half-width of local NCC's window, in voxels.
    regularity : {"tv", "diffusion"}
        R: total variation as in 2017, or squared first differences.
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
        """Compute the cost of a displacement.

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
        similarity = self._similarity(fixed, warp(moving, displacement), weight)
        return self.strength * REGULARITIES[self.regularity](displacement) - similarity

    def midpoint_cost(self, pair: Pair, deformation: MidpointDeformation) -> Tensor:
        """Compute the cost of a midpoint deformation.

        Parameters
        ----------
        pair : Pair
            On the grid of the deformation.
        deformation : MidpointDeformation
            The deformation to evaluate.

        Returns
        -------
        Tensor ()
            Lower is better; differentiable with respect to both displacements.
        """
        fixed, moving = deformation.warp_to_midpoint(pair.fixed, pair.moving)
        # Each term is differentiated with respect to one of the images only.
        similarity = self._similarity(fixed.detach(), moving, pair.effective_weight)
        similarity = (
            similarity + self._similarity(moving.detach(), fixed, pair.effective_weight)
        ) / 2
        regularity = REGULARITIES[self.regularity]
        return (
            self.strength * (regularity(deformation.to_fixed) + regularity(deformation.to_moving))
            - similarity
        )

    def _similarity(self, fixed: Tensor, warped: Tensor, weight: Tensor | None) -> Tensor:
        """Compute the similarity, differentiable with respect to `warped`."""
        if self.similarity == "ncc":
            return ncc(fixed, warped, weight)
        return local_ncc(fixed, warped, self.radius, weight)
