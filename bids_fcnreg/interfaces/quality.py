"""The quality numbers of a registration as people read them."""

from __future__ import annotations

import json
from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_fcnreg.interfaces.reports import write_table

#: Key of the quality numbers, what it is called in a table, and how its value is printed.
ROWS = (
    ("similarity_initial", "Similarity (local correlation) before", "{:.3f}"),
    ("similarity_affine", "Similarity after the affine stage", "{:.3f}"),
    ("similarity", "Similarity at the end", "{:.3f}"),
    ("folds_percent", "Folded voxels in the brain (%)", "{:.4f}"),
    ("sd_log_jacobian", "Standard deviation of log-Jacobian", "{:.3f}"),
    ("inverse_consistency_mm", "Inverse consistency error, mean (mm)", "{:.3f}"),
    ("inverse_consistency_p95_mm", "Inverse consistency error, 95th percentile (mm)", "{:.3f}"),
    ("mode", "Mode", "{}"),
    ("device", "Device", "{}"),
    ("weights", "Weights (hash)", "{}"),
)


def quality_rows(quality: dict) -> dict[str, str]:
    """Names and printed values of the quality numbers of one registration."""
    rows = {
        name: "none" if quality[key] is None else form.format(quality[key])
        for key, name, form in ROWS
    }
    rows["Seconds"] = ", ".join(f"{stage} {s:.1f}" for stage, s in quality["seconds"].items())
    return rows


class _QualityTableInputSpec(BaseInterfaceInputSpec):
    quality = File(exists=True, mandatory=True, desc="JSON of the quality numbers")
    space = traits.Str(mandatory=True, desc="template that was registered to")


class _QualityTableOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="fragment of HTML")


class QualityTable(SimpleInterface):
    """Print the quality numbers as a table for the report."""

    input_spec = _QualityTableInputSpec
    output_spec = _QualityTableOutputSpec

    def _run_interface(self, runtime):
        quality = json.loads(Path(self.inputs.quality).read_text())
        rows = {"Template": self.inputs.space} | quality_rows(quality)
        out_file = write_table(Path(runtime.cwd) / "quality.html", rows)
        self._results["out_file"] = str(out_file)
        return runtime
