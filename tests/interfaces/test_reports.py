"""Tables of the report."""

from __future__ import annotations

import json
from pathlib import Path

from nipype.pipeline import engine as pe

from bids_fcnreg.interfaces.quality import QualityTable
from bids_fcnreg.interfaces.reports import Summary


def test_summary_escapes_and_names_everything(tmp_path):
    scan = tmp_path / "sub-01_T1w.nii.gz"
    scan.touch()
    interface = Summary(
        t1w=[str(scan)], skull_stripped=True, templates=["A&B"], mode="refine", version="1"
    )
    text = Path(
        pe.Node(interface, name="node", base_dir=str(tmp_path)).run().outputs.out_file
    ).read_text()
    assert "sub-01_T1w.nii.gz" in text and "already done" in text and "A&amp;B" in text


def test_quality_table(tmp_path):
    from bids_fcnreg.fcn.register import Quality

    quality = Quality(mode="refine", device="cpu", similarity=0.51234, seconds={"affine": 3.21})
    (tmp_path / "quality.json").write_text(json.dumps(quality.as_dict()))
    node = pe.Node(
        QualityTable(quality=str(tmp_path / "quality.json"), space="Here"),
        name="node",
        base_dir=str(tmp_path),
    )
    text = Path(node.run().outputs.out_file).read_text()
    assert "Here" in text and "0.512" in text and "affine 3.2" in text and "none" in text
