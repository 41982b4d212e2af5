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

from bids_fcnreg.bids.derivatives import write_tsv
from bids_fcnreg.bids.region_tables import region_volumes
from bids_fcnreg.io.spatial_image import open_image


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
        nifti = open_image(self.inputs.labels)
        rows = region_volumes(np.asanyarray(nifti.dataobj), nifti.affine, self.inputs.table)
        volumes = [(index, name, f"{volume:.3f}") for index, name, volume in rows]
        directory = Path(runtime.cwd)
        for output, header, lines in (
            ("volumes", ("index", "name", "volume_mm3"), volumes),
            ("lookup", ("index", "name"), [row[:2] for row in volumes]),
        ):
            self._results[output] = str(write_tsv(directory / f"{output}.tsv", header, lines))
        return runtime
