"""The sink: names, sidecars, untouched data, nothing half written; the validator's opinion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bids_fcnreg import __version__
from bids_fcnreg.bids.atlases import write_lookup
from bids_fcnreg.bids.derivatives import prepare_output, write_tsv
from bids_fcnreg.interfaces.outputs import DerivativesDataSink

#: SHA-256 of nothing.
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SPACE = "MNI152NLin2009aSym"
FORWARD = {"from": "T1w", "to": SPACE, "mode": "image", "suffix": "xfm"}


@pytest.fixture
def study(tmp_path):
    """A BIDS dataset of one scan with two runs, and an empty derivatives folder."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    anat = raw / "sub-01" / "ses-x" / "anat"
    anat.mkdir(parents=True)
    (raw / "dataset_description.json").write_text('{"Name": "Raw", "BIDSVersion": "1.10.0"}')
    runs = [str(anat / f"sub-01_ses-x_acq-A_run-{n}_T1w.nii.gz") for n in (1, 2)]
    for run in runs:
        Path(run).touch()
    prepare_output(out, raw)
    return raw, out, runs


@pytest.fixture
def sink(study, tmp_path, monkeypatch):
    """Store one file made of `content` under the name that the keywords say; returns its path."""
    raw, out, runs = study
    monkeypatch.chdir(tmp_path)

    def store(content, extension, sources=None, **naming):
        in_file = tmp_path / f"result{extension}"
        if isinstance(content, bytes):
            in_file.write_bytes(content)
        else:
            nib.save(content, in_file)
        interface = DerivativesDataSink(
            base_directory=str(out), bids_dir=str(raw), source_file=runs, **naming
        )
        interface.inputs.in_file = str(in_file)
        if sources:
            interface.inputs.sources = sources
        found = interface.run(cwd=str(tmp_path)).outputs.out_file
        assert Path(found).read_bytes() == in_file.read_bytes() or extension == ".json"
        return Path(found)

    return store


def picture(dtype="float32"):
    return nib.Nifti1Image(np.arange(60).reshape(3, 4, 5).astype(dtype), np.diag([2, 2, 2, 1.0]))


def sidecar(path):
    return json.loads(path.with_name(path.name.split(".")[0] + ".json").read_text())


def store_everything(sink):
    """Every output of a subject; returns the names."""
    lookup = b"index\tname\n1\tCSF\n2\tGM\n"
    volumes = b"index\tname\tvolume_mm3\n1\tCSF\t12.5\n2\tGM\tn/a\n"
    there = {"space": SPACE, "SpatialReference": "https://example.org/t.nii.gz"}
    described = {"volume_mm3": {"Description": "Volume", "Units": "mm^3"}}
    brain = {"desc": "brain", "suffix": "mask", "Type": "Brain"}
    preproc = {"desc": "preproc", "suffix": "T1w"}
    seg = {"atlas": "tissue", "suffix": "dseg"}
    origins = ["https://example.org/t.nii.gz", "/some where/t.nii.gz", "bids::sub-01/x.h5"]
    made = [
        sink(picture(), ".nii.gz", meta_dict={"SkullStripped": False}, **preproc),
        sink(picture("uint8"), ".nii.gz", **brain),
        sink(picture(), ".nii.gz", origins, SkullStripped=True, **preproc, **there),
        sink(picture(), ".nii.gz", SkullStripped=True, resolution="2", **preproc, **there),
        sink(picture("uint8"), ".nii.gz", **brain, **there),
        sink(b"transform", ".h5", **FORWARD),
        sink(b"inverse", ".h5", **(FORWARD | {"from": SPACE, "to": "T1w"})),
        sink(picture(), ".nii.gz", desc="logjacobian", **FORWARD),
        sink(b'{"folds_percent": 0.0}', ".json", desc="quality", **FORWARD),
        sink(picture("int32"), ".nii.gz", desc=f"{SPACE}+3", Manual=False, **seg),
        sink(lookup, ".tsv", desc=f"{SPACE}+3", **seg),
        sink(volumes, ".tsv", desc=f"{SPACE}Volumes", meta_dict=described, **seg),
        sink(volumes, ".tsv", desc=SPACE, segmentation="7N", meta_dict=described, **seg),
        sink(b"<svg/>", ".svg", datatype="figures", suffix="T1w", desc="brain", space=SPACE),
    ]
    return [path.name for path in made]


def test_a_result_that_is_stored_again_is_the_newest(sink):
    """The same acquisition registered again, from the node cache, after another one."""
    stored = [sink(b'{"folds_percent": 0.0}', ".json", desc="quality", **FORWARD)]
    stored.append(sink(picture(), ".nii.gz", desc="preproc", suffix="T1w"))
    for path in stored:
        os.utime(path, (1e9, 1e9))
    sink(b'{"folds_percent": 0.0}', ".json", desc="quality", **FORWARD)
    sink(picture(), ".nii.gz", desc="preproc", suffix="T1w")
    quality, image = (path.stat().st_mtime for path in stored)
    assert quality > 1e9 and image == 1e9  # caching depends on that of images


def test_names(sink, study):
    names = store_everything(sink)
    entities = "sub-01_ses-x_acq-A_"
    assert names == [
        entities + name
        for name in (
            "desc-preproc_T1w.nii.gz",
            "desc-brain_mask.nii.gz",
            f"space-{SPACE}_desc-preproc_T1w.nii.gz",
            f"space-{SPACE}_res-2_desc-preproc_T1w.nii.gz",
            f"space-{SPACE}_desc-brain_mask.nii.gz",
            f"from-T1w_to-{SPACE}_mode-image_xfm.h5",
            f"from-{SPACE}_to-T1w_mode-image_xfm.h5",
            f"from-T1w_to-{SPACE}_mode-image_desc-logjacobian_xfm.nii.gz",
            f"from-T1w_to-{SPACE}_mode-image_desc-quality_xfm.json",
            f"atlas-tissue_desc-{SPACE}+3_dseg.nii.gz",
            f"atlas-tissue_desc-{SPACE}+3_dseg.tsv",
            f"atlas-tissue_desc-{SPACE}Volumes_dseg.tsv",
            f"atlas-tissue_seg-7N_desc-{SPACE}_dseg.tsv",
            f"space-{SPACE}_desc-brain_T1w.svg",
        )
    ]
    out = study[1]
    assert (out / "sub-01" / "figures" / names[-1]).exists()
    anat = out / "sub-01" / "ses-x" / "anat"
    assert all((anat / name).exists() for name in names[:-1])
    described = {name.split(".")[0] for name in names[:-1]}
    assert {path.stem for path in anat.glob("*.json")} == described
    assert not [path for path in out.rglob("*") if path.name.startswith(".sub")]


def test_validator_finds_no_error(sink, study):
    store_everything(sink)
    validator = Path(sys.executable).with_name("bids-validator-deno")
    validator = str(validator) if validator.exists() else shutil.which("bids-validator-deno")
    done = subprocess.run(
        [validator, str(study[1]), "--format", "json"], capture_output=True, text=True
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_smriprep_finds_image_mask_and_transforms_and_no_tissue_classes(sink, study):
    from smriprep.utils.bids import collect_derivatives

    store_everything(sink)
    found = collect_derivatives(study[1], "01", [SPACE])
    assert found["t1w_preproc"].endswith("x_acq-A_desc-preproc_T1w.nii.gz")
    assert found["t1w_mask"].endswith("x_acq-A_desc-brain_mask.nii.gz")
    assert found["transforms"][SPACE]["forward"].endswith(f"from-T1w_to-{SPACE}_mode-image_xfm.h5")
    assert found["transforms"][SPACE]["reverse"].endswith(f"from-{SPACE}_to-T1w_mode-image_xfm.h5")
    assert "t1w_dseg" not in found


def test_sidecar_names_the_runs_by_default(sink):
    path = sink(picture(), ".nii.gz", desc="preproc", suffix="T1w", SkullStripped=True)
    uris = [f"bids:raw:sub-01/ses-x/anat/sub-01_ses-x_acq-A_run-{n}_T1w.nii.gz" for n in (1, 2)]
    assert sidecar(path) == {
        "Sources": uris,
        "SourcesSHA256": dict.fromkeys(uris, EMPTY),
        "GeneratedBy": [{"Name": "bids_fcnreg", "Version": __version__}],
        "SkullStripped": True,
    }


def test_sidecar_names_given_sources_and_resolution(sink, study):
    online, transform = "https://example.org/t.nii.gz", study[1] / "sub-01" / "x.h5"
    transform.parent.mkdir()
    transform.touch()
    naming = {"desc": "preproc", "suffix": "T1w", "space": "X", "resolution": "2"}
    sources = [str(transform), online, "/gone.nii"]
    path = sink(picture(), ".nii.gz", sources, checksums={online: "c0ffee"}, **naming)
    described = sidecar(path)
    assert described["Sources"] == ["bids::sub-01/x.h5", online, "file:///gone.nii"]
    assert described["SourcesSHA256"] == {"bids::sub-01/x.h5": EMPTY, online: "c0ffee"}
    assert described["Resolution"] == "Voxels of 2 × 2 × 2 mm, as template X"


def test_json_gets_its_sources_and_keeps_its_content(sink):
    path = sink(b'{"folds_percent": 0.5}', ".json", desc="quality", **FORWARD)
    content = json.loads(path.read_text())
    assert content["folds_percent"] == 0.5
    assert len(content["Sources"]) == 2


def test_same_result_again_keeps_its_time_and_another_replaces_it(sink):
    naming = {"desc": "preproc", "suffix": "T1w", "SkullStripped": True}
    path = sink(picture(), ".nii.gz", **naming)
    os.utime(path, (1, 1))
    payload = path.read_bytes()
    assert DerivativesDataSink._always_run
    sink(payload, ".nii.gz", **naming)
    assert path.stat().st_mtime == 1
    sink(picture("uint8"), ".nii.gz", **naming)
    assert nib.load(path).get_data_dtype() == np.uint8
    assert path.stat().st_mtime > 1


def test_unwritten_result_leaves_nothing(sink, study, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        sink(picture(), ".nii.gz", desc="preproc", suffix="T1w", SkullStripped=True)
    assert [path for path in study[1].rglob("sub-*") if path.is_file()] == []
    assert list((study[1] / "sub-01" / "ses-x" / "anat").iterdir()) == []


def test_in_a_workflow(study, tmp_path):
    raw, out, runs = study
    made = tmp_path / "x.nii.gz"
    nib.save(picture(), made)
    workflow = pe.Workflow("flow", base_dir=str(tmp_path / "work"))
    given = pe.Node(niu.IdentityInterface(["file", "sources", "meta"]), name="given")
    given.inputs.trait_set(file=str(made), sources=[str(raw / "a")], meta={"SkullStripped": True})
    sink = DerivativesDataSink(
        base_directory=str(out), bids_dir=str(raw), source_file=runs, desc="preproc", suffix="T1w"
    )
    node = pe.Node(sink, name="sink")
    last = pe.Node(niu.IdentityInterface(["file", "sidecar"]), name="last")
    workflow.connect([
        (given, node, [("file", "in_file"), ("sources", "sources"), ("meta", "meta_dict")]),
        (node, last, [("out_file", "file"), ("out_meta", "sidecar")]),
    ])  # fmt: skip
    workflow.run("MultiProc", plugin_args={"n_procs": 1})
    path = out / "sub-01" / "ses-x" / "anat" / "sub-01_ses-x_acq-A_desc-preproc_T1w.nii.gz"
    assert path.read_bytes() == made.read_bytes()
    described = sidecar(path)
    assert described["Sources"] == ["bids:raw:a"] and described["SkullStripped"] is True


def test_names_that_no_pattern_has_are_refused(sink):
    with pytest.raises(ValueError, match="Could not build path"):
        sink(picture(), ".nii.gz", suffix="bold", segmentation="tissue")


def test_importing_needs_no_home_folder_and_leaves_templateflow_usable(tmp_path):
    code = (
        "import os, bids_fcnreg.interfaces.outputs, templateflow.api as flow\n"
        "home = os.environ['TEMPLATEFLOW_HOME']\n"
        "print(os.path.exists(home))\n"
        "os.makedirs(home + '/tpl-Kids')\n"
        "open(home + '/tpl-Kids/tpl-Kids_T1w.nii.gz', 'w').close()\n"
        "print(flow.templates(), *flow.ls('Kids', suffix='T1w'))"
    )
    home = tmp_path / "not" / "there"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TEMPLATEFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "False",
        f"['Kids'] {home / 'tpl-Kids' / 'tpl-Kids_T1w.nii.gz'}",
    ]


def test_tables(tmp_path):
    write_lookup(tmp_path / "a.tsv", ((1, "CSF"), (2, "GM")))
    assert (tmp_path / "a.tsv").read_text() == "index\tname\n1\tCSF\n2\tGM\n"
    write_tsv(tmp_path / "b.tsv", ("x", "y"), [(1, None), (2.5, "z")])
    assert (tmp_path / "b.tsv").read_text() == "x\ty\n1\tn/a\n2.5\tz\n"
