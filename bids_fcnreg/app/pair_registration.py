"""The command `fcnreg register`: register a pair of images and print the quality."""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from bids_fcnreg import api
from bids_fcnreg.atomic import replacing_files
from bids_fcnreg.config import BUILTIN_TEMPLATES
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.io import image, nifti
from bids_fcnreg.io.resampling import check_labels
from bids_fcnreg.preprocessing.contrast import describe_replaced
from bids_fcnreg.qc.metrics import REGISTRATION_METRICS
from bids_fcnreg.qc.verdict import EXPLANATION, MEASURED_ON, UNUSABLE, reference_bounds


def register_pair(options: argparse.Namespace, device: str, seed: int) -> int:
    """Register a pair of images with the options of the command line.

    Returns
    -------
    int
        0, or 1 if --fail-on-qc is set and the verdict is failed or unknown.
    """
    name = str(options.fixed) if str(options.fixed) in BUILTIN_TEMPLATES else None
    options.fixed = api.image_path(options.fixed)
    if options.labels is not None:
        # Check labels before the registration, not after it.
        check_labels(nifti.load(options.labels, "float64").get_fdata(), str(options.labels))
        if doubt := nifti.orientation_warning(options.labels):
            warnings.warn(doubt, stacklevel=1)
    result = api.register(
        options.fixed,
        options.moving,
        mode=options.mode,
        network=options.network,
        model=options.model,
        fixed_mask=options.fixed_mask,
        moving_mask=options.moving_mask,
        fixed_contrast=options.fixed_contrast,
        moving_contrast=options.moving_contrast,
        device=device,
        seed=seed,
    )
    directory, prefix = os.path.split(options.output)
    with replacing_files(directory or ".") as new:
        written = result.save(new / prefix if prefix else f"{new}/")
        warped, xfm, _ = written
        if options.labels is not None:
            resampled = api.apply(options.labels, options.fixed, [xfm], interpolation="label")
            written.append(nifti.write(new / f"{prefix}labels.nii.gz", resampled))
        if options.report:
            page = new / f"{prefix}report.html"
            written.append(_report(options, page, warped, xfm, result, name))
    _print_quality(result.quality, ranges=name is not None)
    print("written:", ", ".join(str(Path(directory) / path.name) for path in written))
    return int(options.fail_on_qc and result.quality["verdict"] in UNUSABLE)


def _report(
    options: argparse.Namespace,
    page: Path,
    warped: Path,
    transform: Path,
    result: api.Registered,
    name: str | None,
) -> Path:
    from bids_fcnreg.app.pair_report import make_pair_report  # takes seconds to import

    with tempfile.TemporaryDirectory() as directory:
        mask, contours = Path(directory) / "mask.nii.gz", options.fixed
        if result.fixed_mask is None:
            fixed = nifti.load(options.fixed)
            inside = nifti.like(fixed, foreground(np.asanyarray(fixed.dataobj)), "uint8")
            nifti.write(mask, inside)
        else:
            image.write(mask, result.fixed_mask, "uint8")
        if "fixed" in result.t1w_like:
            contours = image.write(Path(directory) / "like.nii.gz", result.t1w_like["fixed"])
        return make_pair_report(
            page, options.fixed, options.moving, mask, warped, transform, result.quality, name,
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
    if replaced := describe_replaced(quality["t1w_like"]):
        print(replaced)
    if ranges:
        print(EXPLANATION)
    reason = f": {quality['verdict_reason']}" if quality["verdict_reason"] else ""
    print(f"Verdict, by bounds for {MEASURED_ON}: {quality['verdict']}{reason}")
