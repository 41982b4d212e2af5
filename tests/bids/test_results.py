"""Results of the participant level as the group level finds them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bids_fcnreg.bids.results import find_results
from bids_fcnreg.bids.versions import find_superseded

QUALITY = {"mode": "predict", "verdict": "good", "verdict_reason": None, "seconds": {}}


def write_result(folder: Path, prefix: str, space: str, age: int) -> None:
    """Write files named as results of a scan, `age` seconds old."""
    anat = folder.joinpath(*[part for part in prefix.split("_") if part[:3] in ("sub", "ses")])
    anat = anat / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    transform = f"{prefix}_from-T1w_to-{space}_mode-image"
    for name in (
        f"{prefix}_space-{space}_desc-preproc_T1w.nii.gz",
        f"{prefix}_space-{space}_desc-brain_mask.nii.gz",
        f"{prefix}_desc-brain_mask.nii.gz",
        f"{transform}_desc-logjacobian_xfm.nii.gz",
    ):
        (anat / name).touch()
    quality = anat / f"{transform}_desc-quality_xfm.json"
    quality.write_text(json.dumps(QUALITY))
    long_ago = 1_700_000_000 - age
    os.utime(quality, (long_ago, long_ago))


def test_one_result_of_each_scan_and_space_is_not_reported(tmp_path):
    for prefix in ("sub-01", "sub-02_ses-a", "sub-02_ses-b_acq-x"):
        for space in ("A", "B"):
            write_result(tmp_path, prefix, space, 0)
    results = find_results(tmp_path)
    assert len(results) == 6 and find_superseded(results) == []


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("sub-01_acq-B", "sub-01_acq-A"),
        ("sub-01_acq-A", "sub-01_acq-B"),
        ("sub-01", "sub-01_ce-gad"),
        ("sub-01_ses-1_rec-norm", "sub-01_ses-1"),
    ],
)
def test_several_acquisitions_of_a_scan_are_reported(tmp_path, newer, older):
    write_result(tmp_path, newer, "A", 0)
    write_result(tmp_path, older, "A", 100)
    write_result(tmp_path, older, "B", 100)
    used, other = find_results(tmp_path)
    assert used.quality.name.startswith(f"{newer}_from") and other.space == "B"
    (message,) = find_superseded([used, other])
    assert f"The newest result is used ({newer}), not {older}." in message


@pytest.mark.parametrize(
    "prefix", ["sub-01", "sub-01_acq-A", "sub-01_acq-AB", "sub-01_acq-A_ce-g"]
)
def test_the_results_of_one_acquisition_are_found(tmp_path, prefix):
    for age, one in enumerate(("sub-01", "sub-01_acq-A", "sub-01_acq-AB", "sub-01_acq-A_ce-g")):
        write_result(tmp_path, one, "A", age)
    (found,) = find_results(tmp_path, "01", prefix)
    assert found.quality.name.startswith(f"{prefix}_from-") and not found.superseded


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["atlas-tissue_desc-A"], {"tissue": 0}),
        (["atlas-Sch_seg-100P7N_desc-A"], {"Sch100P7N": 0}),
        (["seg-Sch100P7N_desc-A"], {"Sch100P7N": 0}),  # name of earlier versions
        (["seg-tissue_desc-A", "atlas-tissue_desc-A", "seg-x_desc-A"], {"tissue": 1, "x": 2}),
        (["atlas-tissue_desc-B", "desc-anatomy", "desc-A", "acq-C_atlas-tissue_desc-A"], {}),
    ],
)
def test_tables_of_volumes_are_found_by_their_names(tmp_path, names, expected):
    write_result(tmp_path, "sub-01", "A", 0)
    tables = [tmp_path / "sub-01" / "anat" / f"sub-01_{one}Volumes_dseg.tsv" for one in names]
    for table in tables:
        table.touch()
    (found,) = find_results(tmp_path)
    assert found.volumes == {label: tables[n] for label, n in expected.items()}
