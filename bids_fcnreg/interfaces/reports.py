"""Summary and errors in the visual report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_fcnreg.html import render

#: Programs that extract brains, in words.
METHODS = {
    "deepbet": "deepbet",
    "anatomy": "the anatomy network",
    "synthstrip": "SynthStrip",
}


class _ReportOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="HTML fragment")


class _SummaryInputSpec(BaseInterfaceInputSpec):
    images = InputMultiObject(traits.Str, mandatory=True, desc="names of the averaged images")
    method = traits.Str(mandatory=True, desc="program that extracts brains")
    lesions = traits.List(traits.Str, [], usedefault=True, desc="lesion masks that are used")
    others = InputMultiObject(traits.Str, desc="names of the other images of the session")
    reused = traits.Dict(
        traits.Str, traits.Str, usedefault=True, desc="existing results that are used, by kind"
    )
    skull_stripped = traits.Bool(
        mandatory=True, desc="whether the image was skull-stripped in the input"
    )
    runs = traits.Dict({}, usedefault=True, desc="which runs were averaged")
    session = traits.Str(desc="label of the session, if it has one")
    reference = traits.Str(desc="session that changes are relative to, and why")
    templates = traits.List(traits.Str, mandatory=True, desc="spaces registered to")
    mode = traits.Str(mandatory=True, desc="registration mode")
    weights = traits.Str(mandatory=True, desc="initial weights of the network")
    device = traits.Str(mandatory=True, desc="requested device")
    versions = traits.Dict(traits.Str, traits.Str, mandatory=True, desc="version by software")


class Summary(SimpleInterface):
    """Summarize the inputs and the processing of a subject."""

    input_spec = _SummaryInputSpec
    output_spec = _ReportOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        others = self.inputs.others if isdefined(self.inputs.others) else []
        extraction = f"done, with {METHODS[self.inputs.method]}"
        reused = self.inputs.reused
        if "brain mask" in reused:
            extraction = "existing mask"
        elif self.inputs.skull_stripped:
            extraction = "already skull-stripped"
        reasons = self.inputs.runs.get("RunsLeftOut", {})
        left_out = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        rows = {"Session": self.inputs.session} if isdefined(self.inputs.session) else {}
        if isdefined(self.inputs.reference):
            rows["Reference session"] = self.inputs.reference
        rows |= {
            "Images": ", ".join(self.inputs.images),
            **({"Excluded from the average": left_out} if left_out else {}),
            **({"Other images": ", ".join(others)} if others else {}),
            "Lesion masks": ", ".join(Path(path).name for path in self.inputs.lesions) or "none",
            "Brain extraction": extraction,
            **{f"Existing {kind}": names for kind, names in reused.items()},
            "Templates": ", ".join(self.inputs.templates),
            "Mode": self.inputs.mode,
            "Network": self.inputs.weights,
            "Requested device": self.inputs.device,
            "Versions": ", ".join(f"{name} {v}" for name, v in self.inputs.versions.items()),
        }
        path = Path(runtime.cwd) / "summary.html"
        path.write_text(render("summary.html.j2", rows=rows), encoding="utf-8")
        self._results["out_file"] = str(path)
        return runtime


def write_errors(path: Path, failures: Mapping[str, str], crash_files: Mapping[str, Path]) -> Path:
    """Write error messages as an HTML fragment.

    Parameters
    ----------
    path : Path
        Output file.
    failures : mapping of str to str
        Error message by label of each failed scan.
    crash_files : mapping of str to Path
        Nipype's crash file, with inputs and traceback, of unexpected errors.
    """
    tracebacks = {
        label: crash_file.read_text(encoding="utf-8", errors="replace")
        for label, crash_file in crash_files.items()
        if label in failures
    }
    text = render("errors.html.j2", failures=failures, tracebacks=tracebacks)
    path.write_text(text, encoding="utf-8")
    return path
