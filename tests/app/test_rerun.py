"""The same command again: what it was made from is known, and only what changed is made again."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.cli import bids_app
from bids_fcnreg.fcn.nets.checkpoint import load
from bids_fcnreg.fcn.nets.packaged_weights import packaged_weights

pytestmark = pytest.mark.slow

CHANGED = "Results are replaced, because their sources have changed"


@pytest.fixture(scope="module")
def study(small_study, tmp_path_factory) -> SimpleNamespace:
    """A dataset and a template of its own that has been registered."""
    folder = tmp_path_factory.mktemp("rerun")
    shutil.copytree(small_study.bids, folder / "in")
    template = Path(shutil.copy(small_study.template, folder))
    words = [str(template) if word == str(small_study.template) else word
             for word in small_study.words]  # fmt: skip
    made = SimpleNamespace(folder=folder, out=folder / "out", template=template, words=words)
    assert CHANGED not in run(made)
    return made


def run(study: SimpleNamespace, *more: str) -> str:
    """Run the participant level; returns what it says."""
    folder = study.folder
    words = [folder / "in", study.out, "participant", "-w", folder / "work", *study.words, *more]
    words += ["--participant-label", "01"]
    words = [*map(str, words)]
    # In this process, which has imported what takes seconds, and remembers checksums by the name,
    # size and time of a file: `change` changes the size of a compressed one.
    if "--dry-run" in words:
        with contextlib.redirect_stdout(io.StringIO()) as told:
            assert bids_app.main(words) == 0, told.getvalue()
        return told.getvalue()
    done = subprocess.run(
        [sys.executable, "-m", "bids_fcnreg", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def made(study: SimpleNamespace) -> dict[str, int]:
    """When each result of a step was made, by its place in the work directory."""
    results = study.folder.joinpath("work").rglob("result_*.pklz")
    return {str(path.relative_to(study.folder)): path.stat().st_mtime_ns for path in results}


def change(path: Path) -> None:
    """Change one voxel in ten of an image a little; its time stays."""
    times = path.stat()
    nifti = nib.load(path)
    data = np.asarray(nifti.dataobj).copy()
    data[::10] = data[::10] // 2
    nib.Nifti1Image(data, nifti.affine, nifti.header).to_filename(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_checksums_lead_from_each_result_back_to_the_inputs(study):
    seen = set()
    for path in study.out.glob("sub-*/anat/*.json"):
        content = json.loads(path.read_text())
        assert set(content["Sources"]) == set(content["SourcesSHA256"]), path
        for uri, checksum in content["SourcesSHA256"].items():
            kind, _, name = uri.rpartition(":")
            name = unquote(name.removeprefix("//"))
            folder = {"bids:raw": study.folder / "in", "bids:": study.out, "file": Path("/")}[kind]
            assert digest(folder / name) == checksum, (path, uri)
            seen.add((kind, Path(name).name))
    assert ("bids:raw", "sub-01_T1w.nii.gz") in seen
    assert ("file", study.template.name) in seen
    quality = json.loads(next(study.out.glob("sub-01/anat/*_desc-quality_xfm.json")).read_text())
    assert quality["weights"] == load(packaged_weights("diffeomorphic"))[1]


def test_touched_input_is_not_reprocessed(study):
    before = made(study)
    for path in study.folder.joinpath("in").rglob("*.nii.gz"):
        os.utime(path)
    assert CHANGED not in run(study)
    again = made(study)
    assert not [name for name in before if again[name] != before[name] and "ds_" not in name]


def test_changed_input_is_reprocessed(study):
    scan = study.folder / "in/sub-01/anat/sub-01_T1w.nii.gz"
    anat = study.out / "sub-01/anat"
    image = anat / "sub-01_desc-preproc_T1w.nii.gz"
    before = digest(image)
    change(scan)
    told = run(study, "--dry-run")
    assert "sub-01: results in Small exist (predict), made from another sub-01_T1w" in told
    assert f"{CHANGED}: sub-01 (sub-01_T1w.nii.gz)\n" in run(study)
    assert digest(image) != before
    recorded = json.loads((anat / "sub-01_desc-preproc_T1w.json").read_text())["SourcesSHA256"]
    assert recorded == {"bids:raw:sub-01/anat/sub-01_T1w.nii.gz": digest(scan)}
    assert run(study, "--dry-run").endswith("sub-01: results in Small exist (predict)\n")


def dry(study: SimpleNamespace, template: Path, *more: str) -> str:
    """What a dry run says with another file for the template."""
    words = [str(template) if word == str(study.template) else word for word in study.words]
    return run(SimpleNamespace(**vars(study) | {"words": words}), "--dry-run", *more)


def elsewhere(source: Path, folder: Path, name: str) -> list[Path]:
    """The same content by a link, by another path, and compressed in other ways."""
    raw = gzip.decompress(source.read_bytes()) if source.suffix == ".gz" else source.read_bytes()
    folder.mkdir()
    places = [folder / one / name for one in ("link", "copy", "best", "bare")]
    for place in places:
        place.parent.mkdir()
    places[0].symlink_to(source)
    places[1].write_bytes(source.read_bytes())
    if source.suffix != ".gz":
        return places[:2]
    places[2].write_bytes(gzip.compress(raw, 9))
    places[3] = places[3].with_name(name.removesuffix(".gz"))
    places[3].write_bytes(raw)
    return places


def test_the_same_template_by_another_path_is_the_same(study, tmp_path):
    for place in elsewhere(study.template, tmp_path / "t", "Small.nii.gz"):
        told = dry(study, place)
        assert told.endswith("sub-01: results in Small exist (predict)\n"), (place, told)
    change(place.parents[1] / "best/Small.nii.gz")
    assert "made from another Small.nii.gz" in dry(study, place.parents[1] / "best/Small.nii.gz")


def test_the_same_scan_compressed_otherwise_is_the_same(study):
    scan = study.folder / "in/sub-01/anat/sub-01_T1w.nii.gz"
    before = scan.read_bytes()
    bare = scan.with_suffix("")
    scan.write_bytes(gzip.compress(gzip.decompress(before), 1))
    assert scan.read_bytes() != before
    assert run(study, "--dry-run").endswith("results in Small exist (predict)\n")
    scan.unlink()
    bare.write_bytes(gzip.decompress(before))
    assert run(study, "--dry-run").endswith("results in Small exist (predict)\n")
    bare.unlink()
    scan.write_bytes(before)


def test_the_same_model_and_atlas_by_another_path_are_the_same(study, tmp_path):
    other = SimpleNamespace(**vars(study) | {"out": tmp_path / "out"})
    model, atlas = tmp_path / "mine.safetensors", tmp_path / "lobes.nii.gz"
    shutil.copy(packaged_weights("diffeomorphic"), model)
    brain = nib.load(study.template)
    halves = np.where(np.asarray(brain.dataobj) > 0, 1, 0).astype("uint8")
    halves[halves.shape[0] // 2 :] *= 2
    nib.Nifti1Image(halves, brain.affine).to_filename(atlas)
    run(other, "--model", str(model), "--atlas", str(atlas))
    for place in elsewhere(model, tmp_path / "m", "renamed.safetensors"):
        told = run(other, "--dry-run", "--model", str(place), "--atlas", str(atlas))
        assert told.endswith("sub-01: results in Small exist (predict)\n"), (place, told)
    for place in elsewhere(atlas, tmp_path / "a", "lobes.nii.gz"):
        told = run(other, "--dry-run", "--model", str(model), "--atlas", str(place))
        assert told.endswith("sub-01: results in Small exist (predict)\n"), (place, told)
    change(atlas)
    told = run(other, "--dry-run", "--model", str(model), "--atlas", str(atlas))
    assert "made from another lobes.nii.gz" in told


def test_changed_network_is_detected(study, tmp_path):
    model = tmp_path / "mine.safetensors"
    shutil.copy(packaged_weights("diffeomorphic"), model)
    words = ("--dry-run", "--model", str(model))
    assert "made from another mine.safetensors; to register again" in run(study, *words)
    (path,) = study.out.glob("sub-01/anat/*_desc-quality_xfm.json")
    text = path.read_text()
    other = json.loads(text) | {"weights": "of another version"}
    path.write_text(json.dumps(other))
    assert "made from another network of the package; to reg" in run(study, "--dry-run")
    path.write_text(text)


def test_damaged_results_are_restored(study):
    files = list(study.out.glob("sub-01/anat/*"))
    whole = {path: digest(path) for path in files if path.suffix != ".json"}
    for number, path in enumerate(files):
        content = path.read_bytes()
        path.write_bytes((content[: len(content) // 2], b"", b"\xff" + content[1:])[number % 3])
    assert "sub-01: to register to Small" in run(study, "--dry-run")
    run(study)
    assert {path: digest(path) for path in whole} == whole
    assert all(json.loads(path.read_text()) for path in files if path.suffix == ".json")


def test_damaged_intermediate_results_are_recomputed(study):
    files = study.out.glob("sub-01/anat/*")
    whole = {path: digest(path) for path in files if path.suffix != ".json"}
    picks = ("extract/result_*.pklz", "scale/preproc.nii.gz", "debias/result_*.pklz",
             "estimate/forward.h5", "estimate/quality.json", "to_template/mask_std.nii.gz",
             "to_template")  # fmt: skip
    for number, pick in enumerate(picks):
        (path,) = study.folder.glob(f"work/bids_fcnreg-*/fcnreg_wf/sub_01_wf/*/{pick}")
        if path.is_dir():
            shutil.rmtree(path)
            path.touch()
        elif number == len(picks) - 2:
            path.unlink()
        else:
            content = path.read_bytes()
            path.write_bytes((b"", content[: len(content) // 2])[number % 2])
    run(study)
    assert {path: digest(path) for path in whole} == whole


def test_bit_flip_is_detected(study):
    """Sizes and times stay, as when a disk rots."""
    files = study.out.glob("sub-01/anat/*")
    whole = {path: digest(path) for path in files if path.suffix != ".json"}
    for pick in ("debias/corrected.nii", "estimate/inverse.h5", "extract/mask.nii.gz"):
        (path,) = study.folder.glob(f"work/bids_fcnreg-*/fcnreg_wf/sub_01_wf/*/{pick}")
        times, content = path.stat(), bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x41
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    run(study)
    assert {path: digest(path) for path in whole} == whole


def test_changed_template_is_detected(study):
    before = made(study)
    change(study.template)
    assert f"{CHANGED}: sub-01 (tpl-Small_T1w.nii.gz)\n" in run(study)
    again = made(study)
    renewed = {name.split("/")[4] for name in before if again.get(name) != before[name]}
    assert any("register" in name for name in renewed), renewed
    assert not any("preprocess" in name for name in renewed), renewed
