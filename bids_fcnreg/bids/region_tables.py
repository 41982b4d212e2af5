"""Tables of regions: their volumes, and the changes of these between sessions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def region_volumes(
    labels: np.ndarray, affine: np.ndarray, table: list[tuple[int, str]]
) -> list[tuple[int, str, float]]:
    """Compute the volume of every region.

    Parameters
    ----------
    labels : ndarray (i, j, k), integer
        Label of every voxel; 0 is background.
    affine : ndarray (4, 4)
        Voxel indices to mm.
    table : list of (int, str)
        Index and name of the regions. A region without voxels has the volume 0; a label
        without a name is named by its index.

    Returns
    -------
    list of (int, str, float)
        Index, name and volume in mm³, by index.
    """
    voxel = float(abs(np.linalg.det(np.asarray(affine)[:3, :3])))
    found = dict(zip(*(a.tolist() for a in np.unique(labels, return_counts=True)), strict=True))
    names = {index: str(index) for index in found} | dict(table)
    return [(n, names[n], found.get(n, 0) * voxel) for n in sorted(names) if n != 0]


def volume_changes(
    table: Sequence[tuple[int, str]],
    volumes: Sequence[Sequence[float]],
    sessions: Sequence[str],
    reference: str | None,
) -> tuple[list[str], list[list[object]]]:
    """Tabulate the volumes of regions in all sessions, and their changes.

    Parameters
    ----------
    table : sequence of (int, str)
        Index and name of the regions.
    volumes : sequence of sequence of float
        For each session, the volume of each region in mm³.
    sessions : sequence of str
        Labels of the sessions.
    reference : str or None
        Label of the session that changes are relative to; None if it is missing.

    Returns
    -------
    header : list of str
    rows : list of list
    """
    header = ["index", "name"]
    for session in sessions:
        header += [f"ses-{session}_volume_mm3", f"ses-{session}_change_percent"]
    header.append("reference_session")
    rows = []
    for (index, name), *theirs in zip(table, *volumes, strict=True):
        row: list[object] = [index, name]
        before = None if reference is None else theirs[sessions.index(reference)]
        for volume in theirs:
            change = f"{100 * (volume / before - 1):.4f}" if before else None
            row += [f"{volume:.3f}", change]
        rows.append([*row, None if reference is None else f"ses-{reference}"])
    return header, rows
