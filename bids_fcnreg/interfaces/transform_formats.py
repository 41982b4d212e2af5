"""Conversion of transforms to the formats of other software."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from bids_fcnreg.bids.output_names import CONVERTED
from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads
from bids_fcnreg.io.nifti import read_grid


class _ConvertTransformInputSpec(ThreadsInputSpec):
    transform = File(
        exists=True, mandatory=True, desc="ITK .h5: maps points of fixed to points of moving"
    )
    fixed = File(exists=True, mandatory=True, desc="image onto which the transform resamples")
    moving = File(exists=True, mandatory=True, desc="image that it resamples")
    to = traits.Enum(*CONVERTED, mandatory=True, desc="format of the output")


class _ConvertTransformOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="transform; for ANTs, the warp")
    affine = File(exists=True, desc="for ANTs, the affine, which follows the warp")


class ConvertTransform(SimpleInterface):
    """Convert a nonlinear transform to the format of other software."""

    input_spec = _ConvertTransformInputSpec
    output_spec = _ConvertTransformOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.io.formats import ants, table
        from bids_fcnreg.io.formats.image_grids import ImageGrids
        from bids_fcnreg.io.itk import read_transform

        inputs = self.inputs
        set_threads(inputs.num_threads)
        grids = ImageGrids(read_grid(inputs.fixed), read_grid(inputs.moving))
        output = Path(runtime.cwd) / "converted"
        if inputs.to == "ants":
            warp, affine = ants.names(output)
            self._results |= {"out_file": str(warp), "affine": str(affine)}
        else:
            output = output.with_suffix(CONVERTED[inputs.to][0])
            self._results["out_file"] = str(output)
        table.write(output, read_transform(inputs.transform), inputs.to, grids)
        return runtime
