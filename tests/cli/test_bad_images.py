"""Images broken in every way, each with its sentence: which file, what is wrong, what to do."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.cli.bids_app import main
from bids_fcnreg.errors import InputError
from bids_fcnreg.io import nifti

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
DATA = np.random.default_rng(0).integers(1, 900, (24, 26, 22)).astype(np.int16)

Make = Callable[[Path], object]


def saved(data: np.ndarray = DATA, affine: np.ndarray = AFFINE) -> Make:
    return lambda path: nib.Nifti1Image(data, affine).to_filename(path)


def patched(*changes: tuple[int, str, tuple]) -> Make:
    """A good image with bytes of its header replaced: offset, format, values."""

    def make(path: Path) -> None:
        saved()(path)
        content = bytearray(gzip.decompress(path.read_bytes()))
        for offset, form, values in changes:
            struct.pack_into(form, content, offset, *values)
        path.write_bytes(gzip.compress(bytes(content)))

    return make


def large(*dim: int) -> Make:
    """A header that claims much, in a file that is large enough to be such an image."""

    def make(path: Path) -> None:
        patched((DIM, f"<{len(dim)}h", dim))(path)
        os.truncate(path, 2**27)  # without content: it takes no place on the disk

    return make


def half(path: Path) -> None:
    saved()(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scrambled(path: Path) -> None:
    saved()(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    path.write_bytes(content)


#: Offsets in the header of a NIfTI-1 file.
DIM, ZOOMS, SLOPE, QFORM, SFORM, ROWS, MAGIC = 40, 80, 112, 252, 254, 280, 344
SFORM_ONLY = ((QFORM, "<h", (0,)), (SFORM, "<h", (1,)))

BAD: dict[str, tuple[Make, str]] = {
    "missing": (lambda path: None, "does not exist. Check the path"),
    "broken link": (
        lambda path: path.symlink_to("nowhere"),
        "broken link to nowhere. Restore that file",
    ),
    "folder": (lambda path: path.mkdir(), "is a directory. Choose a NIfTI file"),
    "pipe": (os.mkfifo, "is not a file. Choose a NIfTI file"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a NIfTI image .*Empty file"),
    "text": (lambda path: path.write_text("hello"), "cannot be read as a NIfTI image"),
    "compressed text": (lambda p: p.write_bytes(gzip.compress(b"hi")), "cannot be read as a NIf"),
    "half": (half, "cannot be read as a NIfTI image .*may be incomplete"),
    "scrambled": (scrambled, "cannot be read as a NIfTI image"),
    "wrong magic": (patched((MAGIC, "4s", (b"xxxx",))), "cannot be read as a NIfTI image"),
    "10^13 voxels": (
        patched((DIM, "<4h", (3, 30000, 30000, 30000))),
        "too small for the 30000×30000×30000 voxels of its header",
    ),
    "more than memory": (large(3, 4000, 4000, 4000), "64000 million voxels, which need .* GB"),
    "10,000 volumes": (large(4, 99, 99, 99, 10_000), "Extract or average its volumes"),
    "no voxels": (patched((DIM, "<4h", (3, 0, 26, 22))), "has shape|cannot be read"),
    "two axes": (saved(DATA[:, :, 3]), "not that of a 3D volume. Choose a complete"),
    "one slice": (saved(DATA[:, :, 3:4]), "has shape"),
    "several volumes": (saved(np.stack([DATA] * 3, -1)), "Extract or average its volumes"),
    "colours": (
        saved(np.zeros(DATA.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "Convert it to one real number per voxel",
    ),
    "complex numbers": (
        saved(DATA.astype(np.complex64)),
        "Convert it to one real number per voxel",
    ),
    "zeros": (saved(np.zeros_like(DATA)), "contains only zeros"),
    "not a number": (
        saved(np.full(DATA.shape, np.nan, np.float32)),
        "only zeros, infinite values and NaN",
    ),
    "infinite": (
        saved(np.full(DATA.shape, np.inf, np.float32)),
        "only zeros, infinite values and NaN",
    ),
    "too large values": (saved(DATA * 1e300), "contains values up to .*e.302.*Rescale it"),
    "too large a slope": (
        patched((SLOPE, "<f", (1e37,))),
        "contains values up to .*e.39.*Rescale it",
    ),
    "voxels of size zero": (
        patched((QFORM, "<2h", (1, 0)), (ZOOMS, "<3f", (0, 0, 0))),
        "has a singular affine",
    ),
    "zero affine": (
        patched(*SFORM_ONLY, (ROWS, "<12f", (0.0,) * 12)),
        "has a singular affine",
    ),
    "flat affine": (
        patched(*SFORM_ONLY, (ROWS, "<12f", (2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2, 0))),
        "has a singular affine",
    ),
    "affine without numbers": (
        patched(*SFORM_ONLY, (ROWS, "<12f", (float("nan"),) * 12)),
        "has a singular affine",
    ),
    "in metres": (saved(DATA, AFFINE * [[1e-3], [1e-3], [1e-3], [1]]), "voxels of 0.002 × 0.002"),
    "voxels of a metre": (
        saved(DATA, np.diag([1000.0, 1000, 1000, 1])),
        "voxels of 1000 × 1000 × 1000",
    ),
}

#: Odd, but good enough.
GOOD: dict[str, Make] = {
    "one volume on four axes": saved(DATA[..., None]),
    "mirrored": saved(DATA, AFFINE @ np.diag([-1, 1, 1, 1])),
    "no form of affine": patched((QFORM, "<h", (0,)), (SFORM, "<h", (0,))),
    "forms that disagree": patched((QFORM, "<2h", (1, 1)), (268, "<3f", (50, 60, 70))),
    "size zero beside an affine": patched(*SFORM_ONLY, (ZOOMS, "<3f", (0, 0, 0))),
    "tiny values": patched((SLOPE, "<f", (1e-30,))),
    "constant": saved(np.full_like(DATA, 7)),
    "slope of zero": patched((SLOPE, "<2f", (0.0, 0.0))),
    "slope without number": patched((SLOPE, "<2f", (float("nan"), 0.0))),
    "thick slices": saved(DATA[:, :, ::3], np.diag([2.0, 2, 6, 1])),
    "negative values": saved((DATA - 2000).astype(np.int16)),
    "a hole without numbers": saved(np.where(DATA > 800, np.nan, DATA.astype(np.float32))),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_image_gets_one_message_with_its_name(name, tmp_path):
    make, sentence = BAD[name]
    path = tmp_path / "sub-01_T1w.nii.gz"
    make(path)
    with pytest.raises(InputError, match=sentence) as caught:
        nifti.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GOOD)
def test_an_odd_image_is_read(name, tmp_path):
    path = tmp_path / "sub-01_T1w.nii.gz"
    GOOD[name](path)
    read = nifti.load(path)
    assert read.ndim == 3 and np.isfinite(read.get_fdata()).all() and read.get_fdata().any()


def test_conflicting_orientations_are_reported(tmp_path, capsys):
    path = tmp_path / "in/sub-01/anat/sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    GOOD["forms that disagree"](path)
    good = path.with_name("sub-01_run-2_T1w.nii.gz")
    GOOD["mirrored"](good)
    description = json.dumps({"Name": "x", "BIDSVersion": "1.10.0"})
    (tmp_path / "in/dataset_description.json").write_text(description)
    words = [tmp_path / "in", tmp_path / "out", "participant", "--dry-run", "-w", tmp_path / "w"]
    assert main([str(word) for word in words]) == 0
    told = capsys.readouterr().out
    assert f"warning: sform and qform of {path} disagree by " in told
    assert told.count("disagree") == 1


#: Seen only when the brain is looked for: made from a good scan.
LATER: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "constant": (lambda scan: np.full_like(scan, 100), "has one value only, like a mask"),
    "two values": (lambda scan: (scan > 0).astype(np.uint8), "has one value only, like a mask"),
    "one voxel": (
        lambda scan: np.eye(1, scan.size).reshape(scan.shape) * 9,
        "has one value only, like a mask",
    ),
    "tiny": (lambda scan: scan[40:48, 50:58, 40:48], "ml, too little"),
}


@pytest.fixture(scope="module")
def run(small_study, tmp_path_factory) -> SimpleNamespace:
    """One run over a dataset of a participant for each bad image, and a good one."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(small_study.bids, folder / "in", ignore=lambda *_: ["sub-02"])
    scan = nib.load(folder / "in/sub-01/anat/sub-01_T1w.nii.gz")

    def changed(change: Callable[[np.ndarray], np.ndarray]) -> Make:
        return saved(change(np.asarray(scan.dataobj)), scan.affine)

    cases = BAD | {name: (changed(change), told) for name, (change, told) in LATER.items()}
    sentences = {}
    for number, (name, (make, sentence)) in enumerate(cases.items(), start=10):
        if name == "missing":  # there is no such file to be found
            sentence = "No T1w image. Add one"
        path = folder / f"in/sub-{number}/anat/sub-{number}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        make(path)
        sentences[f"sub-{number}"] = sentence
    words = [folder / "in", folder / "out", "participant", "-w", folder / "work"]
    words += ["--level", "minimal"]
    done = subprocess.run(
        [sys.executable, "-m", "bids_fcnreg", *map(str, [*words, *small_study.words])],
        capture_output=True,
        text=True,
    )
    return SimpleNamespace(done=done, out=folder / "out", sentences=sentences)


def test_run_processes_the_good_image_and_reports_the_others(run):
    assert run.done.returncode == 1, run.done.stdout + run.done.stderr
    assert f"1 of {1 + len(run.sentences)} done" in run.done.stdout
    lines = run.done.stdout.splitlines()
    for label, sentence in run.sentences.items():
        (told,) = [line for line in lines if line.startswith(f"{label} failed: ")]
        assert re.search(sentence, told), told
        assert sentence.startswith("No T1w") or f"{label}_T1w.nii.gz" in told, told
    (failures,) = run.out.glob("logs/*/failures.json")
    assert set(json.loads(failures.read_text())) == set(run.sentences)


def test_bad_images_leave_no_results_or_temporary_files(run):
    results = {path.parts[-3] for path in run.out.glob("sub-*/anat/*_xfm.h5")}
    assert results == {"sub-01"}
    for label in run.sentences:
        assert not list(run.out.glob(f"{label}/anat/*_xfm*")), label
    hidden = [path for path in run.out.rglob(".*") if path.name != ".bidsignore"]
    assert not hidden
