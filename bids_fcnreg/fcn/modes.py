"""Registration modes: what each does, requires and costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """A registration mode.

    Attributes
    ----------
    name : str
    summary : str
        For help texts.
    methods : str
        For the methods section of a paper, after "was"; ``{network}`` is cited.
    trained : bool
        Whether it uses trained weights; otherwise the network is trained on the pair.
    steps : tuple of int
        Steps of instance optimization after the network, at 4, 2 and 1 mm; empty where none
        follows.
    seconds_per_million : float
        Processor seconds of a registration on a CPU, per million voxels of the fixed image.
    """

    name: str
    summary: str
    methods: str
    trained: bool
    steps: tuple[int, ...]
    seconds_per_million: float


_MODES = (
    Mode(
        "refine",
        "a trained network, then optimization of the deformation of each pair",
        "predicted by a trained fully convolutional network {network} and then improved by "
        "symmetric optimization of local cross-correlation at increasing resolution [@syn]",
        trained=True,
        steps=(50, 20, 10),
        seconds_per_million=9,
    ),
    Mode(
        "predict",
        "a trained network, followed by a few steps of optimization",
        "predicted by a trained fully convolutional network {network} and then improved by a few "
        "steps of symmetric optimization of local cross-correlation [@syn]",
        trained=True,
        steps=(0, 0, 5),
        seconds_per_million=2.5,
    ),
    Mode(
        "optimize",
        "train a new network on each pair",
        "found by a fully convolutional network {network} that was optimized on the pair of "
        "images",
        trained=False,
        steps=(),
        seconds_per_million=45,
    ),
)

#: Kinds of transforms; a registration finds its linear part first.
LINEAR = ("rigid", "similarity", "affine")
TRANSFORMS = (*LINEAR, "deformable")

#: All modes by name; the first is the default.
MODES = {mode.name: mode for mode in _MODES}
