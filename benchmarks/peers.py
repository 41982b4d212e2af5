"""The methods of the benchmark, by name; this package and greedy.

Each function reads its files, starts the meter for the registration only, and turns what comes out
into `Transform`, which maps points of the fixed space to the moving space (RAS+ mm).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
from measures import Meter
from peer import Maps, Peer, Task, Unavailable, field_of
from peers_ants import Arguments, ants, antsregistration, precise_arguments, script_arguments
from peers_elastix import elastix
from peers_torch import fireants, syntx

from bids_fcnreg.fcn import register as registration
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.refine import Refinement
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io import image

#: Largest rate at which the divergence may be smoothed; see `Region.damp_divergence`.
LARGEST_RATE = 0.4


def ours(task: Task, meter: Meter, mode: str, factor: float = 1.0, **settings: object) -> Maps:
    """Run this package, in one of its modes.

    Parameters
    ----------
    task, meter
        See `greedy`.
    mode : str
        See `register`.
    factor : float
        See `regularization`.
    settings
        Other arguments of `register`.
    """
    fixed, moving = image.read(task.fixed), image.read(task.moving)
    settings |= {"mode": mode, "device": task.device, "threads": task.threads}
    if mode != "optimize" and task.model is not None:
        settings["model"] = task.model
    with scaled_regularization(factor), meter:
        found = registration.register(fixed, moving, **settings)
    return Maps(found.forward, found.inverse)


def regularization(usual: Refinement, factor: float) -> Refinement:
    """Return a refinement with its elastic regularization multiplied by a factor.

    Multiplied are the standard deviation of the smoothing of the deformation, and the rate at
    which its divergence is smoothed as far as the rate may grow.
    """
    return replace(
        usual,
        field_sigma=[factor * sigma for sigma in usual.field_sigma],
        divergence_rate=[min(factor * rate, LARGEST_RATE) for rate in usual.divergence_rate],
    )


@contextmanager
def scaled_regularization(factor: float) -> Iterator[None]:
    """Make `register`, whose signature does not offer it, scale the regularization."""
    usual = registration.refine

    def scaled(
        pair: Pair, start: MidpointDeformation, settings: Refinement
    ) -> MidpointDeformation:
        return usual(pair, start, regularization(settings, factor))

    registration.refine = scaled
    try:
        yield
    finally:
        registration.refine = usual


def greedy(task: Task, meter: Meter, factor: float = 1.0) -> Maps:
    """Run greedy, affine and deformable, with its authors' usual settings for brains.

    Parameters
    ----------
    task : Task
        What to register.
    meter : Meter
        Measures the registration.
    factor : float
        Multiplies the standard deviations of the smoothing of updates and of the deformation.
    """
    try:
        import SimpleITK as sitk
        from picsl_greedy import Greedy3D
    except ImportError as why:
        raise Unavailable("picsl-greedy is not installed (pip install picsl-greedy).") from why
    fixed, moving = (
        sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (task.fixed, task.moving)
    )
    tool = Greedy3D()
    smoothing = " ".join(f"{factor * sigma:g}vox" for sigma in (1.7, 0.7))
    shared = f"-threads {task.threads} -i fixed moving -m NCC 2x2x2"
    with meter:
        tool.execute(
            f"{shared} -a -dof 12 -ia-image-centers -n 100x50x10 -o affine",
            fixed=fixed,
            moving=moving,
            affine=None,
        )
        tool.execute(
            f"{shared} -it affine -n 100x100x50 -s {smoothing} -o warp",
            warp=None,
        )
    return greedy_maps(tool["warp"], tool["affine"])


def greedy_maps(warp: object, affine: np.ndarray) -> Maps:
    """Convert greedy's results to transforms.

    Parameters
    ----------
    warp : SimpleITK.Image
        Displacements of the fixed grid in LPS+ mm.
    affine : ndarray (4, 4)
        Fixed to moving points, RAS+ mm; acts after the warp.
    """
    return Maps(Transform((field_of(warp), Affine(np.asarray(affine)))))


def _ours(mode: str, note: str = "", scalable: bool = False, **settings: object) -> Peer:
    run = partial(ours, mode=mode, **settings)
    label = f"bids_fcnreg {mode}{note}"
    return Peer(label, "bids_fcnreg", run, gpu=True, scalable=scalable)


def _ants(label: str, kind: str, slow: bool = False) -> Peer:
    return Peer(label, "antspyx", partial(ants, kind=kind), slow=slow)


def _antsregistration(label: str, arguments: Arguments, search: bool = False) -> Peer:
    run = partial(antsregistration, arguments=arguments, search=search)
    return Peer(label, "antspyx", run, slow=True, scalable=True)


PEERS = {
    "ours-refine": _ours("refine", scalable=True),
    "ours-predict": _ours("predict"),
    "ours-optimize": _ours("optimize"),
    "ours-optimize-2017": _ours("optimize", ", 2017 network", network="2017"),
    "affine": _ants("ANTs Affine", "Affine"),
    "syn": _ants("ANTs SyN", "SyN"),
    "synquick": _ants("ANTs SyNQuick[s]", "antsRegistrationSyNQuick[s]"),
    "syns": _ants("ANTs SyN[s]", "antsRegistrationSyN[s]", slow=True),
    "ants-cc2": _antsregistration("antsRegistrationSyN.sh -r 2", script_arguments(2)),
    "ants-cc4": _antsregistration("antsRegistrationSyN.sh -r 4", script_arguments(4)),
    "fmriprep": _antsregistration("fMRIPrep precise", precise_arguments, search=True),
    "greedy": Peer("greedy", "picsl_greedy", greedy, scalable=True),
    "elastix": Peer("elastix", "itk-elastix", elastix, scalable=True),
    "fireants": Peer("FireANTs", "fireants", fireants, gpu=True),
    "syntx": Peer("syntx", "syntx", syntx, gpu=True, slow=True),
}


def find(method: str) -> Peer:
    """Return a method by name: a key of `PEERS`, or ``KEY@FACTOR`` (see `Peer.scaled`)."""
    key, _, factor = method.partition("@")
    return PEERS[key].scaled(float(factor)) if factor else PEERS[key]
