"""The whole way: phantoms in, derivatives out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from scipy import ndimage

pytestmark = pytest.mark.slow

SPACE = "MNI152NLin2009aSym"


def run_app(bids: Path, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "bids_fcnreg", str(bids), str(folder / "out"), "participant"]
    command += ["-w", str(folder / "work"), "--participant-label", "01", "--device", "cpu"]
    command += ["--nprocs", "2", "--skip-bids-validation", "--template", SPACE]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500)


@pytest.fixture(scope="session")
def derivatives(phantom_dataset, tmp_path_factory) -> SimpleNamespace:
    """One participant registered to the template of the phantoms in the default mode."""
    folder = tmp_path_factory.mktemp("end_to_end")
    done = run_app(phantom_dataset, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (cache,) = (folder / "work").glob("bids_fcnreg-*")
    return SimpleNamespace(
        bids=phantom_dataset,
        folder=folder,
        cache=cache,
        out=folder / "out",
        anat=folder / "out/sub-01/anat",
    )


def test_every_output_is_there_with_its_sidecar(derivatives):
    names = {
        path.name.removeprefix("sub-01_")
        for path in derivatives.anat.iterdir()
        if path.suffix != ".json" or "quality" in path.name
    }
    forward = f"from-T1w_to-{SPACE}_mode-image"
    labels = f"atlas-tissue_desc-{SPACE}"
    assert names == {
        "desc-preproc_T1w.nii.gz",
        "desc-brain_mask.nii.gz",
        f"{forward}_xfm.h5",
        f"from-{SPACE}_to-T1w_mode-image_xfm.h5",
        f"{forward}_desc-logjacobian_xfm.nii.gz",
        f"{forward}_desc-quality_xfm.json",
        f"space-{SPACE}_desc-preproc_T1w.nii.gz",
        f"space-{SPACE}_desc-brain_mask.nii.gz",
        f"{labels}_dseg.nii.gz",
        f"{labels}_dseg.tsv",
        f"{labels}Volumes_dseg.tsv",
        "dseg.nii.gz",
        "dseg.tsv",
        *(f"label-{tissue}_probseg.nii.gz" for tissue in ("GM", "WM", "CSF")),
        "desc-anatomy_dseg.nii.gz",
        "desc-anatomy_dseg.tsv",
        "desc-anatomyVolumes_dseg.tsv",
    }
    for path in derivatives.anat.iterdir():
        if path.suffix != ".json":
            sidecar = json.loads((path.parent / f"{path.name.split('.')[0]}.json").read_text())
            assert sidecar["Sources"], path
            known = ("bids:", "file:", "https://github.com/nilearn/")
            assert all(source.startswith(known) for source in sidecar["Sources"])
            assert set(sidecar["Sources"]) == set(sidecar["SourcesSHA256"])


def test_sources_lead_back_to_files(derivatives):
    sidecar = f"sub-01_space-{SPACE}_desc-preproc_T1w.json"
    content = json.loads((derivatives.anat / sidecar).read_text())
    for uri in content["Sources"]:
        assert (derivatives.out / uri.removeprefix("bids::")).exists(), uri
    assert len(content["Sources"]) == 2
    assert content["SkullStripped"] is False
    raw = json.loads((derivatives.anat / "sub-01_desc-preproc_T1w.json").read_text())["Sources"]
    assert raw and all((derivatives.bids / uri.removeprefix("bids:raw:")).exists() for uri in raw)


def test_validator_finds_neither_errors_nor_warnings(derivatives):
    command = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [str(command), str(derivatives.out), "--format", "json"], capture_output=True, text=True
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    # The authors of derivatives are those who make them: users add them.
    assert [issue for issue in issues if issue["code"] != "TOO_FEW_AUTHORS"] == []


def test_labels_in_names_are_explained(derivatives):
    rows = (derivatives.out / "descriptions.tsv").read_text().splitlines()
    names = [path.name for path in derivatives.anat.iterdir()]
    used = {part for name in names for part in name.split("_") if part.startswith("desc-")}
    assert used <= {row.split("\t")[0] for row in rows}
    for atlas in {part for name in names for part in name.split("_") if part.startswith("atlas-")}:
        content = json.loads((derivatives.out / f"{atlas}_description.json").read_text())
        assert {"AtlasName", "License"} <= set(content)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_itk_reproduces_our_resampling(derivatives, direction):
    anat = derivatives.anat
    native = sitk.ReadImage(str(anat / "sub-01_desc-preproc_T1w.nii.gz"), sitk.sitkFloat32)
    ours = anat / f"sub-01_space-{SPACE}_desc-preproc_T1w.nii.gz"
    if direction == "forward":
        transform = anat / f"sub-01_from-T1w_to-{SPACE}_mode-image_xfm.h5"
        resampled = sitk.Resample(
            native, sitk.ReadImage(str(ours)), sitk.ReadTransform(str(transform)), sitk.sitkLinear
        )
        truth = sitk.GetArrayFromImage(resampled).transpose(2, 1, 0)
        inside = nib.load(anat / f"sub-01_space-{SPACE}_desc-brain_mask.nii.gz").get_fdata() > 0
        difference = np.abs(nib.load(ours).get_fdata() - truth)[inside]
        contrast = np.percentile(truth[inside], 98)
        assert difference.mean() < 0.002 * contrast
        assert difference.max() < 0.05 * contrast
    else:
        transform = anat / f"sub-01_from-{SPACE}_to-T1w_mode-image_xfm.h5"
        labels = derivatives.cache / "templates"
        (atlas,) = labels.glob("*_seg-tissue_dseg.nii.gz")
        resampled = sitk.Resample(
            sitk.ReadImage(str(atlas)),
            native,
            sitk.ReadTransform(str(transform)),
            sitk.sitkNearestNeighbor,
        )
        truth = sitk.GetArrayFromImage(resampled).transpose(2, 1, 0)
        ours = anat / f"sub-01_atlas-tissue_desc-{SPACE}_dseg.nii.gz"
        values = np.asarray(nib.load(ours).dataobj)
        assert set(np.unique(values)) == {0, 1, 2, 3}
        assert (values == truth)[truth > 0].mean() > 0.85


def test_registration_is_close_to_the_truth(derivatives):
    """Against the phantom's own transform, inside the brain."""
    truth = derivatives.bids / "derivatives/truth/sub-01/anat"
    (true_file,) = truth.glob(f"*from-T1w_to-{SPACE}*_xfm.h5")
    ours = derivatives.anat / f"sub-01_from-T1w_to-{SPACE}_mode-image_xfm.h5"
    mask = nib.load(derivatives.anat / f"sub-01_space-{SPACE}_desc-brain_mask.nii.gz")
    inside = np.argwhere(ndimage.binary_erosion(mask.get_fdata() > 0, iterations=2))[::997]
    points = nib.affines.apply_affine(mask.affine, inside) * [-1, -1, 1]
    true, found = (
        np.array([transform.TransformPoint(point) for point in points.tolist()])
        for transform in map(sitk.ReadTransform, (str(true_file), str(ours)))
    )
    error = np.linalg.norm(true - found, axis=1)
    assert np.median(error) < 1.0
    assert np.percentile(error, 95) < 2.5


def test_volumes_are_those_of_the_labels(derivatives):
    stem = f"sub-01_atlas-tissue_desc-{SPACE}"
    volumes = pd.read_csv(derivatives.anat / f"{stem}Volumes_dseg.tsv", sep="\t")
    labels = nib.load(derivatives.anat / f"{stem}_dseg.nii.gz")
    counts = np.bincount(np.asarray(labels.dataobj).ravel(), minlength=4)[1:]
    np.testing.assert_allclose(
        volumes["volume_mm3"], counts * np.prod(labels.header.get_zooms()), rtol=1e-4
    )
    assert volumes["name"].tolist() == ["CSF", "GM", "WM"]


def test_quality_metrics_are_plausible(derivatives):
    name = f"sub-01_from-T1w_to-{SPACE}_mode-image_desc-quality_xfm.json"
    quality = json.loads((derivatives.anat / name).read_text())
    assert quality["similarity_initial"] < quality["similarity_affine"] < quality["similarity"]
    assert quality["folds_percent"] < 0.01
    assert quality["inverse_consistency_p95_mm"] < 0.5
    assert len(quality["weights"]) == 64 and quality["mode"] == "refine"


def test_report_shows_every_figure(derivatives):
    text = (derivatives.out / "sub-01.html").read_text()
    folder = derivatives.out / "sub-01/figures"
    figures = [path for path in folder.iterdir() if path.suffix in (".png", ".svg")]
    assert {path.name.removeprefix("sub-01_") for path in figures} == {
        "desc-brain_mask.png",
        "desc-tissue_probseg.png",
        f"space-{SPACE}_desc-flicker_T1w.svg",
        f"space-{SPACE}_desc-contours_T1w.png",
        f"space-{SPACE}_desc-deformation_T1w.png",
        f"atlas-tissue_desc-{SPACE}_dseg.png",
    }
    assert (
        sum(path.stat().st_size for path in [*figures, folder.parents[1] / "sub-01.html"]) < 10e6
    )
    assert "<link" not in text and 'src="http' not in text  # it opens without internet
    for figure in figures:
        assert f"./sub-01/figures/{figure.name}" in text
    assert "sub-01_T1w.nii.gz" in text and "Inverse consistency" in text
    assert SPACE in text


def test_fmriprep_finds_what_it_needs(derivatives):
    collect = pytest.importorskip("smriprep.utils.bids").collect_derivatives
    found = collect(derivatives.out, "01", [SPACE])
    anat = derivatives.anat
    assert Path(found["t1w_preproc"]) == anat / "sub-01_desc-preproc_T1w.nii.gz"
    assert Path(found["t1w_mask"]) == anat / "sub-01_desc-brain_mask.nii.gz"
    assert Path(found["t1w_dseg"]) == anat / "sub-01_dseg.nii.gz"
    tissues = [f"sub-01_label-{tissue}_probseg.nii.gz" for tissue in ("GM", "WM", "CSF")]
    assert [Path(path).name for path in found["t1w_tpms"]] == tissues
    transforms = {key: Path(path).name for key, path in found["transforms"][SPACE].items()}
    assert transforms == {
        "forward": f"sub-01_from-T1w_to-{SPACE}_mode-image_xfm.h5",
        "reverse": f"sub-01_from-{SPACE}_to-T1w_mode-image_xfm.h5",
    }


def test_smriprep_needs_no_registration_of_its_own(derivatives, tmp_path):
    """With our derivatives its workflow has neither brain extraction nor ANTs' registration."""
    pytest.importorskip("smriprep")
    script = Path(__file__).with_name("smriprep_graph.py")
    done = subprocess.run(
        [sys.executable, str(script), str(derivatives.bids), str(derivatives.out), SPACE],
        env=os.environ | {"TEMPLATEFLOW_HOME": str(tmp_path / "templateflow")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    nodes = json.loads(done.stdout.splitlines()[-1])
    theirs = ("brain_extraction_wf", "register_template_wf", "fast")
    assert all(any(node.startswith(name) for node in nodes["without"]) for name in theirs)
    assert not [node for node in nodes["with"] if node.startswith(theirs)]
    assert "registration" not in " ".join(nodes["with"])


def test_tissue_is_that_of_the_intensities(derivatives):
    """Dark, middle and bright of a T1w image; probabilities and labels agree, inside the mask."""
    values = nib.load(derivatives.anat / "sub-01_desc-preproc_T1w.nii.gz").get_fdata()
    mask = nib.load(derivatives.anat / "sub-01_desc-brain_mask.nii.gz").get_fdata() > 0
    dseg = np.asarray(nib.load(derivatives.anat / "sub-01_dseg.nii.gz").dataobj)
    assert not dseg[~mask].any() and (dseg[mask] > 0).mean() > 0.9
    grey, white, csf = (np.median(values[dseg == n]) for n in (1, 2, 3))
    assert csf < grey < white
    names = (f"sub-01_label-{tissue}_probseg.nii.gz" for tissue in ("GM", "WM", "CSF"))
    probabilities = np.stack([nib.load(derivatives.anat / name).get_fdata() for name in names])
    assert probabilities.sum(axis=0).max() < 1.02
    sure = probabilities.max(axis=0) > 0.6
    assert np.array_equal(probabilities.argmax(axis=0)[sure] + 1, dseg[sure])


def test_rerun_resumes_and_restores_lost_results(derivatives):
    work = derivatives.cache / "fcnreg_wf"
    results = {path: path.stat().st_mtime_ns for path in work.rglob("result_*.pklz")}
    # What stores results, and what lists the names of what is stored, looks at the files again.
    looking = ("ds_", "registered", "sources_")
    results = {p: t for p, t in results.items() if not p.parent.name.startswith(looking)}
    assert len(results) > 8
    lost = derivatives.anat / "sub-01_desc-brain_mask.nii.gz"
    before = lost.read_bytes()
    shutil.rmtree(derivatives.anat)
    done = run_app(derivatives.bids, derivatives.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path, t in results.items() if path.stat().st_mtime_ns != t} == set()
    assert lost.read_bytes() == before
