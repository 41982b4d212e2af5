"""ANTs: antspyx's types of transform, and antsRegistration with arguments of its own.

antspyx's ``antsRegistrationSyN[s]`` is not the script of that name: antspyx 0.6.3 computes
cross-correlation with radius 2 whatever is asked for, takes gradient steps of 0.2 instead of 0.1,
works in single precision and does not winsorize. `script_arguments` are those of the script.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
from measures import Meter
from peer import Maps, Task, Unavailable, read_field

from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io.itk import read_transform

#: Builds the arguments of antsRegistration from both images, the output prefix and a factor for
#: the standard deviation of the smoothing of SyN's updates.
Arguments = Callable[[Path, Path, str, float], list[str]]

#: Variance of the smoothing of SyN's updates, in voxels squared: the default of both settings.
UPDATE_VARIANCE = 3.0


def antspyx() -> ModuleType:
    """Import antspyx."""
    try:
        import ants as antspy
    except ImportError as why:
        raise Unavailable("antspyx is not installed (pip install antspyx).") from why
    return antspy


def ants(task: Task, meter: Meter, kind: str) -> Maps:
    """Run antspyx, with one of its types of transform.

    Its call writes the transforms to files, compressed: the time that takes is measured by
    writing them once more, and deducted.
    """
    antspy = antspyx()
    fixed, moving = (antspy.image_read(str(path)) for path in (task.fixed, task.moving))
    prefix = str(task.scratch / "ants_")
    with meter:
        found = antspy.registration(fixed, moving, type_of_transform=kind, outprefix=prefix)
    deduct_writing(meter, task.scratch, {*found["fwdtransforms"], *found["invtransforms"]})
    return ants_maps(found["fwdtransforms"], found["invtransforms"])


def antsregistration(
    task: Task, meter: Meter, arguments: Arguments, search: bool = False, factor: float = 1.0
) -> Maps:
    """Run antsRegistration, which antspyx contains, with the arguments of its command line.

    It reads both images and writes the transforms: these times are measured by doing so once
    more, and deducted.

    Parameters
    ----------
    task, meter
        See `ants`.
    arguments : callable
        Builds the arguments.
    search : bool
        Start from the result of antsAffineInitializer instead of the centers of mass.
    factor : float
        Multiplies the standard deviation of the smoothing of SyN's updates.
    """
    antspy = antspyx()
    pair = []
    for name, path in (("fixed", task.fixed), ("moving", task.moving)):
        # Its arguments are a language of their own: paths must have neither brackets nor commas.
        link = task.scratch / f"ants_{name}{''.join(path.suffixes[-2:])}"
        link.symlink_to(path.resolve())
        pair.append(link)
    prefix = str(task.scratch / "ants_")
    command = arguments(*pair, prefix, factor)
    with meter:
        start = f"[{pair[0]},{pair[1]},1]"
        if search:
            images = [antspy.image_read(str(path)) for path in pair]
            start = antspy.affine_initializer(*images, search_factor=15)
        antspy.registration(fixed=[*command, "--initial-moving-transform", start], moving=None)
    begin = time.perf_counter()
    for path in pair:
        antspy.image_read(str(path))
    meter.deduct((2 if search else 1) * (time.perf_counter() - begin))
    affine, warp, back = (
        prefix + end for end in ("0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz")
    )
    deduct_writing(meter, task.scratch, {warp, back})
    return ants_maps([warp, affine], [affine, back])


def script_arguments(radius: int) -> Arguments:
    """Return the stages and settings of ``antsRegistrationSyN.sh -t s -r RADIUS``."""

    def arguments(fixed: Path, moving: Path, prefix: str, factor: float) -> list[str]:
        pair = f"{fixed},{moving}"
        large = max(nib.load(fixed).shape) > 256
        shrink, smooth = ("12x8x4x2", "4x3x2x1vox") if large else ("8x4x2x1", "3x2x1x0vox")
        linear = []
        for kind in ("Rigid", "Affine"):
            linear += ["--transform", f"{kind}[0.1]", "--metric", f"MI[{pair},1,32,Regular,0.25]"]
            linear += ["--convergence", "[1000x500x250x100,1e-6,10]"]
            linear += ["--shrink-factors", shrink, "--smoothing-sigmas", smooth]
        steps = "100x70x50x20"
        if large:
            steps, shrink, smooth = f"100x{steps}", "10x6x4x2x1", "5x3x2x1x0vox"
        return [
            *("--dimensionality", "3", "--float", "0", "--output", f"[{prefix}]"),
            *("--use-histogram-matching", "0", "--winsorize-image-intensities", "[0.005,0.995]"),
            *linear,
            *("--transform", f"SyN[0.1,{UPDATE_VARIANCE * factor**2:g},0]"),
            *("--metric", f"CC[{pair},1,{radius}]", "--convergence", f"[{steps},1e-6,10]"),
            *("--shrink-factors", shrink, "--smoothing-sigmas", smooth),
        ]

    return arguments


def precise_arguments(fixed: Path, moving: Path, prefix: str, factor: float) -> list[str]:
    """Return the settings of niworkflows' ``t1w-mni_registration_precise_000.json``.

    fMRIPrep runs them in single precision.
    """
    pair = f"{fixed},{moving}"
    matching = ("--use-histogram-matching", "1")
    mattes = f"Mattes[{pair},1,56,Regular,0.25]"
    return [
        *("--dimensionality", "3", "--float", "1", "--output", f"[{prefix}]"),
        *("--initialize-transforms-per-stage", "0", "--collapse-output-transforms", "1"),
        *("--winsorize-image-intensities", "[0.005,0.995]"),
        *("--transform", "Rigid[0.05]", "--metric", mattes),
        *("--convergence", "[100x100,1e-6,20]", "--smoothing-sigmas", "2x1vox"),
        *("--shrink-factors", "2x1", *matching),
        *("--transform", "Affine[0.08]", "--metric", mattes),
        *("--convergence", "[100x100,1e-6,20]", "--smoothing-sigmas", "1x0vox"),
        *("--shrink-factors", "2x1", *matching),
        *("--transform", f"SyN[0.1,{UPDATE_VARIANCE * factor**2:g},0]"),
        *("--metric", f"CC[{pair},1,4,None,1]"),
        *("--convergence", "[100x70x50x20,1e-6,10]", "--smoothing-sigmas", "3x2x1x0vox"),
        *("--shrink-factors", "8x4x2x1", *matching),
    ]


def deduct_writing(meter: Meter, scratch: Path, paths: set[str]) -> None:
    """Take off the time that it takes to write fields, measured by writing them once more."""
    antspy = antspyx()
    for path in paths:
        if path.endswith(".nii.gz"):
            field = antspy.image_read(path)
            start = time.perf_counter()
            antspy.image_write(field, str(scratch / "again.nii.gz"))
            meter.deduct(time.perf_counter() - start)


def ants_maps(forward: list[str], inverse: list[str]) -> Maps:
    """Convert ANTs' lists of files to transforms.

    Parameters
    ----------
    forward, inverse : list of str
        As `ants.registration` returns them: the last acts first on an image, so the first acts
        first on a point. In `inverse` the affine's file is the forward one, to be inverted.
    """

    def steps(paths: list[str], invert: bool) -> Transform:
        chain = []
        for path in paths:
            if path.endswith(".nii.gz"):
                chain.append(read_field(path))
                continue
            (affine,) = read_transform(path).steps
            chain.append(Affine(np.linalg.inv(affine.matrix)) if invert else affine)
        return Transform(tuple(chain))

    return Maps(steps(forward, invert=False), steps(inverse, invert=True))
