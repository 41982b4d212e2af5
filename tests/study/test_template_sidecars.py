"""The BIDS validator accepts the directory of a study template."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_fcnreg.bids.derivatives import prepare_output, write_json
from bids_fcnreg.config import Config
from bids_fcnreg.study.template import describe_files


def test_validator_accepts_a_study_template(tmp_path):
    bids, out = tmp_path / "bids", tmp_path / "out"
    bids.mkdir()
    write_json(bids / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    prepare_output(out, bids)
    anat = out / "sub-01" / "anat"
    anat.mkdir(parents=True)
    write_json(anat / "sub-01_desc-preproc_T1w.json", {"SkullStripped": True})
    scan = anat / "sub-01_desc-preproc_T1w.nii.gz", anat / "sub-01_desc-brain_mask.nii.gz"
    config = Config(bids_dir=bids, output_dir=out, analysis_level="group")
    files = describe_files("Mine", (1.0, 1.0, 1.0), [scan], config)
    assert files["T1w"]["SkullStripped"] is True
    assert files["T1w"]["Sources"] == ["bids::sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"]
    nifti = nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4))
    nifti.header.set_xyzt_units("mm")
    (out / "tpl-Mine").mkdir()
    for ending, content in files.items():
        stem = out / "tpl-Mine" / f"tpl-Mine_res-01_{ending}"
        nib.save(nifti, f"{stem}.nii.gz")
        write_json(Path(f"{stem}.json"), content)
    (out / "tpl-Mine" / "tpl-Mine_from-Mine_to-X_mode-image_xfm.h5").touch()
    write_json(out / "tpl-Mine" / "template_description.json", {"Identifier": "Mine"})
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [validator, out, "--format", "json"], capture_output=True, text=True, timeout=300
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert not [one for one in issues if one["location"].startswith("/tpl-")]
