"""Figures of a study: mean images and distributions of the quality metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import nibabel as nib
import numpy as np
from matplotlib import pyplot as plt
from nilearn.plotting import plot_img

from bids_fcnreg.figures.intensity_window import intensity_window
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.qc.metrics import COMPARED_METRICS
from bids_fcnreg.study.tables import OUTLIER_THRESHOLD, Row

#: Number of slices of each mean image.
CUTS = 9


def draw_means(
    t1w: tuple[nib.Nifti1Image, nib.Nifti1Image],
    log_jacobian: tuple[nib.Nifti1Image, nib.Nifti1Image],
    mask: nib.Nifti1Image,
    path: Path,
) -> Path:
    """Draw mean and standard deviation of the images and of the log-Jacobian, a row each.

    Parameters
    ----------
    t1w, log_jacobian : pair of nibabel.Nifti1Image
        Mean and standard deviation, on one grid.
    mask : nibabel.Nifti1Image
        Brain mask, on the same grid; the log-Jacobian is shown inside it.
    path : Path
        PNG to write.
    """
    inside = np.asanyarray(mask.dataobj) > 0
    if not inside.any():  # brains that do not overlap
        inside = np.ones_like(inside)
    points = nib.affines.apply_affine(mask.affine, np.argwhere(inside))
    lower, upper = np.percentile(points[:, 2], [3, 97])
    cuts = np.linspace(lower, upper, CUTS + 2)[1:-1].round(1).tolist()
    rows = [
        ("mean T1w", t1w[0], "gray"),
        ("SD of T1w", t1w[1], "magma"),
        ("mean log-Jacobian", _inside(log_jacobian[0], inside), "RdBu_r"),
        ("SD of log-Jacobian", _inside(log_jacobian[1], inside), "magma"),
    ]
    # A single scan has no standard deviation.
    rows = [row for row in rows if row[1].get_fdata()[inside].any()]
    figure = plt.figure(figsize=(16, 2.25 * len(rows)), facecolor="black")
    for number, (title, shown, colours) in enumerate(rows):
        lowest, top = _limits(shown.get_fdata(), inside, colours)
        display = plot_img(
            shown,
            display_mode="z",
            cut_coords=cuts,
            figure=figure,
            axes=(0, 1 - (number + 1) / len(rows), 1, 1 / len(rows)),
            colorbar=True,
            cbar_tick_format="%.3g",
            cmap=colours,
            vmin=lowest,
            vmax=top,
            threshold=None if colours == "gray" else 1e-6,
            black_bg=True,
            annotate=False,
        )
        display.title(title, y=0.95, size=13, color="white", bgcolor="black", alpha=0.6)
    figure.savefig(path, dpi=90, facecolor="black")
    plt.close(figure)
    return path


def _limits(data: np.ndarray, inside: np.ndarray, colours: str) -> tuple[float, float]:
    """Return the colour limits of intensities, standard deviations or log-Jacobians."""
    if colours == "gray":
        return intensity_window(data, inside)
    values = np.abs(data[inside & np.isfinite(data)])
    top = float(np.percentile(values, 99)) if values.any() else 1.0
    return (-top if colours == "RdBu_r" else 0.0), top or 1.0


def _inside(shown: nib.Nifti1Image, inside: np.ndarray) -> nib.Nifti1Image:
    """Set an image to zero outside a mask (bool, its shape)."""
    return nib.Nifti1Image(shown.get_fdata(dtype=np.float32) * inside, shown.affine)


def draw_distributions(rows: Sequence[Row], path: Path) -> Path:
    """Draw each quality metric of all scans as a strip plot, with outliers labelled.

    Parameters
    ----------
    rows : sequence of Row
        After `flag_outliers`; rows without metrics are omitted.
    path : Path
        PNG to write.
    """
    scans = [row for row in rows if row.metrics]
    figure, panels = plt.subplots(
        len(COMPARED_METRICS), 1, figsize=(8.5, 0.95 * len(COMPARED_METRICS)), layout="constrained"
    )
    heights = np.random.default_rng(0).uniform(-0.25, 0.25, len(scans))
    for metric, panel in zip(COMPARED_METRICS, panels, strict=True):
        for row, height in zip(scans, heights, strict=True):
            value = row.metrics.get(metric.key)
            if value is None:
                continue
            out = metric.key in row.outliers
            colour = "firebrick" if out else "steelblue"
            panel.plot(value, height, "o", color=colour, alpha=0.7, markersize=5)
            if out:
                panel.annotate(row.label, (value, height), (4, 3), textcoords="offset points")
        values = [row.metrics[metric.key] for row in scans if metric.key in row.metrics]
        if values:
            median = np.median(values)
            panel.axvline(median, color="grey", linewidth=0.8, zorder=0)
            # Negligible differences must not appear large.
            reach = OUTLIER_THRESHOLD * metric.min_spread
            lower = median - reach if min(values) < 0 else max(median - reach, 0)
            panel.update_datalim([(lower, 0), (median + reach, 0)])
        panel.set_title(metric.title, fontsize=9, loc="left", pad=2)
        panel.set_yticks([])
        panel.margins(x=0.05)
        panel.autoscale_view()
        panel.set_ylim(-0.5, 0.5)
        panel.tick_params(labelsize=8)
        panel.spines[["left", "top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def draw_iterations(images: Sequence[Path], path: Path) -> Path:
    """Draw a template after each iteration, one row each.

    Parameters
    ----------
    images : sequence of Path
        The first is the initial template.
    path : Path
        PNG to write.
    """
    figure = plt.figure(figsize=(10, 2.6 * len(images)), facecolor="black")
    darkest, brightest = intensity_window(open_image(images[-1]).get_fdata())
    for number, shown in enumerate(images):
        display = plot_img(
            shown,
            display_mode="ortho",
            cut_coords=(0, -10, 15),
            figure=figure,
            axes=(0, 1 - (number + 1) / len(images), 1, 1 / len(images)),
            cmap="gray",
            vmin=darkest,
            vmax=brightest,
            black_bg=True,
            annotate=False,
            draw_cross=False,
        )
        title = f"iteration {number}" if number else "start"
        display.title(title, size=11, color="white", bgcolor="black", alpha=0.6)
    figure.savefig(path, dpi=90, facecolor="black")
    plt.close(figure)
    return path
