"""Pairwise registration: linear stage, deformation, inverse and quality metrics."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.device import resolve_device
from bids_fcnreg.fcn.groupwise import linear_part
from bids_fcnreg.fcn.initial import check_initial, compose_with_initial, continued
from bids_fcnreg.fcn.intensity import standardize
from bids_fcnreg.fcn.linear.align import Dof, align
from bids_fcnreg.fcn.memory import keep_freed_memory
from bids_fcnreg.fcn.modes import LINEAR, MODES, TRANSFORMS, Mode
from bids_fcnreg.fcn.nets.checkpoint import NETWORKS, load
from bids_fcnreg.fcn.nets.packaged_weights import packaged_weights
from bids_fcnreg.fcn.out_of_memory import with_fallback
from bids_fcnreg.fcn.pair import Pair, assemble_pair, replace_moving
from bids_fcnreg.fcn.parallel import for_both
from bids_fcnreg.fcn.quality import Quality, assess, rotation_degrees, similarity
from bids_fcnreg.fcn.refine import Refinement, refine
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.fcn.train import RECIPES, optimize


@dataclass(frozen=True)
class Registration:
    """A registered pair.

    Attributes
    ----------
    forward : Transform
        Maps points of the fixed to the moving space: resamples the moving image onto the fixed.
    inverse : Transform
        Maps points of the moving to the fixed space: resamples the fixed image onto the moving.
    quality : Quality
        Quality metrics.
    """

    forward: Transform
    inverse: Transform
    quality: Quality


def register(
    fixed: Image,
    moving: Image,
    *,
    transform: str = "deformable",
    initial: Transform | None = None,
    mode: str = "refine",
    network: str = "diffeomorphic",
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    moving_exclude: Image | None = None,
    fixed_exclude: Image | None = None,
    model: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
) -> Registration:
    """Register a moving image to a fixed one.

    Parameters
    ----------
    fixed, moving : Image (1, 1, i, j, k)
        Brain images with their geometry; any orientation, voxel size and intensity.
    transform : {"rigid", "similarity", "affine", "deformable"}
        Kind of transform: of 6, 7 or 12 parameters, or an affine followed by a deformation.
    initial : Transform, optional
        Initial transform, which replaces the search over orientations: fixed to moving points. A
        linear one is optimized; see `align`. A nonlinear one becomes a part of the result; see
        `initial`.
    mode : {"refine", "predict", "optimize"}
        How the deformation is computed. ``refine``: forward pass of a trained network, then
        instance optimization. ``predict``: the same with few steps. ``optimize``: train a new
        network on this pair alone.
    network : {"diffeomorphic", "2017"}
        Network architecture; ignored if `model` is given.
    fixed_mask, moving_mask : Image, optional
        Brain masks on the grids of their images; by default estimated from skull-stripped images
        (`foreground`).
    moving_exclude, fixed_exclude : Image, optional
        Nonzero at voxels of the moving and of the fixed image to exclude from the similarity, such
        as a lesion.
    model : path, optional
        File with trained weights; by default those that come with the package.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    seed : int
        Random seed.
    threads : int, optional
        CPU threads to use; by default PyTorch's choice.

    Returns
    -------
    Registration

    Raises
    ------
    InputError
        If the transform, its initial one, the mode, network, model, device or a mask is invalid,
        or an image has no contrast.
    """
    if transform not in TRANSFORMS:
        raise InputError(
            f"Unknown transform {transform!r}. Choose one of {', '.join(TRANSFORMS)}."
        )
    if mode not in MODES:
        raise InputError(f"Unknown mode {mode!r}. Choose one of {', '.join(MODES)}.")
    if network not in NETWORKS:
        raise InputError(f"Unknown network {network!r}. Choose one of {', '.join(NETWORKS)}.")
    if model is not None and not MODES[mode].trained:
        raise InputError(f"The mode {mode} trains a network from scratch. Omit the model.")
    if model is not None and transform in LINEAR:
        raise InputError(f"A {transform} transform needs no network. Omit the model.")
    if initial is not None:
        check_initial(initial, transform)
    torch_device = resolve_device(device)
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    quality = Quality(mode=transform if transform in LINEAR else mode, device=str(torch_device))
    with quality.timed("prepare"):
        (fixed, fixed_mask), (moving, moving_mask) = for_both(
            standardize, (fixed, moving), (fixed_mask, moving_mask), ("fixed", "moving")
        )
    images = _Images(fixed, fixed_mask, moving, moving_mask, moving_exclude, fixed_exclude)
    options = _Options(transform, initial, MODES[mode], network, model, seed)

    def compute(device: torch.device) -> Registration:
        quality.device = str(device)
        return _register(images.to(device), options, quality)

    return with_fallback(compute, torch_device, "the registration")


@dataclass(frozen=True)
class _Images:
    """Standardized images and their masks."""

    fixed: Image
    fixed_mask: Image
    moving: Image
    moving_mask: Image
    moving_exclude: Image | None
    fixed_exclude: Image | None

    def to(self, device: torch.device) -> _Images:
        """Return them on a device."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: one.to(device) for name, one in given.items() if one})


@dataclass(frozen=True)
class _Options:
    """Arguments of `register` that determine how a transform is computed."""

    transform: str
    initial: Transform | None
    mode: Mode
    network: str
    model: Path | None
    seed: int


def _register(images: _Images, options: _Options, quality: Quality) -> Registration:
    """Register two standardized images on their device; fill in `quality`."""
    with quality.timed("prepare"):
        before = assemble_pair(
            images.fixed,
            images.moving,
            np.eye(4),
            images.fixed_mask,
            images.moving_mask,
            fixed_exclude=images.fixed_exclude,
        )
        quality.similarity_initial = similarity(before)
    deformable = options.transform not in LINEAR
    nonlinear = None
    if options.initial is not None and options.initial.displacements:
        nonlinear = continued(options.initial.to(before.fixed.device))
    with quality.timed("affine" if deformable else options.transform):
        matrix = _align(images, options, before, nonlinear)
    chain = Transform((Affine(matrix), *(nonlinear.steps if nonlinear else ())))
    quality.rotation_degrees = rotation_degrees(linear_part(chain))
    with quality.timed("prepare"):
        pair = replace_moving(
            before, images.moving, chain, images.moving_mask, images.moving_exclude
        )
    if not deformable:
        with quality.timed("quality"):
            still = Displacement(pair.grid, pair.fixed.new_zeros(1, 3, *pair.grid.shape))
            assess(quality, pair, still, still)
        return Registration(chain, chain.inverse(), quality)
    there, back = _deform(pair, options, quality)
    aligned = None
    if nonlinear:
        aligned = similarity(pair)
        with quality.timed("inverse"):
            whole = Transform((there, *chain.steps))
            there, back, matrix = compose_with_initial(whole, images.fixed.grid)
        with quality.timed("prepare"):
            pair = assemble_pair(
                images.fixed,
                images.moving,
                matrix,
                images.fixed_mask,
                images.moving_mask,
                images.moving_exclude,
                images.fixed_exclude,
                grid=there.grid,
            )
    with quality.timed("quality"):
        assess(quality, pair, there, back)
        if aligned is not None:
            quality.similarity_affine = aligned
    return Registration(
        Transform((there.cpu(), Affine(matrix))),
        Transform((Affine(np.linalg.inv(matrix)), back.cpu())),
        quality,
    )


def _align(
    images: _Images, options: _Options, before: Pair, nonlinear: Transform | None
) -> np.ndarray:
    """Find the linear transform, before a nonlinear initial one, of two standardized images.

    `before` is the pair before registration.
    """
    moving, mask, exclude = images.moving, images.moving_mask, images.moving_exclude
    initial = None if options.initial is None else linear_part(options.initial)
    if nonlinear is not None:
        seen = replace_moving(before, moving, nonlinear, mask, exclude)
        inside = cast(Tensor, seen.moving_mask)
        if not bool((inside > 0.5).any()):
            raise InputError(
                "After the initial transform the moving brain is far from the fixed one. Check "
                "that the transform belongs to these images. To invert it, write [XFM,1], or "
                "(XFM, True) in Python."
            )
        moving, mask = (Image(one, seen.grid) for one in (seen.moving, inside))
        exclude = None if seen.moving_exclude is None else Image(seen.moving_exclude, seen.grid)
        initial = np.eye(4)
    return align(
        images.fixed,
        moving,
        dof=cast(Dof, options.transform if options.transform in LINEAR else "affine"),
        fixed_mask=images.fixed_mask,
        moving_mask=mask,
        moving_exclude=exclude,
        fixed_exclude=images.fixed_exclude,
        initial=initial,
    )


def _deform(pair: Pair, options: _Options, quality: Quality) -> tuple[Displacement, Displacement]:
    """Compute the deformation of a pair and its inverse on its device; time the stages."""
    device = pair.fixed.device

    def run_network(device: torch.device) -> MidpointDeformation:
        if not options.mode.trained:
            torch.manual_seed(options.seed)
            network = NETWORKS[options.network]().to(device)
            return optimize(network, pair.to(device), RECIPES[options.network])
        trained, quality.weights = load(options.model or packaged_weights(options.network))
        trained = trained.to(device)
        return trained.start(pair.to(device))

    with quality.timed("network"):
        deformation = with_fallback(run_network, device, "the network").to(device)
    if options.mode.steps:
        with quality.timed("refine"):
            deformation = refine(pair, deformation, Refinement(steps=options.mode.steps))
    with quality.timed("inverse"):
        return deformation.on_grid(pair.grid).tapered().compose()
