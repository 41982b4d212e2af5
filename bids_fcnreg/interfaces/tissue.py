"""Tissue and structures of a scan, by the anatomy network and the scan's intensities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from bids_fcnreg.bids.derivatives import write_tsv
from bids_fcnreg.fcn.structures import TISSUES
from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads

#: Probabilities are stored in multiples of this.
PROBABILITY_STEP = 0.01

#: Voxels of the brain mask with a smaller probability of all tissues have no tissue.
LEAST_PROBABILITY = 0.05


class _SegmentTissueInputSpec(ThreadsInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan of any contrast, without bias field")
    mask = File(exists=True, mandatory=True, desc="brain mask on the grid of in_file")
    make_t1w_like = traits.Bool(True, usedefault=True, desc="write t1w_like")


class _SegmentTissueOutputSpec(TraitedSpec):
    dseg = File(exists=True, desc="tissue of each voxel: 1 GM, 2 WM, 3 CSF")
    dseg_lookup = File(exists=True, desc="TSV of index and name of the tissues")
    gm = File(exists=True, desc="probability of grey matter")
    wm = File(exists=True, desc="probability of white matter")
    csf = File(exists=True, desc="probability of cerebrospinal fluid")
    structures = File(exists=True, desc="structure of each voxel, labels of FreeSurfer")
    t1w_like = File(exists=True, desc="brain like that of a T1w image, 100 in white matter")
    quality = File(exists=True, desc="JSON of the quality metrics of the segmentation")


class SegmentTissue(SimpleInterface):
    """Segment tissue and structures inside the brain mask, see `bids_fcnreg.fcn.tissue`."""

    input_spec = _SegmentTissueInputSpec
    output_spec = _SegmentTissueOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import torch

        from bids_fcnreg.fcn.spatial.grid import Image
        from bids_fcnreg.fcn.tissue import (
            classify_brain,
            most_probable,
            white_matter_is_darker,
        )
        from bids_fcnreg.io import image
        from bids_fcnreg.io.orientation import codes_of
        from bids_fcnreg.io.spatial_image import open_image
        from bids_fcnreg.preprocessing.intensity import ANCHOR_INTENSITY, INTENSITY_STEP
        from bids_fcnreg.qc.segmentation import assess_segmentation

        set_threads(self.inputs.num_threads)
        scan = image.read(self.inputs.in_file)
        mask = image.read(self.inputs.mask)
        found, inside = classify_brain(scan, mask), mask.data > 0.5
        tissues = found.tissues.data * inside
        certain = tissues.sum(dim=1, keepdim=True) > LEAST_PROBABILITY
        dseg = torch.where(certain, most_probable(tissues) + 1, 0)
        outputs: dict[str, tuple[torch.Tensor, str, float | None]] = {
            "dseg": (dseg, "uint8", None),
            "structures": (found.labels.data * inside, "uint8", None),
        }
        if self.inputs.make_t1w_like:
            brain = ANCHOR_INTENSITY * found.t1w_like.data * inside
            outputs["t1w_like"] = brain, "float32", INTENSITY_STEP
        for name, one in zip(TISSUES, tissues.split(1, dim=1), strict=True):
            outputs[name.lower()] = one, "float32", PROBABILITY_STEP
        codes, directory = codes_of(open_image(self.inputs.in_file)), Path(runtime.cwd)
        for name, (data, dtype, step) in outputs.items():
            path = directory / f"{name}.nii.gz"
            written = Image(data.float(), scan.grid)
            self._results[name] = str(image.write(path, written, dtype, codes, step))
        quality = directory / "quality.json"
        metrics = assess_segmentation(found.anatomy, mask)
        darker = white_matter_is_darker(scan, Image(tissues, scan.grid))
        quality.write_text(json.dumps(metrics | {"white_matter_darker": darker}) + "\n")
        self._results["quality"] = str(quality)
        self._results["dseg_lookup"] = str(
            write_tsv(directory / "dseg.tsv", ("index", "name"), list(enumerate(TISSUES, start=1)))
        )
        return runtime
