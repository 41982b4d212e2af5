"""The command `fcnreg register`: register pairs of images and print the quality."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bids_fcnreg import api
from bids_fcnreg.app.moving_images import MovingImage
from bids_fcnreg.atomic import replacing_files
from bids_fcnreg.bids.template_names import is_template
from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.errors import FcnregError, describe_os_error
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.fcn.modes import LINEAR
from bids_fcnreg.io import image, nifti
from bids_fcnreg.io.resampling import check_labels
from bids_fcnreg.preprocessing.contrast import describe_extracted, describe_replaced
from bids_fcnreg.qc.metrics import REGISTRATION_METRICS
from bids_fcnreg.qc.verdict import EXPLANATION, MEASURED_ON, UNUSABLE, reference_bounds


def register_pairs(
    options: argparse.Namespace, images: Sequence[MovingImage], device: str, seed: int
) -> int:
    """Register one or several images to a fixed one with the options of the command line.

    If one of several fails, the others are still registered.

    Returns
    -------
    int
        0; 1 if one of several images failed or, with --fail-on-qc, a verdict is failed or unknown.

    Raises
    ------
    InputError
        If the only image fails, or the fixed image cannot be read.
    OSError
        If the only image fails because of the file system.
    """
    fixed = _Fixed.resolve(options)
    if len(images) == 1:
        return _register_pair(options, fixed, images[0], device, seed)
    nifti.load(fixed.image)  # if it cannot be read, all would fail
    failed = unusable = 0
    for number, moving in enumerate(images, start=1):
        print(f"{moving.image} ({number} of {len(images)})", flush=True)
        try:
            unusable += _register_pair(options, fixed, moving, device, seed)
        except (FcnregError, OSError) as error:
            failed += 1
            reason = f"{describe_os_error(error)}." if isinstance(error, OSError) else error
            print(f"fcnreg: error: {moving.image} was not registered: {reason}", file=sys.stderr)
    if failed:
        print(f"fcnreg: {failed} of {len(images)} images were not registered.", file=sys.stderr)
    return int(failed + unusable > 0)


@dataclass(frozen=True)
class _Fixed:
    """The fixed image.

    Attributes
    ----------
    image : Path
    mask, exclude : Path or None
        Brain mask, which of a template is its own, and lesion mask.
    builtin : str or None
        Name of a built-in template.
    """

    image: Path
    mask: Path | None
    exclude: Path | None
    builtin: str | None

    @classmethod
    def resolve(cls, options: argparse.Namespace) -> _Fixed:
        """Return the fixed image of the command line."""
        image, mask, builtin = options.fixed, options.fixed_mask, None
        if is_template(image):
            template = resolve_template(str(image))
            image, mask = template.t1w, mask or template.mask
            builtin = template.name if template.builtin else None
        return cls(image, mask, options.fixed_exclude, builtin)


def _register_pair(
    options: argparse.Namespace, fixed: _Fixed, moving: MovingImage, device: str, seed: int
) -> int:
    """Register one image; return 1 with --fail-on-qc if the verdict is failed or unknown."""
    if moving.labels is not None:
        # Check labels before the registration, not after it.
        check_labels(nifti.load(moving.labels, "float64").get_fdata(), str(moving.labels))
        if doubt := nifti.orientation_warning(moving.labels):
            warnings.warn(doubt, stacklevel=1)
    result = api.register(
        fixed.image,
        moving.image,
        transform=options.transform,
        initial=moving.initial,
        mode=options.mode,
        network=options.network,
        model=options.model,
        fixed_mask=fixed.mask,
        moving_mask=moving.mask,
        fixed_exclude=fixed.exclude,
        moving_exclude=moving.exclude,
        fixed_contrast=options.fixed_contrast,
        moving_contrast=options.moving_contrast,
        device=device,
        seed=seed,
    )
    # Bounds of the verdict fit the built-in templates, and deformations.
    name = None if options.transform in LINEAR else fixed.builtin
    directory, prefix = os.path.split(moving.prefix)
    with replacing_files(directory or ".") as new:
        written = result.save(new / prefix if prefix else f"{new}/")
        warped, xfm = written[:2]
        if moving.labels is not None:
            resampled = api.apply(moving.labels, fixed.image, [xfm], interpolation="label")
            written.append(nifti.write(new / f"{prefix}labels.nii.gz", resampled))
        if options.report:
            page, pair = new / f"{prefix}report.html", (fixed.image, moving.image)
            written.append(_report(pair, page, warped, xfm, result, name))
    _print_quality(result.quality, name is not None)
    print("written:", ", ".join(str(Path(directory) / path.name) for path in written), flush=True)
    return int(options.fail_on_qc and result.quality["verdict"] in UNUSABLE)


def _report(
    pair: tuple[Path, Path],
    page: Path,
    warped: Path,
    transform: Path,
    result: api.Registered,
    name: str | None,
) -> Path:
    from bids_fcnreg.app.pair_report import make_pair_report  # takes seconds to import

    fixed, moving = pair
    with tempfile.TemporaryDirectory() as directory:
        mask, contours = Path(directory) / "mask.nii.gz", fixed
        if result.fixed_mask is None:
            loaded = nifti.load(fixed)
            inside = nifti.like(loaded, foreground(np.asanyarray(loaded.dataobj)), "uint8")
            nifti.write(mask, inside)
        else:
            image.write(mask, result.fixed_mask, "uint8")
        if "fixed" in result.t1w_like:
            contours = image.write(Path(directory) / "like.nii.gz", result.t1w_like["fixed"])
        return make_pair_report(
            page, fixed, moving, mask, warped, transform, result.quality, name,
            contours_of=contours,
        )  # fmt: skip


def _print_quality(quality: dict[str, Any], ranges: bool) -> None:
    typical = reference_bounds(quality["mode"]) if ranges else {}
    for metric in REGISTRATION_METRICS:
        if metric.key in quality:
            note = f" ({typical[metric.key].describe(metric)})" if metric.key in typical else ""
            print(f"{metric.title}: {metric.read(quality)}{note}")
    print(f"Mode: {quality['mode']}, device: {quality['device']}")
    print("Seconds:", ", ".join(f"{stage} {s:.1f}" for stage, s in quality["seconds"].items()))
    for described in (
        describe_extracted(quality["brain_extracted"]),
        describe_replaced(quality["t1w_like"]),
    ):
        if described:
            print(described)
    if ranges:
        print(EXPLANATION)
    reason = f": {quality['verdict_reason']}" if quality["verdict_reason"] else ""
    print(f"Verdict, by bounds for {MEASURED_ON}: {quality['verdict']}{reason}")
