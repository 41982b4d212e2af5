"""The group level as its user calls it, on coarse bodies whose shapes are known."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from bids_fcnreg import __version__
from bids_fcnreg.app.group import _of_one_suffix
from bids_fcnreg.bids.results import Result
from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.cli import bids_app
from bids_fcnreg.io.itk import read_transform
from tests.app.bodies import QUICK, SPACE, body, read_table, scan_path, write_study

pytestmark = pytest.mark.slow

SPACING = 4.5

NO_IMAGE = "no T1w, UNIT1, T2w, FLAIR or PDw image"

#: Size relative to the template of each participant.
SIZES = {"01": 1.04, "02": 1.1, "03": 1.16, "04": 1.22}


def volume(nifti: nib.Nifti1Image) -> float:
    return float(np.count_nonzero(nifti.get_fdata()) * abs(np.linalg.det(nifti.affine)))


def call(study: SimpleNamespace, level: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(study, level, *words), capture_output=True, text=True)


def command(study: SimpleNamespace, level: str, *words: object) -> list[str]:
    given = [study.bids, study.out, level, "-w", study.folder / "work", *QUICK, *words]
    given += ["--template", study.template]
    return [sys.executable, "-m", "bids_fcnreg", *map(str, given)]


def cache_of(study: SimpleNamespace) -> Path:
    return study.folder / "work" / f"bids_fcnreg-{__version__}"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SimpleNamespace:
    """Four bodies that are registered, a fifth that cannot be read, and one without a T1w."""
    folder = tmp_path_factory.mktemp("group")
    scans = {
        f"sub-{label}": body(SPACING, size, 0.2 * number - 0.3, seed=number)
        for number, (label, size) in enumerate(SIZES.items())
    }
    study = write_study(folder, "Bodies & more", SPACING, scans)
    scan_path(study.bids, "sub-05").write_text("no image")
    (study.bids / "sub-06" / "anat").mkdir(parents=True)
    (study.bids / "sub-06" / "anat" / "sub-06_T2map.nii.gz").touch()
    people = "participant_id\tage\tsex\nsub-01\t31\tf\nsub-03\t42\tm\nsub-05\t50\tf\n"
    (study.bids / "participants.tsv").write_text(people)
    done = call(study, "participant", "--atlas", study.atlas)
    assert done.returncode == 1, done.stdout + done.stderr
    return study


@pytest.fixture(scope="module")
def report(study) -> SimpleNamespace:
    done = call(study, "group")
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(
        group=study.out / "group",
        printed=done.stdout,
        page=(study.out / "group.html").read_text(encoding="utf-8"),
        quality=read_table(study.out / "group" / f"space-{SPACE}_quality.tsv"),
    )


def test_all_scans_are_in_the_quality_table(study, report):
    rows = {row["participant_id"]: row for row in report.quality}
    assert list(rows) == [f"sub-0{n}" for n in range(1, 7)]
    assert [row["status"] for row in report.quality] == ["done"] * 4 + ["failed", "missing"]
    assert "sub-05_T1w.nii.gz cannot be read" in rows["sub-05"]["reason"]
    assert rows["sub-06"]["reason"] == NO_IMAGE
    assert (rows["sub-03"]["age"], rows["sub-03"]["sex"]) == ("42", "m")
    assert rows["sub-02"]["age"] == "n/a"
    for label in SIZES:
        name = f"sub-{label}_from-T1w_to-{SPACE}_mode-image_desc-quality_xfm.json"
        numbers = json.loads((study.out / f"sub-{label}" / "anat" / name).read_text())
        assert float(rows[f"sub-{label}"]["similarity"]) == numbers["similarity"]
        assert 0.8 < float(rows[f"sub-{label}"]["mean_correlation"]) <= 1
        assert 0.9 < float(rows[f"sub-{label}"]["mask_overlap"]) <= 1


def test_volumes_are_those_of_the_scans(study, report):
    rows = read_table(report.group / f"space-{SPACE}_atlas-atlas_volumes.tsv")
    for row in rows[:4]:
        label = row["participant_id"]
        own = study.out / label / "anat" / f"{label}_atlas-atlas_desc-{SPACE}Volumes_dseg.tsv"
        for region in read_table(own):
            assert float(row[region["name"]]) == float(region["volume_mm3"])
        mask = nib.load(study.out / label / "anat" / f"{label}_desc-brain_mask.nii.gz")
        assert float(row["brain_mask"]) == pytest.approx(volume(mask), rel=1e-6)
    assert [row["rest"] for row in rows[4:]] == ["n/a", "n/a"]
    dictionary = json.loads((report.group / f"space-{SPACE}_atlas-atlas_volumes.json").read_text())
    assert set(dictionary) == set(rows[0])


def test_mean_images_are_those_of_all_scans(study, report):
    for ending, mean in (("desc-preproc_T1w", "T1w"), ("logjacobian_xfm", "logjacobian")):
        files = sorted(study.out.glob(f"sub-*/anat/*{SPACE}*{ending}.nii.gz"))
        assert len(files) == 4
        values = np.stack([nib.load(path).get_fdata() for path in files])
        for what, expected in (("mean", values.mean(0)), ("sd", values.std(0, ddof=1))):
            made = nib.load(report.group / f"space-{SPACE}_desc-{what}_{mean}.nii.gz")
            np.testing.assert_allclose(made.get_fdata(), expected, atol=1e-3)


@pytest.fixture
def judged(study) -> dict[str, Path]:
    """Quality files by label: sub-02 failed, sub-03 doubtful, the others good; for one test."""
    name = f"from-T1w_to-{SPACE}_mode-image_desc-quality_xfm.json"
    files = {label: study.out / f"sub-{label}/anat/sub-{label}_{name}" for label in SIZES}
    before = {path: path.read_bytes() for path in files.values()}
    for label, path in files.items():
        verdict = {"02": "failed", "03": "doubtful"}.get(label, "good")
        reason = None if verdict == "good" else f"made {verdict}"
        content = json.loads(before[path]) | {"verdict": verdict, "verdict_reason": reason}
        path.write_text(json.dumps(content))
    yield files
    for path, content in before.items():
        path.write_bytes(content)


@pytest.fixture
def judged_report(study, report, judged) -> SimpleNamespace:
    """What the group level makes of these, the last one with another version of the template."""
    content = json.loads(judged["04"].read_text())
    (uri,) = [uri for uri in content["SourcesSHA256"] if uri.endswith(study.template.name)]
    for field in ("SourcesSHA256", "SourcesUncompressedSHA256"):
        if uri in content.get(field, {}):
            content[field][uri] = "0" * 64
    judged["04"].write_text(json.dumps(content))
    done = call(study, "group")
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(
        printed=done.stdout, page=(study.out / "group.html").read_text(encoding="utf-8")
    )


def test_failed_and_other_registrations_are_reported(study, report, judged_report):
    for told in (judged_report.printed, judged_report.page):
        assert "1 excluded from the mean images (failed): sub-02" in told
    assert "1 in the mean images (doubtful): sub-03" in judged_report.printed
    files = sorted(study.out.glob(f"sub-*/anat/*{SPACE}*desc-preproc_T1w.nii.gz"))
    values = [nib.load(path).get_fdata() for path in files if "sub-02" not in path.name]
    made = nib.load(study.out / f"group/space-{SPACE}_desc-mean_T1w.nii.gz")
    np.testing.assert_allclose(made.get_fdata(), np.mean(values, axis=0), atol=1e-3)
    for name in ("atlas-atlas_volumes", "quality"):
        rows = read_table(study.out / f"group/space-{SPACE}_{name}.tsv")
        told = [row["verdict"] for row in rows]
        assert told == ["good", "failed", "doubtful", "good", "n/a", "n/a"]
    assert "different versions" not in report.printed
    assert f"different versions of {study.template.name}" in judged_report.printed
    assert "version 1: sub-01, sub-02, sub-03; version 2: sub-04" in judged_report.printed


def test_report_shows_all_scans_and_links_existing_files(study, report):
    assert "<h1>Bodies &amp; more</h1>" in report.page
    assert "4 of 6 scans registered" in report.page
    assert "sub-05 (failed): " in report.page
    assert f"sub-06 (missing): {NO_IMAGE}" in report.page
    links = set(re.findall(r'href="([^"#]+)"', report.page))
    assert links == {"group/", *(f"sub-{label}.html" for label in SIZES)}
    assert all((study.out / link).exists() for link in links)
    assert report.page.count("data:image/png;base64,") == 2
    assert f"1 missing ({NO_IMAGE}): sub-06" in report.printed


def test_damaged_results_are_excluded_from_the_report(study, report):
    damaged = study.out / f"sub-02/anat/sub-02_space-{SPACE}_desc-preproc_T1w.nii.gz"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    mask = study.out / f"sub-03/anat/sub-03_space-{SPACE}_desc-brain_mask.nii.gz"
    nifti, whole = nib.load(mask), mask.read_bytes()
    coarse = nifti.slicer[::2, ::2, ::2]
    coarse.to_filename(mask)
    done = call(study, "group")
    damaged.write_bytes(content)
    mask.write_bytes(whole)
    sentence = f"{damaged} is damaged. Run the participant level for it again"
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"1 failed ({sentence}): sub-02" in done.stdout
    assert f"1 failed ({mask} is not on the grid of the others. Run" in done.stdout
    rows = read_table(study.out / "group" / f"space-{SPACE}_quality.tsv")
    assert [row["status"] for row in rows[:4]] == ["done", "failed", "failed", "done"]
    assert rows[1]["reason"] == sentence


def test_template_without_results_is_refused(study):
    words = command(study, "group")
    words[words.index("--template") + 1] = "MNI152NLin2009aSym:res-1"
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"no results in the space of MNI152NLin2009aSym, only in {SPACE}" in done.stderr


def test_group_level_requires_participant_level_results(study, tmp_path):
    empty = SimpleNamespace(**vars(study) | {"out": tmp_path / "out", "folder": tmp_path})
    done = call(empty, "group")
    assert done.returncode == 2
    assert "holds no participant-level results" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


WORDS = ["--group-task", "template", "--template-iterations", 2]


@pytest.fixture(scope="module")
def template(study) -> Path:
    """The study template, killed on the way and gone on with."""
    words = [*WORDS, "--template-name", "Bodies"]
    started = subprocess.Popen(
        command(study, "group", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    begun = cache_of(study) / "template_wf/Bodies/iteration_1/shape"
    while not begun.exists():
        assert started.poll() is None, started.communicate()
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.communicate()
    time.sleep(1)  # for the nodes that it leaves behind
    kept = begun.parents[1] / "start" / "mean" / "T1w.nii.gz"
    before = kept.stat().st_mtime_ns
    done = call(study, "group", *words)
    assert done.returncode == 1, done.stdout + done.stderr  # two scans are not there
    assert "Skipped, no preprocessed T1w image: sub-05, sub-06" in done.stdout
    assert kept.stat().st_mtime_ns == before
    return study.out / "tpl-Bodies"


def test_a_study_template_is_a_template(study, template):
    found = resolve_template(str(template))
    assert found.name == found.space == "Bodies"
    assert found.t1w.name == "tpl-Bodies_res-01_T1w.nii.gz"
    assert found.mask == template / "tpl-Bodies_res-01_desc-brain_mask.nii.gz"
    maps = [nib.load(template / f"tpl-Bodies_res-01_label-{k}_probseg.nii.gz") for k in TISSUES]
    total = sum(one.get_fdata() for one in maps)
    mask = nib.load(found.mask).get_fdata()
    np.testing.assert_allclose(total[mask > 0], 1, atol=0.02)
    assert not total[mask == 0].any()
    description = json.loads((template / "template_description.json").read_text())
    assert description["Identifier"] == "Bodies"
    assert description["Scans"] == [f"sub-{label}" for label in SIZES]
    rows = read_table(study.out / "group" / "tpl-Bodies_iterations.tsv")
    # The start finds how much larger than the other template they are.
    assert float(rows[0]["moved_mm"]) > 4
    assert all(float(row["bias_mm"]) < 0.1 * SPACING for row in rows)
    assert (study.out / "group" / "tpl-Bodies_iterations.png").exists()


def test_the_validator_finds_no_error(study, report, template):
    assert "tpl-*" not in (study.out / ".bidsignore").read_text()
    validator = Path(sys.executable).with_name("bids-validator-deno")
    words = [validator, study.out, "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert not [one for one in issues if one.get("severity") == "error"]
    assert not [one for one in issues if one["location"].startswith("/tpl-")]


TISSUES = ("CSF", "GM", "WM")


def test_study_template_has_the_mean_size_of_the_study(template):
    mean = np.exp(np.mean(np.log(list(SIZES.values()))))
    found = volume(nib.load(template / "tpl-Bodies_res-01_desc-brain_mask.nii.gz"))
    assert found / volume(body(SPACING)) == pytest.approx(mean**3, rel=0.1)  # 1.44


def test_study_template_transforms_align_every_scan(study, template):
    reference = template / "tpl-Bodies_res-01_T1w.nii.gz"
    mask = nib.load(template / "tpl-Bodies_res-01_desc-brain_mask.nii.gz").get_fdata() > 0
    average = nib.load(reference).get_fdata()[mask]
    for label in SIZES:
        anat = study.out / f"sub-{label}" / "anat"
        forward = anat / f"sub-{label}_from-T1w_to-Bodies_mode-image_xfm.h5"
        native = sitk.ReadImage(str(anat / f"sub-{label}_desc-preproc_T1w.nii.gz"))
        warped = sitk.Resample(
            sitk.Cast(native, sitk.sitkFloat32),
            sitk.ReadImage(str(reference)),
            sitk.ReadTransform(str(forward)),
            sitk.sitkLinear,
        )
        values = sitk.GetArrayFromImage(warped).transpose(2, 1, 0)[mask]
        assert np.corrcoef(values, average)[0, 1] > 0.9
        inverse = anat / f"sub-{label}_from-Bodies_to-T1w_mode-image_xfm.h5"
        points = (
            np.argwhere(mask)[::40] @ np.diag([SPACING] * 3) + nib.load(reference).affine[:3, 3]
        )
        there = read_transform(forward).map(_tensor(points))
        back = read_transform(inverse).map(there).numpy()
        assert np.linalg.norm(back - points, axis=1).max() < 0.3 * SPACING


def _tensor(points: np.ndarray):
    import torch

    return torch.as_tensor(points)


def test_a_symmetric_template_that_keeps_its_scale(study):
    words = [*WORDS[:2], "--template-iterations", 1, "--template-name", "Even"]
    words += ["--template-symmetric", "--template-anchored"]
    done = call(study, "group", *words, "--participant-label", "01", "03")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = study.out / "tpl-Even"
    shown = nib.load(folder / "tpl-Even_res-01_T1w.nii.gz")
    values = shown.get_fdata()
    assert shown.affine[0, 3] == pytest.approx(-SPACING * (values.shape[0] - 1) / 2)
    np.testing.assert_allclose(values, values[::-1], atol=0.02 * values.max())
    found = volume(nib.load(folder / "tpl-Even_res-01_desc-brain_mask.nii.gz"))
    assert found / volume(body(SPACING)) == pytest.approx(1, rel=0.1)


def test_warm_start_continues_from_a_study_template(study, template):
    words = [*WORDS[:2], "--template-iterations", 1, "--template-name", "More"]
    given = command(study, "group", *words, "--template-warm-start")
    given[given.index(str(study.template))] = str(template)
    done = subprocess.run(given, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr  # two scans are not there
    assert not (cache_of(study) / "template_wf/More/start").exists()
    start, end = read_table(study.out / "group" / "tpl-More_iterations.tsv")
    assert start["bias_mm"] == start["change"] == "n/a"
    # It was near the mean of these scans already.
    linear = read_table(study.out / "group" / "tpl-Bodies_iterations.tsv")[0]
    assert float(end["moved_mm"]) < 0.5 * float(linear["moved_mm"])
    assert float(end["bias_mm"]) < 0.1 * SPACING


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--group-task", "template"], "requires a name"),
        ([*WORDS, "--template-name", "a-b"], "letters and digits only"),
        ([*WORDS, "--template-name", "A", "--template", "x.nii"], "Use --template once"),
    ],
)
def test_invalid_template_options_are_refused(study, words, sentence, capsys):
    try:
        code = bids_app.main(command(study, "group", *words)[3:])
    except SystemExit as ended:  # by the parser of arguments
        code = ended.code
    assert code == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1


def test_group_training_registers_all_scans_with_its_network(study):
    out = study.folder / "trained"
    shutil.copytree(study.out, out, ignore=shutil.ignore_patterns("tpl-*", "group*"))
    own = SimpleNamespace(**vars(study) | {"out": out})
    words = ["--group-task", "train", "--train-steps", 2, 1, 0]
    done = call(own, "group", *words, "--participant-label", "01", "02", "03", "04")
    assert done.returncode == 0, done.stdout + done.stderr
    card = json.loads((out / "group" / "network.json").read_text())
    assert card["images"] == {"trained_on": 4, "held_out": 0}
    assert card["started_from"]
    for label in SIZES:
        name = f"sub-{label}_from-T1w_to-{SPACE}_mode-image_desc-quality_xfm.json"
        assert (
            json.loads((out / f"sub-{label}" / "anat" / name).read_text())["weights"]
            == (card["sha256"])
        )
    again = call(own, "group", *words, "--participant-label", "01", "02", "03", "04")
    assert "already been trained" in again.stdout
    assert os.path.exists(out / "group" / "network_curves.tsv")


def test_only_images_of_one_contrast_are_averaged():
    names = [f"sub-0{n}_from-{suffix}_to-S_mode-image_desc-quality_xfm.json"
             for n, suffix in enumerate(("T1w", "T2w", "T1w"))]  # fmt: skip
    results = [
        Result(name[4:6], None, "S", Path(name), *[Path("x.nii.gz")] * 4, {}) for name in names
    ]
    used, others = _of_one_suffix(results)
    assert [one.label for one in used] == ["sub-00", "sub-02"]
    assert [(one.label, one.suffix) for one in others] == [("sub-01", "T2w")]
