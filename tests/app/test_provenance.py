"""What is said of existing results before a run."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from bids_fcnreg import __version__
from bids_fcnreg.app.provenance import list_planned, report_outdated, report_replaced
from bids_fcnreg.atomic import checksum
from bids_fcnreg.bids.output_names import output_names
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import Template, resolve_template
from bids_fcnreg.config import Config
from bids_fcnreg.fcn.nets.packaged_weights import packaged_checksum


@pytest.fixture
def template(tmp_path) -> Template:
    distance = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0)
    data = np.where(distance < 10, 100 + distance, 0).astype("float32")
    path = tmp_path / "tpl-Ball_T1w.nii.gz"
    nib.Nifti1Image(data, np.diag([6.0, 6, 6, 1])).to_filename(path)
    return resolve_template(str(path))


def make_scan(root: Path, name: str) -> Scan:
    path = root / "in/sub-01/anat" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name)
    return Scan("01", None, (path,))


def write_results(root: Path, scan: Scan, template: Template, mode: str = "predict") -> None:
    """Write results of a scan, as far as they are read before a run."""
    anat = root.joinpath("out", *scan.label.split("_"), "anat")
    anat.mkdir(parents=True, exist_ok=True)
    now = {str(path): checksum(path) for path in scan.images}
    for name in output_names(scan, [template], {}):
        content = {}
        if "desc-quality" in name:
            content = {"mode": mode, "verdict": "good", "verdict_reason": None, "seconds": {}}
            content["weights"] = packaged_checksum("diffeomorphic")
            content["SourcesSHA256"] = template.sources
        elif "space-" not in name and name.endswith("desc-preproc_T1w.json"):
            content = {"SourcesSHA256": now}
        (anat / name).write_text(json.dumps(content))


def messages(root: Path, scan: Scan, template: Template, *others: Scan, **options) -> list[str]:
    """What is said with and without --dry-run."""
    folders = {"bids_dir": root / "in", "output_dir": root / "out"}
    config = Config(**folders, analysis_level="participant", mode="predict", **options)
    written = io.StringIO()
    console = Console(file=written, width=300)
    for report in (list_planned, report_replaced):
        report(config, [scan, *others], [template], {}, {}, console)
    return written.getvalue().splitlines()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sub-01_acq-A_T1w.nii", "sub-01_acq-B_T1w.nii"),
        ("sub-01_acq-B_T1w.nii", "sub-01_acq-A_T1w.nii"),
        ("sub-01_T1w.nii", "sub-01_ce-gad_T1w.nii"),
        ("sub-01_rec-norm_run-1_T1w.nii", "sub-01_T1w.nii"),
    ],
)
def test_results_of_another_acquisition_are_not_replaced(tmp_path, template, first, second):
    one, other = make_scan(tmp_path, first), make_scan(tmp_path, second)
    assert messages(tmp_path, one, template) == ["sub-01: to register to Ball (predict)"]
    write_results(tmp_path, one, template)
    assert messages(tmp_path, other, template) == ["sub-01: to register to Ball (predict)"]
    write_results(tmp_path, other, template, mode="refine")
    assert messages(tmp_path, one, template) == ["sub-01: results in Ball exist (predict)"]


def test_results_of_a_changed_image_are_replaced(tmp_path, template):
    scan = make_scan(tmp_path, "sub-01_acq-A_T1w.nii")
    write_results(tmp_path, scan, template)
    scan.images[0].write_text("changed")
    planned, replaced = messages(tmp_path, scan, template)
    assert "made from another sub-01_acq-A_T1w.nii; to register again" in planned
    assert replaced.endswith("their sources have changed: sub-01 (sub-01_acq-A_T1w.nii)")


@pytest.mark.parametrize(
    ("mode", "changes", "replaced"),
    [("predict", True, True), ("refine", False, True), ("predict", False, False)],
)
def test_images_that_will_not_fit_are_named_before_a_minimal_run(
    tmp_path, template, mode, changes, replaced
):
    scan = make_scan(tmp_path, "sub-01_T1w.nii")
    write_results(tmp_path, scan, template, mode)
    if changes:
        scan.images[0].write_text("changed")
    left = "labels, resampled images and figures of an earlier run with --level full"
    planned, *reported = messages(tmp_path, scan, template, processing_level="minimal")
    assert planned.endswith(f"except for {left}, which then do not fit") == replaced
    assert any(line.startswith(f"warning: {left} do not fit") for line in reported) == replaced
    assert not any(left in line for line in messages(tmp_path, scan, template))


@pytest.mark.parametrize(
    ("makers", "replaced"),
    [
        ([{"Name": "bids_fcnreg", "Version": "0.0.9"}], True),
        ([{"Name": "bids_fcnreg", "Version": __version__}], False),
        ([{"Name": "other", "Version": "0.0.9"}], False),
        ("0.0.9", False),
        (None, False),
    ],
)
def test_results_of_another_version_are_replaced(tmp_path, template, makers, replaced):
    scan = make_scan(tmp_path, "sub-01_T1w.nii")
    write_results(tmp_path, scan, template)
    (quality,) = tmp_path.glob("out/sub-01/anat/*_desc-quality_xfm.json")
    quality.write_text(json.dumps(json.loads(quality.read_text()) | {"GeneratedBy": makers}))
    planned, *reported = messages(tmp_path, scan, template)
    assert (", made by version 0.0.9; to register again" in planned) == replaced
    assert (
        reported == ["Results of another version of bids_fcnreg are replaced: sub-01"] * replaced
    )


@pytest.mark.parametrize(
    ("before", "value", "sessions", "now"),
    [
        ("unbiased", "sessionwise", 2, "sessionwise"),
        ("unbiased", "unbiased", 1, "sessionwise"),  # nothing to register it to
        ("sessionwise", "unbiased", 2, "unbiased"),
        ("sessionwise", "unbiased", 1, ""),
        ("unbiased", "unbiased", 2, ""),
        ("", "unbiased", 2, ""),  # of an earlier version
    ],
)
def test_results_of_another_anatomical_reference_are_replaced(
    tmp_path, template, before, value, sessions, now
):
    scan, *others = (
        Scan("01", session, make_scan(tmp_path, f"sub-01_ses-{session}_T1w.nii").images)
        for session in "ab"[:sessions]
    )
    write_results(tmp_path, scan, template)
    path = tmp_path / "out/sub-01/ses-a/anat/sub-01_ses-a_from-T1w_to-Ball_mode-image_xfm.json"
    path.write_text(json.dumps({"AnatomicalReference": before} if before else {}))
    options = {"subject_anatomical_reference": value}
    said = messages(tmp_path, scan, template, *others, **options)
    planned, reported = said[0], said[sessions:]
    option = "--subject-anatomical-reference"
    assert planned.startswith("sub-01_ses-a: results in Ball exist (predict)")
    assert ("to register again" in planned) == bool(now)
    assert reported == [
        f"Results of another {option} are replaced: sub-01_ses-a ({before}, now {now})"
    ] * bool(now)
    if now:
        assert f", with {option} {before}; to register again" in planned
        said = messages(tmp_path, scan, template, *others, **options, processing_level="minimal")
        assert said[-1].startswith("warning: labels, resampled images and figures")
        other_space = replace(template, name="Other")
        assert option not in "".join(messages(tmp_path, scan, other_space, *others, **options))


def test_results_in_the_former_default_template_are_mentioned(tmp_path):
    scan = make_scan(tmp_path, "sub-01_T1w.nii")
    former, new = resolve_template("MNI152NLin2009aSym"), resolve_template("MNI152NLin2009cAsym")
    assert len(messages(tmp_path, scan, new)) == 1
    write_results(tmp_path, scan, former)
    note = messages(tmp_path, scan, new)[-1]
    assert note.startswith("The default template is MNI152NLin2009cAsym now.")
    assert note.endswith("--template MNI152NLin2009aSym continues them: sub-01")
    write_results(tmp_path, scan, new)
    assert len(messages(tmp_path, scan, new)) == 1


@pytest.mark.parametrize(
    ("folder", "names", "content", "expected"),
    [
        ("anat", ["seg-A_desc-Ball_dseg.json", "seg-A_desc-Ball_dseg.nii.gz"], "bids_fcnreg",
         "*_seg-A_desc-Ball_dseg.* of sub-01"),
        ("figures", ["seg-A_desc-Ball_dseg.svg"], None, "*_seg-A_desc-Ball_dseg.* of sub-01"),
        ("anat", ["seg-A_desc-Ball_dseg.json"], "fMRIPrep", ""),
        ("anat", ["desc-mine_mask.nii.gz"], None, ""),
        ("anat", ["desc-mine_mask.json"], "", ""),
        ("anat", ["atlas-B_desc-Box_dseg.json"], "bids_fcnreg", ""),  # of another run
        ("anat", ["space-Box_res-1_desc-preproc_T1w.json"], "bids_fcnreg", ""),
        ("anat", ["desc-BallChanges_dseg.json"], "bids_fcnreg", "*_desc-BallChanges_dseg.* of sub-01"),
        ("anat", ["atlas-A_desc-BallChanges_dseg.json"], "bids_fcnreg", ""),
        ("anat", ["run-1_from-T2w_to-T1w_mode-image_xfm.json"], "bids_fcnreg", ""),
    ],
)  # fmt: skip
def test_results_with_names_of_earlier_versions_are_listed(
    tmp_path, template, folder, names, content, expected
):
    scan = make_scan(tmp_path, "sub-01_T1w.nii")
    write_results(tmp_path, scan, template)
    for name in names:
        path = tmp_path / "out/sub-01" / folder / f"sub-01_{name}"
        path.parent.mkdir(exist_ok=True)
        made_by = {"GeneratedBy": [{"Name": content}]} if content else {}
        path.write_text(json.dumps(made_by))
    written = io.StringIO()
    config = Config(
        bids_dir=tmp_path / "in", output_dir=tmp_path / "out", analysis_level="participant"
    )
    report_outdated(config, [scan], Console(file=written, width=300))
    assert written.getvalue().strip().endswith(expected)
    assert bool(written.getvalue()) == bool(expected)


@pytest.mark.parametrize(
    ("level", "before", "expected"),
    [
        ("minimal", "predict", ["sub-01: results in Ball exist (predict)"]),
        (
            "full",
            "predict",
            ["sub-01: to register to Ball (predict); results of --level minimal exist (predict)"],
        ),
        (
            "minimal",
            "refine",
            [
                "sub-01: results in Ball exist (refine); to register again (predict), which "
                "replaces them",
                "Results of another mode are replaced by those of predict: sub-01 (refine)",
            ],
        ),
    ],
)
def test_results_of_level_minimal_are_found(tmp_path, template, level, before, expected):
    scan = make_scan(tmp_path, "sub-01_T1w.nii")
    write_results(tmp_path, scan, template, before)
    for path in (tmp_path / "out/sub-01/anat").iterdir():
        if "_space-" in path.name or "logjacobian" in path.name:
            path.unlink()
    assert messages(tmp_path, scan, template, processing_level=level) == expected


def test_remains_of_level_full_are_mentioned_where_there_are_any(tmp_path, template):
    scan = make_scan(tmp_path, "sub-01_T1w.nii")
    write_results(tmp_path, scan, template, "refine")
    assert (
        "do not fit the new transforms"
        in messages(tmp_path, scan, template, processing_level="minimal")[-1]
    )
