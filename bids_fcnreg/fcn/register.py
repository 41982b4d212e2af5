"""Registration of a pair of images: linear stage, deformation, inverse, and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.intensity import standardize
from bids_fcnreg.fcn.linear.align import align
from bids_fcnreg.fcn.memory import keep_freed_memory
from bids_fcnreg.fcn.modes import MODES, Mode
from bids_fcnreg.fcn.nets.checkpoint import NETWORKS, load, shipped
from bids_fcnreg.fcn.out_of_memory import with_fallback
from bids_fcnreg.fcn.pair import Pair, make_pair, with_moving
from bids_fcnreg.fcn.quality import Quality, assess, similarity
from bids_fcnreg.fcn.refine import refine
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.midpoint import Halves
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.fcn.train import RECIPES, optimize


@dataclass(frozen=True)
class Registration:
    """A registered pair.

    Parameters
    ----------
    forward : Transform
        Points of the fixed space to the moving space: resamples the moving image onto the fixed.
    inverse : Transform
        Points of the moving space to the fixed space: resamples the fixed image onto the moving.
    quality : Quality
        How it went.
    """

    forward: Transform
    inverse: Transform
    quality: Quality


def register(
    fixed: Image,
    moving: Image,
    *,
    mode: str = "refine",
    network: str = "diffeomorphic",
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    moving_exclude: Image | None = None,
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
    mode : {"refine", "predict", "optimize"}
        ``refine``: what a trained network predicts, improved for this pair. ``predict``: one pass
        through a trained network. ``optimize``: train a new network on this pair alone.
    network : {"diffeomorphic", "2017"}
        Which network; that of `model`, if there is one.
    fixed_mask, moving_mask : Image, optional
        Brain masks on the grids of their images; by default estimated from skull-stripped images
        (`foreground`).
    moving_exclude : Image, optional
        Voxels of the moving image (not zero) to leave out of the similarity, such as a lesion.
    model : path, optional
        File with trained weights; by default those that come with the package.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    seed : int
        Of everything random.
    threads : int, optional
        CPU threads to use; by default PyTorch's choice.

    Returns
    -------
    Registration

    Raises
    ------
    InputError
        If the mode, the network, the model, the device or a mask does not fit, or an image has
        no contrast.
    """
    if mode not in MODES:
        raise InputError(f"There is no mode {mode!r}: choose one of {', '.join(MODES)}.")
    if network not in NETWORKS:
        raise InputError(f"There is no network {network!r}: choose one of {', '.join(NETWORKS)}.")
    if model is not None and not MODES[mode].trained:
        raise InputError(f"The mode {mode} trains a network from scratch: omit the model.")
    place = resolve_device(device)
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    quality = Quality(mode=mode, device=str(place))

    def deform(where: torch.device) -> tuple[Displacement, Displacement]:
        quality.device = str(where)
        start = _Start(MODES[mode], network, model, seed)
        there, back = _deform(pair.to(where), start, quality)
        return there.cpu(), back.cpu()

    with quality.timed("prepare"):
        fixed, fixed_mask = standardize(fixed, fixed_mask, "fixed")
        moving, moving_mask = standardize(moving, moving_mask, "moving")
    with quality.timed("affine"):
        matrix = align(
            fixed,
            moving,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            moving_exclude=moving_exclude,
        )
    with quality.timed("prepare"):
        before = make_pair(fixed, moving, np.eye(4), fixed_mask, moving_mask)
        quality.similarity_initial = similarity(before)
        pair = with_moving(before, moving, matrix, moving_mask, moving_exclude)
    forward, inverse = with_fallback(deform, place, "the registration")
    there = Transform((forward, Affine(matrix)))
    back = Transform((Affine(np.linalg.inv(matrix)), inverse))
    return Registration(there, back, quality)


@dataclass(frozen=True)
class _Start:
    """How a deformation is found: words of `register`."""

    mode: Mode
    network: str
    model: Path | None
    seed: int


def _deform(pair: Pair, start: _Start, quality: Quality) -> tuple[Displacement, Displacement]:
    """Deformation of a pair and its inverse, where the pair is; `quality` is filled in."""
    place = pair.fixed.device

    def ask_network(where: torch.device) -> Halves:
        if not start.mode.trained:
            torch.manual_seed(start.seed)
            network = NETWORKS[start.network]().to(where)
            return optimize(network, pair.to(where), RECIPES[start.network])
        trained, quality.weights = load(start.model or shipped(start.network))
        return trained.to(where).deform(pair.to(where))

    with quality.timed("network"):
        halves = with_fallback(ask_network, place, "the network").to(place)
    if start.mode.refines:
        with quality.timed("refine"):
            halves = refine(pair, halves)
    with quality.timed("inverse"):
        forward, inverse = halves.on(pair.grid).faded().join()
    with quality.timed("quality"):
        assess(quality, pair, forward, inverse)
    return forward, inverse


def resolve_device(name: str) -> torch.device:
    """Device that a user's word means.

    Parameters
    ----------
    name : str
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:N``.

    Raises
    ------
    InputError
        If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise InputError(f"There is no device {name!r}: choose auto, cpu, cuda or cuda:N.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InputError(
            f"The device {name!r} was asked for, and PyTorch sees {torch.cuda.device_count()} "
            "CUDA GPUs here: choose cpu, or install a CUDA build of PyTorch and its driver."
        )
    return torch.device(name)
