"""Register a moving image to a fixed one."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from bids_fcnreg.api.images import (
    ImageLike,
    builtin_template,
    file_name,
    read_image,
    resolve_brain,
    space_codes,
    warn_of_orientation,
)
from bids_fcnreg.api.registered import Registered
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.fcn.initial import check_initial
from bids_fcnreg.fcn.modes import LINEAR
from bids_fcnreg.fcn.parallel import for_both
from bids_fcnreg.fcn.register import register as register_images
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.transform_chain import TransformLike, read_transforms
from bids_fcnreg.preprocessing.brain import is_label_image
from bids_fcnreg.preprocessing.contrast import (
    WHICH,
    RegistrationInput,
    Which,
    comparable_input,
    registration_input,
)
from bids_fcnreg.preprocessing.lesions import lesion_fraction, unite_lesions
from bids_fcnreg.qc.asymmetry import asymmetry
from bids_fcnreg.qc.segmentation import assess_segmentation
from bids_fcnreg.qc.verdict import judge


def register(
    fixed: ImageLike,
    moving: ImageLike,
    *,
    transform: str = "deformable",
    initial: Sequence[TransformLike] | TransformLike | None = None,
    mode: str = "refine",
    network: str = "diffeomorphic",
    model: str | os.PathLike[str] | None = None,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    fixed_exclude: ImageLike | None = None,
    moving_exclude: ImageLike | None = None,
    fixed_contrast: str = "auto",
    moving_contrast: str = "auto",
    device: str = "auto",
    seed: int = 0,
) -> Registered:
    """Register a moving image to a fixed one.

    Parameters
    ----------
    fixed, moving : path or nibabel image
        Heads or brains of any contrast, orientation, voxel size and intensity; or names of
        templates, such as ``MNI152NLin2009aSym`` (built in) or ``MNI152NLin6Asym:res-2``, whose
        brain mask is used.
    transform : {"deformable", "affine", "similarity", "rigid"}
        Kind of transform: an affine followed by a deformation, or a linear one of 12, 7 or 6
        parameters, in which nothing is predicted: `mode` and `network` are ignored.
    initial : transform, or sequence of them, optional
        Transform as for `apply`, or a stack of them, from which the registration starts in place
        of the search over orientations. A linear one is optimized. With a nonlinear one, the
        remaining difference is registered, and the result contains both. ``"identity"``: the
        positions in the headers.
    mode : {"refine", "predict", "optimize"}
        ``refine``: prediction of a trained network, then optimization for this pair; ``predict``:
        the same with a few steps only; ``optimize``: a new network trained on this pair.
    network : {"diffeomorphic", "2017"}
        Network; ignored if `model` is given.
    model : path, optional
        Weights made by ``fcnreg train``; by default those of the package.
    fixed_mask, moving_mask : path or nibabel image, optional
        Brain masks; by default estimated from skull-stripped T1w images, and found by the anatomy
        network in others.
    fixed_exclude, moving_exclude : path or nibabel image, optional
        Lesion masks, on any grid: voxels that are excluded from the similarity.
    fixed_contrast, moving_contrast : {"auto", "T1w", "other"}
        An image of another contrast is segmented, and replaced for the registration by an image
        with the intensities of a T1w brain. ``auto``: the BIDS suffix of its file name decides.
        Images without one are T1w, unless their intensities are those of another contrast. If the
        other image is replaced, so is a T1w image whose white matter is not brighter than its
        gray matter, as in young infants.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    seed : int
        Seed of all random numbers.

    Returns
    -------
    Registered

    Raises
    ------
    InputError
        If a file cannot be read, an image has no contrast, no brain is found in a head, or an
        option is invalid.
    """
    (fixed, fixed_mask), (moving, moving_mask) = (
        resolve_brain(*one) for one in ((fixed, fixed_mask), (moving, moving_mask))
    )
    given = fixed, moving
    images = for_both(read_image, given, ("fixed image", "moving image"))
    masks = [
        None if mask is None else read_image(mask, f"{which} mask")
        for which, mask in zip(WHICH, (fixed_mask, moving_mask), strict=True)
    ]
    warn_of_orientation(*given, fixed_mask, moving_mask, fixed_exclude, moving_exclude)
    start = None
    if initial is not None:
        start = read_transforms(initial, ImageGrids(*(one.grid for one in images)))
        check_initial(start, transform)  # before anything that takes long
    began = time.perf_counter()
    inputs = {
        which: registration_input(which, one, mask, contrast, file_name(source))
        for which, one, mask, contrast, source in zip(
            WHICH, images, masks, (fixed_contrast, moving_contrast), given, strict=True
        )
    }
    if any(one.replaced for one in inputs.values()):
        for which, source, contrast in zip(
            WHICH, given, (fixed_contrast, moving_contrast), strict=True
        ):
            if contrast == "auto" and not inputs[which].replaced and not builtin_template(source):
                inputs[which] = _comparable(which, inputs[which])
    seconds = round(time.perf_counter() - began, 3)
    _warn_of_labels(images)
    lesions = {
        which: None if source is None else _lesion(source, inputs[which])
        for which, source in zip(WHICH, (fixed_exclude, moving_exclude), strict=True)
    }
    found = register_images(
        inputs["fixed"].image,
        inputs["moving"].image,
        transform=transform,
        initial=start,
        fixed_mask=inputs["fixed"].mask,
        moving_mask=inputs["moving"].mask,
        fixed_exclude=lesions["fixed"],
        moving_exclude=lesions["moving"],
        mode=mode,
        network=network,
        model=None if model is None else Path(model),
        device=device,
        seed=seed,
    )
    replaced = {str(which): one.image for which, one in inputs.items() if one.replaced}
    extracted = [str(which) for which, one in inputs.items() if one.extracted]
    quality = found.quality.as_dict() | {
        "t1w_like": list(replaced),
        "brain_extracted": extracted,
    }
    if extracted:
        darker = any(one.extracted and one.t1w_like is not None for one in inputs.values())
        quality["white_matter_darker"] = darker
    if replaced or extracted:
        quality["seconds"] = {"segment": seconds, **found.quality.seconds}
    quality |= _segmentation_quality(inputs.values())
    if moving_exclude is not None:
        quality["excluded_percent"] = _excluded_percent(lesions["moving"], inputs["moving"])
    template = builtin_template(given[0])
    # Templates are averages, which have no asymmetry of one brain.
    if template and not (transform in LINEAR or replaced or builtin_template(given[1])):
        quality["asymmetry"] = _asymmetry(
            template, found.forward, images[0].grid, inputs["moving"]
        )
    quality |= judge(quality, "the fixed image").as_dict()
    forward, inverse = found.forward, found.inverse
    mask, codes = inputs["fixed"].mask, space_codes(fixed)
    return Registered(images[0], images[1], forward, inverse, quality, codes, mask, replaced)


def _comparable(which: Which, found: RegistrationInput) -> RegistrationInput:
    """Make the other image comparable to a T1w-like image; warn if it is replaced."""
    comparable = comparable_input(found)
    if comparable.replaced:
        warnings.warn(
            f"The white matter of the {which} image is not brighter than its gray matter, as in "
            "young infants. It is replaced by a T1w-like image for the registration, too. Use "
            f"--{which}-contrast T1w (in Python {which}_contrast='T1w') to register it as it is.",
            stacklevel=3,
        )
    return comparable


def _segmentation_quality(inputs: Iterable[RegistrationInput]) -> dict[str, float]:
    """Compute the quality metrics of the segmentations, the worse of both images."""
    found = [assess_segmentation(one.anatomy) for one in inputs if one.anatomy]
    return {key: max(one[key] for one in found) for key in found[0]} if found else {}


def _asymmetry(template: str, forward: Transform, grid: Grid, moving: RegistrationInput) -> float:
    """Compare the asymmetry of a brain that was registered to a template with the usual one."""
    brain = Image(torch.from_numpy(_brain(moving))[None, None].float(), moving.image.grid)
    inside = forward.resample(brain, grid, "nearest").data[0, 0].numpy()
    return asymmetry(forward.log_jacobian(grid)[0, 0].numpy(), inside, template)


def _warn_of_labels(images: Sequence[Image]) -> None:
    """Warn of images that are label images."""
    for which, one in zip(WHICH, images, strict=True):
        if is_label_image(one.data[0, 0].numpy()):
            warnings.warn(
                f"The {which} image looks like a label image. Register the corresponding "
                "intensity images, and apply the transform to the labels.",
                stacklevel=3,
            )


def _brain(given: RegistrationInput) -> np.ndarray:
    """Return the brain (i, j, k) of an image, bool."""
    if given.mask is None:
        return foreground(given.image.data[0, 0].numpy())
    return given.mask.data[0, 0].numpy() > 0.5


def _lesion(source: ImageLike, given: RegistrationInput) -> Image | None:
    """Return a lesion mask on the grid of its image; None if it is empty."""
    grid = given.image.grid
    lesion = unite_lesions([source], grid, _brain(given))
    return Image(torch.from_numpy(lesion)[None, None].float(), grid) if lesion.any() else None


def _excluded_percent(lesion: Image | None, given: RegistrationInput) -> float:
    """Compute the lesion percentage of a brain."""
    if lesion is None:
        return 0.0
    return 100 * lesion_fraction(lesion.data[0, 0].numpy() > 0, _brain(given))
