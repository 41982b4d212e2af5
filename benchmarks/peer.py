"""What a tool gets and returns: the images of a pair, and its transforms in our convention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from bids_fcnreg.errors import FcnregError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Displacement, Transform

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
    slow : bool
        Whether it takes a quarter of an hour a pair or more: runs on request, on fewer pairs.
    scalable : bool
        Whether `run` takes a ``factor`` by which its regularization is multiplied.
    """

    label: str
    package: str
    run: Callable[..., Maps]
    gpu: bool = False
    slow: bool = False
    scalable: bool = False

    @property
    def version(self) -> str | None:
        """Version of the installed package, if it is installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    def scaled(self, factor: float) -> Peer:
        """Return the method with its regularization multiplied by a factor."""
        if not self.scalable:
            raise ValueError(f"{self.label} has no variable regularization.")
        run = partial(self.run, factor=factor)
        return replace(self, label=f"{self.label} × {factor:g}", run=run)


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
