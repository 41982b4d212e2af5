"""Training images, aligned to the template and cached in the work directory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg import __version__
from bids_fcnreg.atomic import is_intact_archive, replacing
from bids_fcnreg.bids.templates import Template, prepare_template
from bids_fcnreg.bids.training_images import Brain
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import foreground, non_background
from bids_fcnreg.fcn.linear.align import align
from bids_fcnreg.fcn.pair import Pair, make_pair
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.training_pairs import Cohort
from bids_fcnreg.io import image, nifti
from bids_fcnreg.preprocessing.brain import may_be_brain_only

#: Minimum number of images in a cohort.
MIN_IMAGES = 3

#: Minimum number of images from which some are held out by default.
MIN_IMAGES_FOR_HELD_OUT = 6


@dataclass(frozen=True)
class Aligner:
    """Align images to the template, or read them from the cache.

    Parameters
    ----------
    template : Template
        Template, from `resolve_template`.
    spacing : float
        Voxel size of the aligned images in mm.
    directory : Path
        Cache of the aligned images and of derived files of the template.
    """

    template: Template
    spacing: float
    directory: Path

    @cached_property
    def template_pair(self) -> Pair:
        """Template paired with itself."""
        pair = make_pair(self._image, self._image, np.eye(4), self._mask, self._mask)
        return pair.coarser(self.spacing)

    @cached_property
    def _ready(self) -> Template:
        return prepare_template(self.template, self.directory)

    @cached_property
    def _image(self) -> Image:
        return image.read(self._ready.t1w)

    @cached_property
    def _mask(self) -> Image:
        return image.read(self._ready.brain_mask)

    def cache_file(self, brain: Brain) -> Path:
        """Return the cache file of an image; its name depends on all that it is made from."""
        template = Brain(self.template.t1w, self.template.mask).fingerprint
        key = f"{brain.fingerprint};{template};{self.spacing};{__version__}"
        return self.directory / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.pt"

    def __call__(self, brain: Brain) -> Tensor:
        """Align an image and cache it, or read it from the cache.

        Returns
        -------
        Tensor (1, 1, i, j, k), float16
            Image on the grid of `template_pair`; intensities of about 0 to 1, 0 outside the brain.

        Raises
        ------
        InputError
            If the image or its mask cannot be read, or they do not match.
        """
        cached = self.cache_file(brain)
        if is_intact_archive(cached):
            return torch.load(cached, weights_only=True)
        loaded = nifti.load(brain.image)
        moving = image.to_image(loaded)
        if brain.mask is None:
            inside = torch.from_numpy(foreground(np.asanyarray(loaded.dataobj)))
            mask = Image(inside[None, None].float(), moving.grid)
        else:
            mask = image.read(brain.mask)
        matrix = align(self._image, moving, fixed_mask=self._mask, moving_mask=mask)
        pair = make_pair(self._image, moving, matrix, self._mask, mask).coarser(self.spacing)
        with replacing(cached) as temporary:
            torch.save(pair.moving.half(), temporary)
        return pair.moving.half()


def check_skull_stripped(brains: Sequence[Brain], aligner: Aligner) -> None:
    """Refuse images without a mask that are not skull-stripped.

    Raises
    ------
    InputError
        If there are any.
    """
    heads = [
        brain.image
        for brain in brains
        if brain.mask is None and not aligner.cache_file(brain).exists() and _is_head(brain.image)
    ]
    if heads:
        others = f" and {len(heads) - 1} more" if len(heads) > 1 else ""
        raise InputError(
            f"{heads[0]}{others} of {len(brains)} images are not skull-stripped and have no brain "
            "mask beside them. Run `bids_fcnreg BIDS_DIR OUTPUT_DIR participant` first, and use "
            "OUTPUT_DIR as DATA."
        )


def _is_head(path: Path) -> bool:
    """Return whether an image can be read and is not skull-stripped."""
    try:
        loaded = nifti.load(path)
    except InputError:  # reported when it is aligned
        return False
    return not may_be_brain_only(non_background(np.asanyarray(loaded.dataobj)), loaded.affine)


def align_all(
    brains: Sequence[Brain], aligner: Aligner, report: Callable[[int, str], None]
) -> tuple[list[Brain], Cohort]:
    """Align all images, without those that cannot be aligned.

    Parameters
    ----------
    brains : sequence of Brain
        Images, from `find_brains`.
    aligner : Aligner
        Alignment to the template, with its cache.
    report : callable
        Called with the number of processed images, and a message about the last one or "".

    Returns
    -------
    used : list of Brain
        Images that could be aligned.
    cohort : Cohort
        Template and `used` in their order, in half precision.

    Raises
    ------
    InputError
        If fewer than `MIN_IMAGES` are left.
    """
    used, images = [], [aligner.template_pair.fixed.half()]
    for done, brain in enumerate(brains, start=1):
        started, cached = time.perf_counter(), aligner.cache_file(brain).exists()
        try:
            images.append(aligner(brain))
        except Exception as error:  # an error in one image does not affect the others
            why = str(error).strip() or type(error).__name__
            report(done, f"{brain.image.name} is left out: {why}")
            continue
        used.append(brain)
        seconds = time.perf_counter() - started
        report(done, "" if cached else f"{brain.image.name}: aligned in {seconds:.0f} s")
    if len(used) < MIN_IMAGES:
        raise InputError(
            f"Only {len(used)} of {len(brains)} images could be aligned, but at least "
            f"{MIN_IMAGES} are needed. See the messages above."
        )
    return used, Cohort(torch.cat(images), aligner.template_pair.grid)


def split_held_out(
    brains: Sequence[Brain], held_out: int | None, seed: int
) -> tuple[list[int], list[int]]:
    """Split images at random into training and held-out images.

    Participants are held out with all their images, so there may be more than requested.

    Parameters
    ----------
    brains : sequence of Brain
        Images.
    held_out : int or None
        Number of images to hold out. None means a tenth, at least 2, or 0 if there are fewer than
        `MIN_IMAGES_FOR_HELD_OUT`.
    seed : int
        Seed of the random choice.

    Returns
    -------
    trained, held : list of int
        Indices in `brains`, in order.

    Raises
    ------
    InputError
        If one image is held out, or none is left to train on.
    """
    number = len(brains)
    if held_out is None:
        held_out = max(2, round(number / 10)) if number >= MIN_IMAGES_FOR_HELD_OUT else 0
    if held_out == 1:
        raise InputError("--held-out 1 is too few for a pair. Set --held-out to 0 or at least 2.")
    people = list(dict.fromkeys(brain.person for brain in brains))
    shuffled = torch.randperm(len(people), generator=torch.Generator().manual_seed(seed)).tolist()
    held: list[int] = []
    while len(held) < held_out and shuffled:
        person = people[shuffled.pop()]
        held += [n for n, brain in enumerate(brains) if brain.person == person]
    if not shuffled:
        raise InputError(
            f"With {held_out} of {number} images (of {len(people)} participants) held out, none "
            "is left to train on. Set --held-out to a smaller number, or 0."
        )
    return [n for n in range(number) if n not in held], sorted(held)
