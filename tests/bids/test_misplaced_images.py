"""Images that do not belong to a scan are named, with the reason, and are not used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.filters import read_filter_file
from bids_fcnreg.bids.notes import summarize
from bids_fcnreg.errors import InputError


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


def notes(root: Path, *participants: str, sessions: tuple[str, ...] = ()) -> str:
    return "\n".join(summarize(read_dataset(root, participants, sessions).notes))


GOOD = "sub-01/anat/sub-01_T1w.nii.gz"
IN_SESSION = "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"


@pytest.mark.parametrize(
    ("good", "stray", "reason"),
    [
        (GOOD, "sub-01_bad/anat/sub-01_T1w.nii.gz", "not in a directory sub-LABEL"),
        (GOOD, "sub-01-old/anat/sub-01_T1w.nii.gz", "not in a directory sub-LABEL"),
        (GOOD, "sub-01.bak/anat/sub-01_T1w.nii.gz", "not in a directory sub-LABEL"),
        (GOOD, "sub-01 (copy)/anat/sub-01_T1w.nii.gz", "not in a directory sub-LABEL"),
        (GOOD, "Sub-01/anat/sub-01_T1w.nii.gz", "not in a directory sub-LABEL"),
        (GOOD, "sub_01/anat/sub-01_T1w.nii.gz", "not in a directory sub-LABEL"),
        (IN_SESSION, "sub-01/ses-1_rescan/anat/sub-01_ses-1_T1w.nii.gz", "not ses-LABEL"),
        (IN_SESSION, "sub-01/ses-1.bak/anat/sub-01_ses-1_T1w.nii.gz", "not ses-LABEL"),
        (IN_SESSION, "sub-01/Ses-1/anat/sub-01_ses-1_T1w.nii.gz", "not ses-LABEL"),
        (
            IN_SESSION,
            "sub-01/ses-1/old/anat/sub-01_ses-1_T1w.nii.gz",
            "not directly in the anat directory",
        ),
        (GOOD, "sub-01/anat/old/sub-01_T1w.nii.gz", "not directly in the anat directory"),
        (GOOD, "sub-01/anat/@eaDir2/sub-01_T1w.nii.gz", "not directly in the anat directory"),
        (GOOD, "sub-01/anat_old/sub-01_T1w.nii.gz", "not directly in the anat directory"),
        (GOOD, "sub-01/func/sub-01_T1w.nii.gz", "not directly in the anat directory"),
        (GOOD, "sub-01/sub-01_T1w.nii.gz", "not directly in the anat directory"),
        (GOOD, "sub-01_T1w.nii.gz", "not in a directory sub-LABEL"),
        (GOOD, "sub-01/anat/sub-02_T1w.nii.gz", "does not begin with the participant"),
        (GOOD, "sub-01/anat/sub-1_T1w.nii.gz", "does not begin with the participant"),
        (GOOD, "sub-01/anat/T1w.nii.gz", "does not begin with the participant"),
        (GOOD, "sub-01/anat/sub-01_ses-1_T1w.nii.gz", "session in its name differs"),
        (IN_SESSION, "sub-01/ses-1/anat/sub-01_T1w.nii.gz", "session in its name differs"),
        (IN_SESSION, "sub-01/ses-1/anat/sub-01_ses-2_T1w.nii.gz", "session in its name differs"),
        (GOOD, "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz", "desc- marks a derived image"),
        (GOOD, "sub-01/anat/sub-01_space-MNI_T1w.nii.gz", "space- marks a derived image"),
        (GOOD, "sub-01/anat/sub-01_res-2_T1w.nii.gz", "res- marks a derived image"),
        (GOOD, "sub-01/anat/sub-01_label-brain_T1w.nii.gz", "label- marks a derived image"),
        (GOOD, "sub-01/anat/sub-01_T1w_old.nii.gz", "not of the form ENTITY-LABEL"),
        (GOOD, "sub-01/anat/sub-01_T1w (1).nii.gz", "does not end in _T1w"),
        (GOOD, "sub-01/anat/sub-01_t1w.nii.gz", "does not end in _T1w"),
        (GOOD, "sub-01/anat/sub-01_T1w.NII.GZ", "extension is not written"),
        (GOOD, "sub-01/anat/sub-01_acq-my.scan_T1w.nii.gz", "label of acq- has characters other"),
        (GOOD, "sub-01/anat/sub-01_acq-A_acq-B_T1w.nii.gz", "entity acq- twice"),
        (GOOD, "sub-01/anat/sub-01_run-a_T1w.nii.gz", "label of run- is not a number"),
        (GOOD, "sub-01/anat/sub-01_part-foo_T1w.nii.gz", "label of part- is not one of mag"),
        (GOOD, "sub-01/anat/sub-01_foo-1_T1w.nii.gz", "foo- is not an entity of BIDS"),
    ],
)
@pytest.mark.parametrize("participants", [(), ("01",)])
def test_misplaced_image_is_reported_and_not_used(tmp_path, good, stray, reason, participants):
    root = make(tmp_path, good, stray, "sub-02/anat/sub-02_T1w.nii.gz")
    scans = read_dataset(root, participants).scans
    assert [scan.images for scan in scans] == [
        (root / good,),
        *([] if participants else [(root / "sub-02/anat/sub-02_T1w.nii.gz",)]),
    ]
    (line,) = [line for line in notes(root, *participants).splitlines() if stray in line]
    assert line.startswith(f"warning: {stray}: ") and reason in line


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/anat/sub-01_acq-a+b_T1w.nii.gz",
        "sub-a+b/anat/sub-a+b_T1w.nii.gz",
        "sub-01/ses-1+2/anat/sub-01_ses-1+2_run-03_T1w.nii",
        "sub-01/anat/sub-01_run-1_acq-A_T1w.nii.gz",
        "sub-01/anat/sub-01_task-rest_acq-A_ce-gad_rec-norm_run-1_echo-2_part-mag_T1w.nii.gz",
    ],
)
def test_valid_names_are_used_without_a_note(tmp_path, name):
    root = make(tmp_path, name)
    assert [scan.images for scan in read_dataset(root).scans] == [(root / name,)]
    assert notes(root) == ""


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/anat/sub-01_acq-T1w_T2w.nii.gz",
        "sub-01/anat/sub-01_T1w_defacemask.nii.gz",
        "sub-01/anat/sub-01_T1map.nii.gz",
        "sub-01/anat/sub-01_T1w.json",
        "sub-01/anat/._sub-01_T1w.nii.gz",
        "sub-01/.old/sub-01_T1w.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz",
    ],
)
def test_other_images_are_not_reported(tmp_path, name):
    assert notes(make(tmp_path, GOOD, name)) == ""


def test_participant_with_only_misnamed_images_fails_alone(tmp_path):
    root = make(
        tmp_path,
        "sub-01/anat/sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-03/ses-1/anat/sub-03_ses-1_T1w.nii.gz",
        "sub-03/ses-2/anat/sub-03_ses-1_T1w.nii.gz",
        "sub-04/anat/old/sub-04_T1w.nii.gz",
        "sub-05/func/sub-05_task-rest_bold.nii.gz",
        "sub-06/ses-1/anat/sub-06_ses-1_T1w.nii.gz",
        "sub-06/ses-2/anat/sub-06_ses-2_t1w.nii.gz",
    )
    scans = {scan.label: scan for scan in read_dataset(root).scans}
    assert {label for label, scan in scans.items() if scan.images} == {
        "sub-02",
        "sub-03_ses-1",
        "sub-06_ses-1",
    }
    assert scans["sub-02"].images == (root / "sub-02/anat/sub-02_T1w.nii.gz",)
    for label, words in (
        ("sub-01", "sub-01/anat/sub-02_T1w.nii.gz is not used: its name does not begin"),
        ("sub-03_ses-2", "sub-03/ses-2/anat/sub-03_ses-1_T1w.nii.gz is not used: the session"),
        ("sub-06_ses-2", "sub-06/ses-2/anat/sub-06_ses-2_t1w.nii.gz is not used: its name does"),
        ("sub-04", "sub-04/anat/old/sub-04_T1w.nii.gz is not used: it is not directly"),
    ):
        assert scans[label].problem.startswith(words)
    assert scans["sub-05"].problem == ""
    with pytest.raises(
        InputError, match=r"no usable T1w image.*sub-01/anat/sub-02_T1w.nii.gz is not use"
    ):
        read_dataset(root, ["01"])


def test_thousands_of_misplaced_images_take_one_line(tmp_path):
    names = [f"sub-{n:04d}/anat/old/sub-{n:04d}_T1w.nii.gz" for n in range(2000)]
    root = make(tmp_path, GOOD, *names)
    said = notes(root)
    assert said.count("\n") == 1 and "and 1997 more" in said


def test_lesion_masks_follow_the_same_rules(tmp_path):
    mask = "sub-01/anat/sub-01_label-lesion_mask.nii.gz"
    stray = [
        "sub-01/anat/sub-02_label-lesion_mask.nii.gz",
        "sub-01/anat/old/sub-01_label-lesion_mask.nii.gz",
        "sub-01/anat/sub-01_space-MNI_label-lesion_roi.nii.gz",
        "sub-01_bad/anat/sub-01_label-lesion_roi.nii.gz",
        "sub-01/anat/sub-01_desc-lesion_mask.nii.gz",
        "sub-01/anat/sub-01_lesion_mask.nii.gz",
    ]
    root = make(tmp_path, GOOD, mask, *stray)
    (scan,) = read_dataset(root).scans
    assert scan.lesions == (root / mask,)
    said = "\n".join(summarize(read_dataset(root).notes, 100))
    assert all(name in said for name in stray)


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ("sub-01/anat/sub-01_acq-B_T1w.nii.gz", ["sub-01_acq-A_T1w.nii.gz"]),
        ("*_acq-A_*", ["sub-01_acq-B_T1w.nii.gz"]),
        ("**/sub-01_acq-A*\n!*", ["sub-01_acq-A_T1w.nii.gz"]),
        ("# nothing\n\n", ["sub-01_acq-A_T1w.nii.gz"]),
    ],
)
def test_bidsignore_excludes_images(tmp_path, patterns, left):
    names = [f"sub-01/anat/sub-01_acq-{one}_T1w.nii.gz" for one in "AB"]
    root = make(tmp_path, *names)
    (root / ".bidsignore").write_text(patterns)
    assert [path.name for path in read_dataset(root).scans[0].images] == left
    assert ("excludes it" in notes(root)) == ("acq" in patterns and "!" not in patterns)


def test_bidsignore_excludes_participants_and_silences_warnings(tmp_path):
    root = make(
        tmp_path, GOOD, "sub-02/anat/sub-02_T1w.nii.gz", "sub-01_bad/anat/sub-01_T1w.nii.gz"
    )
    (root / ".bidsignore").write_text("sub-02/\nsub-*_bad\n")
    assert [scan.label for scan in read_dataset(root).scans] == ["sub-01"]
    assert "warning" not in notes(root)
    with pytest.raises(InputError, match=r"Participant 02 is excluded by .*bidsignore"):
        read_dataset(root, ["02"])


@pytest.mark.parametrize(
    "description",
    [
        {"DatasetType": "derivative"},
        {"DatasetType": "Derivatives"},
        {"PipelineDescription": {"Name": "fmriprep"}},
    ],
)
def test_derivatives_are_refused(tmp_path, description):
    root = make(tmp_path, GOOD)
    write(root / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.4.0", **description})
    with pytest.raises(InputError, match=r"holds derivatives .* Provide the raw BIDS dataset"):
        read_dataset(root)


def test_derivatives_that_do_not_say_so_are_refused(tmp_path):
    root = make(
        tmp_path,
        "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_res-2_desc-preproc_T1w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_desc-preproc_T1w.nii.gz",
    )
    with pytest.raises(InputError, match=r"holds only derived images, .* Provide the raw BIDS"):
        read_dataset(root)


def test_impossible_label_is_refused(tmp_path):
    root = make(tmp_path, GOOD)
    for label in ("a" * 5000, "", "x\0"):
        with pytest.raises(InputError, match="is not in"):
            read_dataset(root, [label])


def test_misplaced_images_of_other_sessions_are_ignored(tmp_path):
    root = make(
        tmp_path,
        IN_SESSION,
        "sub-01/anat/sub-02_T1w.nii.gz",
        "sub-01/ses-2/anat/sub-02_ses-2_T1w.nii.gz",
        "sub-01/ses-1_rescan/anat/sub-01_ses-1_T1w.nii.gz",
    )
    assert [scan.label for scan in read_dataset(root, sessions=["1"]).scans] == ["sub-01_ses-1"]
    said = notes(root, sessions=("1",))
    assert "ses-1_rescan" in said and "sub-02" not in said


def test_invalid_participant_directory_is_refused(tmp_path):
    root = make(tmp_path, GOOD, "sub-01_bad/anat/sub-01_T1w.nii.gz")
    with pytest.raises(
        InputError, match="sub-01_bad is not a valid name of a participant's directory"
    ):
        read_dataset(root, ["01_bad"])


def test_names_that_cannot_be_printed_are_escaped(tmp_path):
    root = make(tmp_path, "sub-02/anat/sub-02_T1w.nii.gz")
    (root / "sub-01/anat").mkdir(parents=True)
    for name in (b"sub-01_acq-\xff_T1w.nii.gz", b"sub-01_acq-\n_T1w.nii.gz"):
        Path(os.fsdecode(bytes(root / "sub-01/anat") + b"/" + name)).touch()
    assert r"sub-01_acq-\udcff_T1w.nii.gz" in notes(root) and r"acq-\n_T1w" in notes(root)
    assert "acq-" in read_dataset(root).scans[0].problem
    notes(root).encode()


def test_participant_filter_has_no_effect_and_is_reported(tmp_path):
    root = make(tmp_path, GOOD, "sub-02/anat/sub-02_T1w.nii.gz")
    filters = read_filter_file(write(tmp_path / "f.json", {"t1w": {"subject": "01"}}))
    dataset = read_dataset(root, filters=filters)
    assert len(dataset.scans) == 2
    assert "subject has no effect. Use --participant-label" in summarize(dataset.notes)[0]


def test_linked_folders_are_read_and_circles_are_not_followed(tmp_path):
    root = make(tmp_path / "in", GOOD)
    store = make(tmp_path / "store", "anat/sub-02_T1w.nii.gz")
    (root / "sub-02").symlink_to(store)
    (root / "sub-03").symlink_to(root / "sub-01")  # images of another participant
    (root / "sub-01" / "anat" / "circle").symlink_to(root)
    scans = {scan.label: scan for scan in read_dataset(root).scans}
    assert scans["sub-02"].images == (root / "sub-02/anat/sub-02_T1w.nii.gz",)
    assert scans["sub-03"].images == () and "does not begin" in scans["sub-03"].problem


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"session": "1"}, "the session 1: did you mean 01"),
        ({"session": 1}, "the session 1: did you mean 01"),
        ({"session": "ses-01"}, "the session ses-01: did you mean 01"),
        ({"acquisition": "mprage"}, "the acquisition mprage: did you mean MPRAGE"),
        ({"acquisition": "acq-MPRAGE"}, "did you mean MPRAGE"),
        ({"acquisition": "xyz"}, "they have MPRAGE"),
        ({"run": 7}, "the run 7: they have 1, 2"),
        ({"reconstruction": "norm"}, "none has reconstruction"),
        ({"acquisition": None}, "no acquisition: they have MPRAGE"),
        ({"ceagent": "*"}, "any ceagent: none has ceagent"),
        ({"extension": ".nii"}, "did you mean .nii.gz|they have .nii.gz"),
    ],
)
def test_a_filter_without_effect_gets_a_hint(tmp_path, query, words):
    root = make(
        tmp_path,
        *(f"sub-01/ses-01/anat/sub-01_ses-01_acq-MPRAGE_run-{n}_T1w.nii.gz" for n in (1, 2)),
    )
    filters = read_filter_file(write(tmp_path / "f.json", {"t1w": query}))
    with pytest.raises(InputError, match=words):
        read_dataset(root, filters=filters)


@pytest.mark.parametrize(
    ("query", "chosen"),
    [
        ({"run": 3}, "sub-01"),
        ({"run": [2, 3]}, "sub-01"),
        ({"acquisition": "B"}, "sub-02"),
        ({"acquisition": None}, "sub-01"),
        ({"extension": ".nii"}, "sub-02"),
    ],
)
def test_a_participant_without_a_matching_image_fails_because_of_the_filter(
    tmp_path, query, chosen
):
    root = make(
        tmp_path,
        *(f"sub-01/anat/sub-01_run-{n}_T1w.nii.gz" for n in (1, 3)),
        "sub-02/anat/sub-02_acq-B_run-1_T1w.nii",
    )
    filters = read_filter_file(write(tmp_path / "f.json", {"t1w": query}))
    scans = {scan.label: scan for scan in read_dataset(root, filters=filters).scans}
    problems = {label: scan.problem for label, scan in scans.items() if not scan.images}
    other = {"sub-01": "sub-02", "sub-02": "sub-01"}[chosen]
    assert problems == {other: "None of its T1w images matches the filters."}


def test_unmatched_filter_value_is_reported(tmp_path):
    root = make(tmp_path, IN_SESSION)
    path = write(tmp_path / "f.json", {"t1w": {"session": ["1", "01"]}, "roi": {"label": "x"}})
    said = summarize(read_dataset(root, filters=read_filter_file(path)).notes)
    assert said == [
        "warning: BIDS filter t1w: no image has the session 01: did you mean 1?",
        "BIDS filter roi has no effect: there is no lesion mask with a valid name",
    ]


def test_filters_choose_another_suffix(tmp_path):
    unit1 = "sub-01/anat/sub-01_UNIT1.nii.gz"
    root = make(tmp_path, GOOD, unit1)
    filters = read_filter_file(write(tmp_path / "f.json", {"t1w": {"suffix": "UNIT1"}}))
    assert [scan.images for scan in read_dataset(root, filters=filters).scans] == [(root / unit1,)]


@pytest.mark.parametrize("suffix", ["T2w", "PDw", "FLAIR"])
@pytest.mark.parametrize("query", [lambda one: one, lambda one: ["T1w", one]])
def test_an_image_of_another_contrast_is_reported(tmp_path, suffix, query):
    root = make(tmp_path, GOOD.replace("01", "02"), f"sub-01/anat/sub-01_{suffix}.nii.gz")
    path = write(tmp_path / "f.json", {"t1w": {"suffix": query(suffix)}})
    said = summarize(read_dataset(root, filters=read_filter_file(path)).notes)
    assert [line for line in said if "registered" in line] == [
        f"sub-01: the {suffix} image is registered"
    ]


LESION = "sub-01/anat/sub-01_label-lesion_roi.nii.gz"


@pytest.mark.parametrize(
    ("masks", "used"),
    [
        ([LESION], 1),
        (["sub-01/anat/sub-01_label-Lesion_mask.nii"], 1),
        (["sub-01/anat/sub-01_label-lesions_mask.nii"], 1),
        (["sub-01/anat/sub-01_label-lesion1_mask.nii", LESION], 2),
        (["sub-01/anat/sub-01_label-WM_mask.nii.gz", "sub-01/anat/sub-01_acq-lesion_T2w.nii"], 0),
    ],
)
def test_lesion_masks_are_used_without_a_note(tmp_path, masks, used):
    root = make(tmp_path, GOOD, *masks)
    (scan,) = read_dataset(root).scans
    assert len(scan.lesions) == used and notes(root) == ""


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("sub-01/anat/sub-01_lesion.nii.gz", "does not end in _roi or _mask"),
        ("sub-01/anat/sub-01_T1w_lesion.nii.gz", "does not end in _roi or _mask"),
        ("sub-01/anat/sub-01_lesionmask.nii", "does not end in _roi or _mask"),
        ("sub-01/anat/sub-01_label-L_desc-T1lesion_mask.nii.gz", "its label- is not lesion"),
        ("sub-01/anat/sub-01_label-nonlesion_mask.nii.gz", "its label- is not lesion"),
        ("sub-01/anat/sub-01_acq-lesion_label-WM_mask.nii.gz", "its label- is not lesion"),
        ("sub-01/anat/lesion_mask.nii.gz", "does not begin with the participant"),
        ("sub-01/lesion/sub-01_label-lesion_mask.nii", "not directly in the anat directory"),
        (
            "sub-01/ses-1/anat/sub-01_ses-1_label-lesion_roi.nii.gz",
            "no image of its session is registered",
        ),
    ],
)
def test_an_unused_lesion_mask_is_reported(tmp_path, mask, reason):
    root = make(tmp_path, GOOD, mask)
    assert read_dataset(root).scans[0].lesions == ()
    (line,) = [line for line in notes(root).splitlines() if "this lesion mask is not used" in line]
    assert line.startswith("warning: ") and Path(mask).name in line and reason in line


def test_a_lesion_mask_without_a_session_is_not_that_of_a_session(tmp_path):
    root = make(tmp_path, IN_SESSION, LESION)
    assert [scan.lesions for scan in read_dataset(root).scans] == [()]
    assert "no image of its session is registered" in notes(root)
    assert "lesion" not in notes(root, sessions=("1",))  # not asked for


@pytest.mark.parametrize(
    ("label", "used"),
    [
        ("stroke", ["stroke"]),
        (["stroke", "tumor"], ["stroke", "tumor"]),
        ("lesion", ["lesion"]),
        (["lesion", "tumor"], ["lesion", "tumor"]),
        ("*", ["lesion"]),
    ],
)
def test_a_filter_selects_lesion_masks_of_other_labels(tmp_path, label, used):
    masks = [f"sub-01/anat/sub-01_label-{one}_mask.nii" for one in ("lesion", "stroke", "tumor")]
    root = make(tmp_path, GOOD, *masks)
    filters = read_filter_file(write(tmp_path / "f.json", {"roi": {"label": label}}))
    (scan,) = read_dataset(root, filters=filters).scans
    assert [path.name.split("-")[2].split("_")[0] for path in scan.lesions] == used
