"""Tables of the report."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.pipeline import engine as pe

from bids_fcnreg.interfaces.quality import Judge, QualityTable, quality_html
from bids_fcnreg.interfaces.reports import Summary


def test_summary_escapes_and_names_everything(tmp_path):
    interface = Summary(
        images=["sub-01_T1w.nii.gz"],
        method="deepbet",
        session="before",
        skull_stripped=True,
        templates=["A&B"],
        mode="refine",
        weights="mine",
        device="cpu",
        versions={"torch": "9.8"},
    )
    text = Path(
        pe.Node(interface, name="node", base_dir=str(tmp_path)).run().outputs.out_file
    ).read_text()
    assert "sub-01_T1w.nii.gz" in text and "already skull-stripped" in text and "A&amp;B" in text
    assert all(word in text for word in ("before", "mine", "cpu", "torch 9.8"))


def test_quality_table_shows_verdict_and_usual_ranges(tmp_path):
    from bids_fcnreg.fcn.quality import Quality
    from bids_fcnreg.qc.verdict import reference_bounds

    quality = Quality(mode="refine", device="cpu", similarity=0.51234, seconds={"affine": 3.21})
    verdict = {"verdict": "doubtful", "verdict_reason": "not <like> it"}
    (tmp_path / "quality.json").write_text(json.dumps(quality.as_dict() | verdict))
    node = pe.Node(
        QualityTable(quality=str(tmp_path / "quality.json"), space="Here"),
        name="node",
        base_dir=str(tmp_path),
    )
    outputs = node.run().outputs
    text = Path(outputs.out_file).read_text()
    assert "Here" in text and "0.512" in text and "affine 3.2" in text and "none" in text
    said = Path(outputs.verdict).read_text()
    assert "<p class='doubtful'>Here: doubtful" in said and "not &lt;like&gt; it" in said
    bounds = reference_bounds("refine")["similarity"]
    assert f"usually {bounds.low:.3f} to {bounds.high:.3f}" in text
    assert f"doubtful below {bounds.doubtful:.3f}" in text


def judged(folder: Path, builtin: bool) -> dict:
    """What `Judge` adds to the numbers of a registration that is far from its template."""
    from bids_fcnreg.fcn.quality import Quality

    quality = Quality(mode="refine", device="cpu", similarity=0.1, brain_overlap=0.97)
    (folder / "quality.json").write_text(json.dumps(quality.as_dict()))
    ones = np.ones((197, 233, 189), "float32")  # the built-in template's shape
    nib.Nifti1Image(ones, np.eye(4)).to_filename(folder / "ones.nii")
    map_, mask = (str(folder / "ones.nii"),) * 2
    interface = Judge(quality=str(folder / "quality.json"), log_jacobian=map_, mask=mask)
    if builtin:
        interface.inputs.template = "MNI152NLin2009aSym"
    node = pe.Node(interface, name=f"judge{builtin:d}", base_dir=str(folder))
    return json.loads(Path(node.run().outputs.quality).read_text())


@pytest.mark.parametrize(
    ("before", "shown"), [([], "moving image"), (["fixed"], "template, moving")]
)
def test_t1w_like_images_are_named(tmp_path, before, shown):
    quality = {"mode": "refine", "t1w_like": before, "weights": None, "device": "", "seconds": {}}
    (tmp_path / "quality.json").write_text(json.dumps(quality))
    nib.Nifti1Image(np.ones((2, 2, 2), "f"), np.eye(4)).to_filename(tmp_path / "ones.nii")
    maps = dict.fromkeys(("log_jacobian", "mask"), str(tmp_path / "ones.nii"))
    judge = Judge(quality=str(tmp_path / "quality.json"), t1w_like=True, **maps)
    judged = json.loads(Path(judge.run(cwd=tmp_path).outputs.quality).read_text())
    assert judged["t1w_like"] == [*before, "moving"]
    assert shown in quality_html(judged, "MyTemplate")


def test_verdict_is_added_to_the_metrics(tmp_path):
    here, elsewhere = judged(tmp_path, builtin=True), judged(tmp_path, builtin=False)
    assert here["verdict"] == elsewhere["verdict"] == "failed"
    assert "not similar to the template" in here["verdict_reason"]
    assert here["similarity"] == 0.1
    assert here["asymmetry"] == 0 and "asymmetry" not in elsewhere
