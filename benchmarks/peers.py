"""One function per tool: registers a pair of files and returns its transforms as ours.

Each reads its files, starts the meter for the registration only, and turns what comes out into
`Transform`, which maps points of the fixed space to the moving space (RAS+ mm).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from measures import Meter

from bids_fcnreg.errors import FcnregError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.io import image

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # between RAS+ and LPS+, either way


class Unavailable(FcnregError):
    """A tool is not here; the message says which and how to get it."""


@dataclass(frozen=True)
class Task:
    """What to register, and with what.

    Attributes
    ----------
    fixed, moving : Path
        Brain images (NIfTI), zero outside the brain.
    scratch : Path
        Folder for a tool's files.
    threads : int
        CPU threads to use.
    device : str
        For tools that can use a GPU: ``cpu``, ``cuda`` or ``cuda:N``.
    model : Path or None
        Trained weights for our modes that use some.
    """

    fixed: Path
    moving: Path
    scratch: Path
    threads: int = 2
    device: str = "cpu"
    model: Path | None = None


@dataclass(frozen=True)
class Maps:
    """What a tool found.

    Attributes
    ----------
    forward : Transform
        Fixed to moving points.
    inverse : Transform or None
        Moving to fixed points, as the tool itself gives it.
    """

    forward: Transform
    inverse: Transform | None = None


def ours(task: Task, meter: Meter, mode: str, **settings: object) -> Maps:
    """Run this package, in one of its modes."""
    from bids_fcnreg.fcn.register import register

    fixed, moving = image.read(task.fixed), image.read(task.moving)
    settings |= {"mode": mode, "device": task.device, "threads": task.threads}
    if mode != "optimize" and task.model is not None:
        settings["model"] = task.model
    with meter:
        found = register(fixed, moving, **settings)
    return Maps(found.forward, found.inverse)


def ants(task: Task, meter: Meter, kind: str) -> Maps:
    """Run antspyx, with one of its types of transform.

    Its call writes the transforms to files, compressed: the time that takes is measured by
    writing them once more, and deducted.
    """
    try:
        import ants as antspy
    except ImportError as why:
        raise Unavailable("antspyx is not installed (pip install antspyx).") from why
    fixed, moving = (antspy.image_read(str(path)) for path in (task.fixed, task.moving))
    prefix = str(task.scratch / "ants_")
    with meter:
        found = antspy.registration(fixed, moving, type_of_transform=kind, outprefix=prefix)
    for path in {*found["fwdtransforms"], *found["invtransforms"]}:
        if path.endswith(".nii.gz"):
            field = antspy.image_read(path)
            start = time.perf_counter()
            antspy.image_write(field, str(task.scratch / "again.nii.gz"))
            meter.deduct(time.perf_counter() - start)
    return ants_maps(found["fwdtransforms"], found["invtransforms"])


def ants_maps(forward: list[str], inverse: list[str]) -> Maps:
    """Convert ANTs' lists of files to transforms.

    Parameters
    ----------
    forward, inverse : list of str
        As `ants.registration` returns them: the last acts first on an image, so the first acts
        first on a point. In `inverse` the affine's file is the forward one, to be inverted.
    """
    from bids_fcnreg.io.itk import read_transform

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


def greedy(task: Task, meter: Meter) -> Maps:
    """Run greedy, affine and deformable, with its authors' usual settings for brains."""
    try:
        import SimpleITK as sitk
        from picsl_greedy import Greedy3D
    except ImportError as why:
        raise Unavailable("picsl-greedy is not installed (pip install picsl-greedy).") from why
    fixed, moving = (
        sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (task.fixed, task.moving)
    )
    tool = Greedy3D()
    shared = f"-threads {task.threads} -i fixed moving -m NCC 2x2x2"
    with meter:
        tool.execute(
            f"{shared} -a -dof 12 -ia-image-centers -n 100x50x10 -o affine",
            fixed=fixed,
            moving=moving,
            affine=None,
        )
        tool.execute(
            f"{shared} -it affine -n 100x100x50 -s 1.7vox 0.7vox -o warp",
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


def fireants(task: Task, meter: Meter) -> Maps:
    """Run FireANTs with the settings of its tutorial, from the centres of mass."""
    try:
        from fireants.io import BatchedImages
        from fireants.io import Image as FireImage
        from fireants.registration.affine import AffineRegistration
        from fireants.registration.greedy import GreedyRegistration
        from fireants.registration.moments import MomentsRegistration
    except ImportError as why:
        raise Unavailable(f"FireANTs cannot be imported ({why}).") from why
    if not task.device.startswith("cuda") or not torch.cuda.is_available():
        raise Unavailable("FireANTs is for GPUs: give --device cuda on a machine with one.")
    return run_fireants(
        task,
        meter,
        (FireImage, BatchedImages),
        (MomentsRegistration, AffineRegistration, GreedyRegistration),
    )


def run_fireants(task: Task, meter: Meter, images: tuple, stages: tuple) -> Maps:
    """Run the registration on the device of the task."""
    single, batched = images
    moments, affine, deformable = stages
    fixed, moving = (
        batched([single.load_file(str(path), device=task.device)])
        for path in (task.fixed, task.moving)
    )
    with meter:
        start = moments(4, fixed, moving, moments=1)
        start.optimize()
        linear = affine(
            [4, 2, 1],
            [200, 100, 50],
            fixed,
            moving,
            optimizer="Adam",
            optimizer_lr=3e-3,
            cc_kernel_size=5,
            init_rigid=start.get_affine_init(),
            progress_bar=False,
        )
        linear.optimize()
        found = deformable(
            scales=[4, 2, 1],
            iterations=[200, 100, 25],
            fixed_images=fixed,
            moving_images=moving,
            cc_kernel_size=5,
            deformation_type="compositive",
            smooth_grad_sigma=1,
            optimizer="adam",
            optimizer_lr=0.5,
            init_affine=linear.get_affine_matrix().detach(),
            progress_bar=False,
        )
        found.optimize()
        if task.device.startswith("cuda"):
            torch.cuda.synchronize()
    path = task.scratch / "fireants.nii"
    found.save_as_ants_transforms(str(path))  # affine and deformation, as one field
    return Maps(Transform((read_field(path),)))


def read_field(path: str | Path) -> Displacement:
    """Read a displacement field in ITK's convention (vectors in LPS+ mm)."""
    import SimpleITK as sitk

    return field_of(sitk.ReadImage(str(path)))


def field_of(field: object) -> Displacement:
    """Convert a displacement field in ITK's convention (SimpleITK image of vectors in LPS+ mm)."""
    import SimpleITK as sitk

    affine = np.eye(4)
    affine[:3, :3] = np.reshape(field.GetDirection(), (3, 3)) * np.array(field.GetSpacing())
    affine[:3, 3] = field.GetOrigin()
    vectors = torch.from_numpy(sitk.GetArrayFromImage(field).astype(np.float32))  # (k, j, i, 3)
    to_voxels = torch.as_tensor(np.linalg.inv(affine[:3, :3]), dtype=torch.float32)
    voxels = torch.einsum("cw,kjiw->cijk", to_voxels, vectors)
    return Displacement(Grid(field.GetSize(), _FLIP @ affine), voxels[None].contiguous())


@dataclass(frozen=True)
class Peer:
    """A method of the benchmark.

    Attributes
    ----------
    label : str
        What tables and plots call it.
    package : str
        Distribution whose version is reported.
    run : callable
        Takes a `Task` and a `Meter`, returns `Maps`.
    gpu : bool
        Whether it can use a GPU.
    """

    label: str
    package: str
    run: Callable[[Task, Meter], Maps]
    gpu: bool = False

    @property
    def version(self) -> str | None:
        """Version of the installed package, if it is installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


def _ours(mode: str, note: str = "", **settings: object) -> Peer:
    return Peer(
        f"bids_fcnreg {mode}{note}",
        "bids_fcnreg",
        lambda task, meter: ours(task, meter, mode, **settings),
        gpu=True,
    )


def _ants(label: str, kind: str) -> Peer:
    return Peer(label, "antspyx", lambda task, meter: ants(task, meter, kind))


PEERS = {
    "ours-refine": _ours("refine"),
    "ours-predict": _ours("predict"),
    "ours-optimize": _ours("optimize"),
    "ours-optimize-2017": _ours("optimize", ", 2017 network", network="2017"),
    "affine": _ants("ANTs Affine", "Affine"),
    "syn": _ants("ANTs SyN", "SyN"),
    "synquick": _ants("ANTs SyNQuick[s]", "antsRegistrationSyNQuick[s]"),
    "syns": _ants("ANTs SyN[s]", "antsRegistrationSyN[s]"),
    "greedy": Peer("greedy", "picsl_greedy", greedy),
    "fireants": Peer("FireANTs", "fireants", fireants, gpu=True),
}
