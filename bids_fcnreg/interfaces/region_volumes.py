"""Volumes of the regions of an atlas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)


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
        Index and name of the regions. A region without voxels has the volume 0; a label that
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


class _RegionVolumesInputSpec(BaseInterfaceInputSpec):
    labels = File(exists=True, mandatory=True, desc="label image")
    table = traits.List(
        traits.Tuple(traits.Int, traits.Str), mandatory=True, desc="index and name of regions"
    )


class _RegionVolumesOutputSpec(TraitedSpec):
    volumes = File(exists=True, desc="TSV: index, name, volume_mm3")
    lookup = File(exists=True, desc="TSV: index, name")


class RegionVolumes(SimpleInterface):
    """Tabulate the volume of every region of a label image."""

    input_spec = _RegionVolumesInputSpec
    output_spec = _RegionVolumesOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.bids.derivatives import write_tsv
        from bids_fcnreg.io.spatial_image import open_image

        nifti = open_image(self.inputs.labels)
        rows = region_volumes(np.asanyarray(nifti.dataobj), nifti.affine, self.inputs.table)
        volumes = [(index, name, f"{volume:.3f}") for index, name, volume in rows]
        folder = Path(runtime.cwd)
        for output, header, lines in (
            ("volumes", ("index", "name", "volume_mm3"), volumes),
            ("lookup", ("index", "name"), [row[:2] for row in volumes]),
        ):
            self._results[output] = str(write_tsv(folder / f"{output}.tsv", header, lines))
        return runtime
