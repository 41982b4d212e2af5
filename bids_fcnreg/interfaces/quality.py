"""Verdict and report tables from the quality metrics of a registration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_fcnreg.html import render
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.qc.asymmetry import asymmetry
from bids_fcnreg.qc.metrics import REGISTRATION_METRICS
from bids_fcnreg.qc.verdict import EXPLANATION, judge, reference_bounds

if TYPE_CHECKING:
    from markupsafe import Markup

_VERDICT_TEXTS = {
    "good": "good, all metrics are within their bounds",
    "unknown": "unknown, please check the figures: ",
    "doubtful": "doubtful, please check the figures: ",
    "failed": "failed: ",
}


class _JudgeInputSpec(BaseInterfaceInputSpec):
    quality = File(exists=True, mandatory=True, desc="JSON of the quality metrics")
    log_jacobian = File(exists=True, mandatory=True, desc="map on the template's grid")
    mask = File(exists=True, mandatory=True, desc="brain mask on the template's grid")
    template = traits.Str(desc="name of the built-in template, to compute the asymmetry")
    segmentation = File(exists=True, desc="JSON of the quality metrics of the segmentation")
    t1w_like = traits.Bool(False, usedefault=True, desc="whether a T1w-like image was registered")


class _JudgeOutputSpec(TraitedSpec):
    quality = File(exists=True, desc="JSON of the metrics, the verdict and its reason")


class Judge(SimpleInterface):
    """Judge whether a registration, and the segmentation, is good, doubtful, failed or unknown."""

    input_spec = _JudgeInputSpec
    output_spec = _JudgeOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        quality = json.loads(Path(self.inputs.quality).read_text())
        if isdefined(self.inputs.template):
            log_jacobian = open_image(self.inputs.log_jacobian).get_fdata(dtype="float32")
            mask = open_image(self.inputs.mask).get_fdata(dtype="float32")
            quality["asymmetry"] = asymmetry(log_jacobian, mask, self.inputs.template)
        if isdefined(self.inputs.segmentation):
            quality |= json.loads(Path(self.inputs.segmentation).read_text())
        if self.inputs.t1w_like:
            quality["t1w_like"] = [*quality.get("t1w_like", []), "moving"]
        quality |= judge(quality).as_dict()
        out_file = Path(runtime.cwd) / "quality.json"
        out_file.write_text(json.dumps(quality, indent=2) + "\n")
        self._results["quality"] = str(out_file)
        return runtime


class _QualityTableInputSpec(BaseInterfaceInputSpec):
    quality = File(exists=True, mandatory=True, desc="JSON of the quality metrics")
    space = traits.Str(mandatory=True, desc="space of the template")


class _QualityTableOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="HTML fragment: all metrics")
    verdict = File(exists=True, desc="HTML fragment: one line")


class QualityTable(SimpleInterface):
    """Format the quality metrics with their usual ranges, and the verdict, for the report."""

    input_spec = _QualityTableInputSpec
    output_spec = _QualityTableOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        quality = json.loads(Path(self.inputs.quality).read_text())
        space = self.inputs.space
        for output, text in (
            ("out_file", quality_html(quality, space)),
            ("verdict", verdict_html(quality, space)),
        ):
            path = Path(runtime.cwd) / f"{output}.html"
            path.write_text(text, encoding="utf-8")
            self._results[output] = str(path)
        return runtime


def verdict_html(quality: dict[str, Any], space: str) -> Markup:
    """Format the verdict on a registration to a space as an HTML fragment."""
    level, reason = quality["verdict"], quality["verdict_reason"]
    text = f"{space}: {_VERDICT_TEXTS[level]}{reason or ''}"
    return render("verdict.html.j2", level=level, text=text)


def quality_html(
    quality: dict[str, Any], fixed: str, what: str = "Template", ranges: bool = True
) -> Markup:
    """Format the quality metrics of one registration as an HTML fragment.

    Parameters
    ----------
    quality : dict
        As written to JSON.
    fixed, what : str
        Name of the fixed image, and its label in the table.
    ranges : bool
        Whether to show the usual ranges.
    """
    usual = reference_bounds(quality["mode"]) if ranges else {}
    rows = [(what, fixed, "")]
    for metric in REGISTRATION_METRICS:
        if metric.key in quality:
            note = usual[metric.key].describe(metric) if metric.key in usual else ""
            rows.append((metric.title, metric.read(quality), note))
    if replaced := quality.get("t1w_like"):
        names = [{"fixed": what.lower(), "moving": "moving image"}[one] for one in replaced]
        rows.append(("Registered as T1w-like images", ", ".join(names), ""))
    others = {
        "Mode": quality["mode"],
        "Device": quality["device"],
        "Weights (hash)": f"{quality['weights'] or 'none':.12}",
        "Seconds": ", ".join(f"{stage} {s:.1f}" for stage, s in quality["seconds"].items()),
    }
    rows += [(name, value, "") for name, value in others.items()]
    return render("quality.html.j2", rows=rows, explanation=EXPLANATION if ranges else None)
