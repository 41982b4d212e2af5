"""Which sessions of a participant are averaged with `--subject-anatomical-reference first-lex`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_fcnreg.bids.combined_sessions import combine_sessions
from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.notes import summarize

LESION = "label-lesion_roi"
TOGETHER = "are averaged in the space of the first of them"


def write(root: Path, *names: str) -> Path:
    """Make a dataset of empty images, named without ``sub-01``, such as ``ses-a_T1w``."""
    for name in names:
        session = name.partition("_")[0] if name.startswith("ses-") else ""
        path = root / "sub-01" / session / "anat" / f"sub-01_{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


@pytest.mark.parametrize(
    ("names", "label", "images", "said"),
    [
        (["ses-b_T1w", "ses-a_T1w"], "sub-01", "ses-a_T1w ses-b_T1w", f"ses-a, ses-b {TOGETHER}"),
        (["ses-10_T1w", "ses-2_T1w"], "sub-01", "ses-2_T1w ses-10_T1w", TOGETHER),
        (["T1w", "ses-a_T1w"], "sub-01", "T1w ses-a_T1w", f"the session without a label, ses-a {TOGETHER}"),
        (["ses-b_run-2_T1w", "ses-b_run-1_T1w", "ses-a_T1w"], "sub-01", "ses-a_T1w ses-b_run-1_T1w ses-b_run-2_T1w", TOGETHER),
        (["ses-a_T1w"], "sub-01_ses-a", "ses-a_T1w", ""),
        (["ses-a_T2w", "ses-b_T1w", "ses-c_T1w"], "sub-01", "ses-b_T1w ses-c_T1w", "sub-01_ses-a: not averaged with ses-b: it has T2w images, not T1w images"),
        (["ses-a_acq-A_T1w", "ses-b_acq-B_T1w"], "sub-01_ses-a", "ses-a_acq-A_T1w", "sub-01_ses-b: not averaged with ses-a: it has acq-B_T1w images"),
        (["ses-a_T1w", "ses-b_T1w", f"ses-b_{LESION}"], "sub-01_ses-a", "ses-a_T1w", "sub-01_ses-b: not averaged with ses-a: it has lesion masks"),
        (["ses-a_T1w", f"ses-a_{LESION}", "ses-b_T1w"], "sub-01", "ses-a_T1w ses-b_T1w", TOGETHER),
        (["ses-a_T2w", "ses-b_T2w"], "sub-01", "ses-a_T2w ses-b_T2w", TOGETHER),
    ],
)  # fmt: skip
def test_images_and_label_of_combined_sessions(tmp_path, names, label, images, said):
    found = read_dataset(write(tmp_path, *names)).scans
    (scan,), notes = combine_sessions(found, {"01"})
    assert scan.label == label
    assert [path.name for path in scan.images] == [f"sub-01_{x}.nii.gz" for x in images.split()]
    assert said in "\n".join(summarize(notes))
    assert [path.name for path in scan.lesions] == [
        f"sub-01_{name}.nii.gz" for name in names if name == f"ses-a_{LESION}"
    ]


def test_other_images_are_those_of_the_first_session_that_has_them(tmp_path):
    names = ["ses-a_T1w", "ses-a_FLAIR", "ses-b_T1w", "ses-b_FLAIR", "ses-b_T2w"]
    found = read_dataset(write(tmp_path, *names), others=True).scans
    (scan,), notes = combine_sessions(found, {"01"})
    assert [other.path.name for other in scan.others] == [
        "sub-01_ses-a_FLAIR.nii.gz",
        "sub-01_ses-b_T2w.nii.gz",
    ]
    assert "sub-01_ses-b_FLAIR.nii.gz: not aligned" in "\n".join(summarize(notes))


def test_other_participants_and_unusable_sessions(tmp_path):
    root = write(tmp_path, "ses-a_T1w", "ses-b_T1w", "ses-c_T1w.bad")
    found = read_dataset(root).scans
    assert combine_sessions(found, set()) == (found, [])
    assert [scan.problem for scan in found if not scan.images]
    (scan,), notes = combine_sessions(found, {"01"})
    assert scan.sessions == ("a", "b")
    assert any(note.warning and note.about == "sub-01_ses-c" for note in notes)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["ses-1_acq-A_T1w", "ses-2_acq-B_run-2_T1w"], "(1: acq-A_T1w, 2: acq-B_T1w)"),
        (["T1w", "ses-2_acq-B_T1w"], "(none: T1w, 2: acq-B_T1w)"),
        (["ses-1_acq-A_T1w", "ses-2_acq-A_run-1_T1w"], ""),
    ],
)
def test_sessions_of_different_kinds_are_reported_unless_combined(tmp_path, names, said):
    found = read_dataset(write(tmp_path, *names)).scans
    different = "images of different kinds are used in its sessions"
    _, notes = combine_sessions(found, set())
    assert [f"sub-01: {different} {said}" in line for line in summarize(notes)] == [True] * bool(
        said
    )
    _, notes = combine_sessions(found, {"01"})
    assert different not in "\n".join(summarize(notes))
