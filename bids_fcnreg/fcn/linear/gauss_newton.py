"""Levenberg–Marquardt optimization of linear transforms.

The similarity is the weighted normalized cross-correlation over points of the fixed image. Steps
minimize the residual between the normalized images, for many transforms at once; a step multiplies
the transform by the exponential of a generator, so that it stays in its group (rigid, similarity,
affine) and its determinant stays positive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.linear.pyramid import Level
from bids_fcnreg.fcn.reproducible import one_thread, total
from bids_fcnreg.fcn.spatial.displacement import sample
from bids_fcnreg.fcn.spatial.filters import gaussian

LENGTH_MM = 100.0  # unit of length in the normal equations, keeps them well conditioned
MAX_STRETCH = 1.8  # singular values of the linear part stay within this factor of 1
RIM_MM = 12.0  # background around the object that is compared
MIN_OVERLAP = 0.6  # of the object; below it the similarity is reduced proportionally
DOF = {"rigid": 6, "similarity": 7, "affine": 12}


@dataclass(frozen=True)
class LevelPair:
    """Sampled points of a fixed level, and the moving level they are compared with.

    Attributes
    ----------
    points : Tensor (4, p) float32
        RAS+ mm, homogeneous, of the compared fixed voxels.
    fixed : Tensor (channel, p) float32
        Features at these points.
    weight : Tensor (p,) float32
        Known fraction of each.
    object_weight : Tensor (p,) float32
        `weight` inside the object, else 0; for the overlap.
    moving : Tensor (1, 4 channel + 1, i, j, k) float32
        Features of the moving level, their derivatives along i, j, k (per voxel), its weight.
    moving_affine : ndarray (4, 4) float64
        Voxel to RAS mm of the moving level.
    object_volume : float
        Smaller volume of the two objects, in points of the fixed level.
    shares : tuple of float
        Weight of each channel in the similarity; sum 1.
    """

    points: Tensor
    fixed: Tensor
    weight: Tensor
    object_weight: Tensor
    moving: Tensor
    moving_affine: np.ndarray
    object_volume: float
    shares: tuple[float, ...]

    @classmethod
    def from_levels(
        cls,
        fixed: Level,
        moving: Level,
        volumes: tuple[float, float],
        shares: tuple[float, ...],
        count: int,
    ) -> LevelPair:
        """Combine two levels, at about `count` points; `volumes` of their objects in mm³."""
        spacing = float(np.linalg.norm(fixed.affine[:3, 0]))
        channels = len(shares)
        bright = (fixed.features[0] > 0.1).float()[None, None]
        near = gaussian(bright, 0.5 * RIM_MM / spacing) > 0.03
        used = (fixed.weight > 0) & near[0, 0]
        index = used.nonzero()
        step = max(1, len(index) // count)
        index = index[::step]
        matrix = torch.from_numpy(fixed.affine).to(index.device)
        points = index.to(torch.float64) @ matrix[:3, :3].T + matrix[:3, 3]
        i, j, k = index.unbind(1)
        weight = fixed.weight[i, j, k]
        known_object = float(total((fixed.weight * bright[0, 0])[used]))
        return cls(
            points=torch.cat([points, torch.ones_like(points[:, :1])], 1).T.float().contiguous(),
            fixed=fixed.features[:channels, i, j, k],
            weight=weight,
            object_weight=weight * bright[0, 0, i, j, k],
            moving=_with_derivatives(moving, channels),
            moving_affine=moving.affine,
            object_volume=min(min(volumes) / spacing**3, known_object) / step,
            shares=shares,
        )

    def subsampled(self, count: int) -> LevelPair:
        """Return the pair with about `count` evenly spaced points, if it has more."""
        step = max(1, len(self.weight) // count)
        return replace(
            self,
            points=self.points[:, ::step],
            fixed=self.fixed[:, ::step],
            weight=self.weight[::step],
            object_weight=self.object_weight[::step],
            object_volume=self.object_volume / step,
        )

    def score(self, matrices: np.ndarray, chunk: int = 256) -> np.ndarray:
        """Compute the similarity (b,), -1..1, of transforms (b, 4, 4) fixed to moving RAS+ mm."""
        channels = len(self.shares)
        volume = torch.cat([self.moving[:, :channels], self.moving[:, -1:]], 1)
        scores = []
        for start in range(0, len(matrices), chunk):
            sampled = self._sample(volume, matrices[start : start + chunk])
            fixed = self.fixed.expand(len(sampled), -1, -1)
            rows = torch.cat([torch.ones_like(fixed[:, :1]), sampled[:, :-1], fixed], 1)
            gram = _gram(rows, sampled[:, -1] * self.weight)
            score = np.zeros(len(sampled))
            for channel, share in enumerate(self.shares):
                pick = [0, 1 + channel, 1 + channels + channel]
                score = score + share * _correlation(gram[:, pick][:, :, pick])
            scores.append(score * self._overlap(sampled[:, -1]))
        return np.concatenate(scores)

    def linearize(self, matrices: np.ndarray, dof: str) -> tuple[np.ndarray, ...]:
        """Compute similarity (b,), gradient (b, n), Gauss–Newton curvature (b, n, n), centre.

        The parameters are those of `generators(dof)` about the centre (b, 3) of the mapped points.
        """
        channels = len(self.shares)
        sampled = self._sample(self.moving, matrices)
        weight = sampled[:, -1] * self.weight
        with one_thread():
            middle = self.points.mean(1).double().cpu().numpy()
        centre = matrices[:, :3] @ middle
        to_mm = torch.from_numpy(np.linalg.inv(self.moving_affine)[:3, :3].T.copy()).to(weight)
        about = matrices[:, :3].copy()
        about[:, :, 3] -= centre
        local = torch.from_numpy(about / LENGTH_MM).to(self.points) @ self.points
        local = torch.cat([local, torch.ones_like(local[:, :1])], 1)
        basis = generators(dof)[:, :3] * [LENGTH_MM, LENGTH_MM, LENGTH_MM, 1.0]
        basis = basis.reshape(-1, 12)
        count, size = len(matrices), DOF[dof]
        score, gradient = np.zeros(count), np.zeros((count, size))
        curvature = np.zeros((count, size, size))
        for channel, share in enumerate(self.shares):
            first = channels + 3 * channel
            slopes = to_mm @ sampled[:, first : first + 3]  # along x, y, z
            columns = (slopes[:, :, None] * local[:, None]).flatten(1, 2)
            fixed = self.fixed[channel].expand_as(weight)
            rest = torch.stack([torch.ones_like(weight), sampled[:, channel], fixed], 1)
            gram = _gram(torch.cat([columns, rest], 1), weight)
            terms = _normal_equations(gram, basis)
            score = score + share * terms[0]
            gradient = gradient + share * terms[1]
            curvature = curvature + share * terms[2]
        return score * self._overlap(sampled[:, -1]), gradient, curvature, centre

    def _overlap(self, known: Tensor) -> np.ndarray:
        sums = torch.stack([total(one) for one in known * self.object_weight])
        shared = sums.double().cpu().numpy()
        return np.minimum(1.0, shared / (MIN_OVERLAP * self.object_volume))

    def _sample(self, volume: Tensor, matrices: np.ndarray) -> Tensor:
        """Sample a moving volume at the mapped points (b, channel, p); 0 outside it."""
        to_voxels = (np.linalg.inv(self.moving_affine) @ matrices)[:, :3].transpose(1, 0, 2)
        coordinates = torch.from_numpy(to_voxels).to(self.points) @ self.points  # (3, b, p)
        sampled = sample(volume, coordinates[None, :, None])
        return sampled[0, :, 0].transpose(0, 1)


def generators(dof: str) -> np.ndarray:
    """Return the generators (n, 4, 4) of a group of transforms.

    Rotations and stretches are per radian or unit, translations per `LENGTH_MM`.
    """
    pairs = ((0, 1), (1, 2), (2, 0))
    linear = np.zeros((DOF[dof] - 3, 3, 3))
    for n, (a, b) in enumerate(pairs):
        linear[n, b, a], linear[n, a, b] = 1, -1
    if dof == "similarity":
        linear[3] = np.eye(3)
    if dof == "affine":
        for n, (a, b) in enumerate(pairs):
            linear[3 + n, a, a] = 1
            linear[6 + n, [a, b], [b, a]] = 1
    result = np.zeros((DOF[dof], 4, 4))
    result[:-3, :3, :3] = linear
    result[-3:, :3, 3] = LENGTH_MM * np.eye(3)
    return result


def levenberg_marquardt(
    match: LevelPair, matrices: np.ndarray, dof: str, steps: int, tolerance_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Optimize each of several transforms by at most `steps` steps.

    Parameters
    ----------
    matrices : ndarray (b, 4, 4)
        Fixed to moving RAS mm.
    tolerance_mm : float
        Stop when no transform changes by more than this.

    Returns
    -------
    matrices : ndarray (b, 4, 4)
    scores : ndarray (b,)
        Never less than those of the initial transforms.
    """
    current = np.array(matrices, dtype=np.float64)
    scores, gradient, curvature, centre = match.linearize(current, dof)
    damping = np.full(len(current), 1e-2)
    for _ in range(steps):
        shift = _solve(gradient, curvature, damping)
        trial = _move(current, dof, centre, shift)
        moved = LENGTH_MM * np.abs(shift).max(1)
        new = match.linearize(trial, dof)
        better = (new[0] > scores) & _plausible(trial)
        current[better] = trial[better]
        for old, fresh in zip((scores, gradient, curvature, centre), new, strict=True):
            old[better] = fresh[better]
        damping = np.clip(np.where(better, damping * 0.2, damping * 8), 1e-6, 1e6)
        if (moved < tolerance_mm).all():
            break
    return current, scores


def _solve(gradient: np.ndarray, curvature: np.ndarray, damping: np.ndarray) -> np.ndarray:
    diagonal = np.einsum("bii->bi", curvature)
    ridge = damping[:, None] * diagonal + 1e-6 * diagonal.mean(1, keepdims=True) + 1e-12
    damped = curvature + ridge[:, :, None] * np.eye(curvature.shape[1])
    shift = np.linalg.solve(damped, gradient[..., None])[..., 0]
    # the linearisation holds for a few voxels of a level only: about 20 mm or 0.2 radian
    return shift * np.minimum(1, 0.2 / np.maximum(np.abs(shift).max(1, keepdims=True), 1e-12))


def _move(matrices: np.ndarray, dof: str, centre: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Compose transforms (b, 4, 4) with exponentials of the generators about `centre`."""
    combined = np.einsum("bn,nij->bij", shift, generators(dof))
    combined[:, :3, 3] -= np.einsum("bij,bj->bi", combined[:, :3, :3], centre)
    return torch.linalg.matrix_exp(torch.from_numpy(combined)).numpy() @ matrices


def _plausible(matrices: np.ndarray) -> np.ndarray:
    stretch = np.linalg.svd(matrices[:, :3, :3], compute_uv=False)
    return (stretch.max(1) < MAX_STRETCH) & (stretch.min(1) > 1 / MAX_STRETCH)


def _gram(rows: Tensor, weight: Tensor) -> np.ndarray:
    """Compute weighted inner products (b, n, n) float64 of rows (b, n, p)."""
    with one_thread():  # else, on some processors, sums depend on the number of threads
        return torch.bmm(rows * weight[:, None], rows.mT).double().cpu().numpy()


def _correlation(gram: np.ndarray) -> np.ndarray:
    """Compute the weighted correlation from the inner products of (1, moving, fixed)."""
    mass = np.maximum(gram[:, 0, 0], 1e-9)
    covariance = gram[:, 1:, 1:] - gram[:, 1:, :1] * gram[:, :1, 1:] / mass[:, None, None]
    spread = covariance[:, 0, 0] * covariance[:, 1, 1]
    return covariance[:, 0, 1] / np.sqrt(np.maximum(spread, 1e-12))


def _normal_equations(
    gram: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the correlation, its gradient and curvature from inner products.

    `gram` (b, 15, 15) holds the derivatives of the moving image to the 12 entries of the matrix,
    then (1, moving, fixed); `basis` (n, 12) takes entries to parameters. With the images centred
    and of unit norm, 1 - correlation is half the squared residual.
    """
    mass = np.maximum(gram[:, 12, 12], 1e-9)[:, None, None]
    centred = gram - gram[:, :, 12:13] * gram[:, 12:13, :] / mass
    norm_moving = np.sqrt(np.maximum(centred[:, 13, 13], 1e-9))
    norm_fixed = np.sqrt(np.maximum(centred[:, 14, 14], 1e-9))
    correlation = centred[:, 13, 14] / (norm_moving * norm_fixed)
    along = centred[:, :12, 13] @ basis.T / norm_moving[:, None] ** 2
    towards = centred[:, :12, 14] @ basis.T / (norm_moving * norm_fixed)[:, None]
    gradient = towards - correlation[:, None] * along
    curvature = basis @ centred[:, :12, :12] @ basis.T / norm_moving[:, None, None] ** 2
    curvature = curvature - along[:, :, None] * along[:, None, :]
    return correlation, gradient, curvature


def _with_derivatives(moving: Level, channels: int) -> Tensor:
    """Stack features, their derivatives along i, j, k (per voxel), and the weight."""
    shape = moving.weight.shape
    stacked = moving.features.new_empty((1, 4 * channels + 1, *shape))
    stacked[0, :channels] = moving.features[:channels]
    slopes = stacked[0, channels:-1].view(channels, 3, *shape)
    for axis, slope in enumerate(torch.gradient(moving.features[:channels], dim=(1, 2, 3))):
        slopes[:, axis] = slope
    stacked[0, -1] = moving.weight
    return stacked
