"""What the main process of the participant level imports before the first node runs."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

#: Libraries that take long to import, and that only nodes need.
HEAVY = ["torch", "numba", "SimpleITK", "scipy.stats", "pandas", "nilearn", "deepbet", "nireports"]


@pytest.mark.parametrize("option", ["--dry-run", "--boilerplate-only"])
def test_main_process_does_not_import_what_only_nodes_need(tmp_path, option):
    folder = tmp_path / "bids" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    description = {"Name": "Small", "BIDSVersion": "1.10.0"}
    (tmp_path / "bids" / "dataset_description.json").write_text(json.dumps(description))
    values = np.arange(1000, dtype="int16").reshape(10, 10, 10)
    nib.Nifti1Image(values, np.eye(4)).to_filename(folder / "sub-01_T1w.nii.gz")
    lesion = (values > 900).astype("uint8")
    nib.Nifti1Image(lesion, np.eye(4)).to_filename(folder / "sub-01_label-lesion_roi.nii.gz")
    program = (
        "import sys; from bids_fcnreg.cli.bids_app import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        f"print('imported:', [name for name in {HEAVY} if name in sys.modules])"
    )
    arguments = [tmp_path / "bids", tmp_path / "out", "participant", option]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "-w", tmp_path / "work"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported: []\n")
    assert done.stdout.startswith(f"{tmp_path / 'bids'}: 1 participant, 1 anatomy")
