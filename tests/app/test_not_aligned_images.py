"""Images of a session that are not aligned: their lesion masks, and outdated results of earlier runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bids_fcnreg.app.other_images import (
    alignment_warnings,
    remove_outdated_figures,
    used_lesions,
)
from bids_fcnreg.bids.scan import OtherImage, Scan

LEFT = (
    "from-FLAIR_to-T1w_mode-image_xfm.txt",
    "from-T1w_to-FLAIR_mode-image_xfm.txt",
    "space-Bodies_desc-preproc_FLAIR.nii.gz",
    "space-T1w_desc-preproc_FLAIR.nii.gz",
)
KEPT = (
    "from-Bodies_to-T1w_mode-image_xfm.h5",
    "from-T2w_to-T1w_mode-image_xfm.txt",
    "space-Bodies_desc-preproc_T1w.nii.gz",
    "space-T1w_desc-preproc_T2w.nii.gz",
    "acq-A_space-T1w_desc-preproc_FLAIR.nii.gz",
)
QUALITY = "from-FLAIR_to-T1w_mode-image_desc-alignment_xfm.json"


def other(ending: str) -> OtherImage:
    mask = Path(f"sub-01_{ending}_label-lesion_roi.nii.gz")
    return OtherImage(Path(f"sub-01_{ending}.nii.gz"), (mask,))


def scan(*endings: str) -> Scan:
    return Scan("01", None, (Path("sub-01_T1w.nii.gz"),), others=tuple(map(other, endings)))


@pytest.fixture
def results(tmp_path) -> Path:
    """Results of a T1w image, a T2w, a FLAIR and another FLAIR image of an earlier run."""
    anat, figures = tmp_path / "sub-01/anat", tmp_path / "sub-01/figures"
    for folder in (anat, figures):
        folder.mkdir(parents=True)
    for ending in (*LEFT, *KEPT):
        (anat / f"sub-01_{ending}").touch()
    for suffix in ("FLAIR", "T2w"):
        for ending in (f"desc-aligned_{suffix}.png", f"desc-alignment_{suffix}.html"):
            (figures / f"sub-01_space-T1w_{ending}").touch()
        judge(tmp_path, suffix, "good")
    judge(tmp_path, "acq-A_FLAIR", "good")
    return tmp_path


def judge(results: Path, ending: str, verdict: str) -> None:
    entities, _, suffix = f"_{ending}".rpartition("_")
    name = f"sub-01{entities}_from-{suffix}_to-T1w_mode-image_desc-alignment_xfm.json"
    content = {"verdict": verdict, "verdict_reason": "why" if verdict == "failed" else None}
    (results / "sub-01/anat" / name).write_text(json.dumps(content))


def figures(results: Path) -> list[str]:
    return sorted(path.name.split("_")[-2:] for path in results.glob("sub-01/figures/*"))


def test_results_of_aligned_images_are_not_outdated(results):
    everything = scan("T2w", "FLAIR", "acq-A_FLAIR")
    assert alignment_warnings(results, everything) == []
    before = figures(results)
    remove_outdated_figures(results, everything)
    assert figures(results) == before
    assert len(used_lesions(results, everything)) == 3


def test_results_of_an_image_that_was_removed_are_named(results):
    rest = scan("T2w", "acq-A_FLAIR")
    (warning,) = alignment_warnings(results, rest)
    assert all(f"sub-01_{name}" in warning for name in (QUALITY, *LEFT))
    assert not any(name in warning for name in KEPT)
    remove_outdated_figures(results, rest)
    assert figures(results) == [["desc-aligned", "T2w.png"], ["desc-alignment", "T2w.html"]]


def test_results_of_an_image_that_cannot_be_aligned_now_are_named(results):
    judge(results, "FLAIR", "failed")
    everything = scan("T2w", "FLAIR", "acq-A_FLAIR")
    why, left = alignment_warnings(results, everything)
    assert "FLAIR.nii.gz is not aligned, nor are its lesion masks used: why" in why
    assert all(f"sub-01_{name}" in left for name in LEFT) and QUALITY not in left
    remove_outdated_figures(results, everything)
    assert ["desc-alignment", "FLAIR.html"] in figures(results)  # tells that it failed
    assert ["desc-aligned", "FLAIR.png"] not in figures(results)
    used = [path.name for path in used_lesions(results, everything)]
    assert used == [f"sub-01_{one}_label-lesion_roi.nii.gz" for one in ("T2w", "acq-A_FLAIR")]


def test_results_relative_to_another_reference_are_outdated(results):
    """Before there was a T1w image, the FLAIR image was aligned to the T2w."""
    before = "from-FLAIR_to-T2w_mode-image"
    anat = results / "sub-01/anat"
    judged = anat / f"sub-01_{before}_desc-alignment_xfm.json"
    judged.write_text('{"verdict": "good", "verdict_reason": null}')
    for name in (f"{before}_xfm.txt", "space-T2w_desc-preproc_FLAIR.nii.gz"):
        (anat / f"sub-01_{name}").touch()
    everything = scan("T2w", "FLAIR", "acq-A_FLAIR")
    (warning,) = alignment_warnings(results, everything)
    named = warning.removeprefix("warning: ").partition(": ")[0].split(", ")
    assert sorted(named) == sorted(
        [judged.name, f"sub-01_{before}_xfm.txt", "sub-01_space-T2w_desc-preproc_FLAIR.nii.gz"]
    )
    before_removal = figures(results)
    remove_outdated_figures(results, everything)
    assert figures(results) == before_removal


def test_results_of_the_registered_image_are_not_outdated(results):
    """The T2w image is registered now, in place of a T1w image that was removed."""
    for name in ("from-T2w_to-Bodies_mode-image_xfm.h5", "space-Bodies_desc-preproc_T2w.nii.gz"):
        (results / f"sub-01/anat/sub-01_{name}").touch()
    now = Scan("01", None, (Path("sub-01_T2w.nii.gz"),))
    assert not any("to-Bodies" in text for text in alignment_warnings(results, now))
