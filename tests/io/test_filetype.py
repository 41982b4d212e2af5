"""Files that are not what their name promises, and files whose content is elsewhere."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.errors import InputError
from bids_fcnreg.io import nifti

DATA = np.arange(1, 25, dtype="int16").reshape(2, 3, 4)
NIFTI = nib.Nifti1Image(DATA, np.eye(4)).to_bytes()
KEY = b"SHA256E-s9--0123.nii.gz"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.nii", NIFTI)
    return stream.getvalue()


def tarred(mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        member = tarfile.TarInfo("x.nii")
        member.size = len(NIFTI)
        archive.addfile(member, io.BytesIO(NIFTI))
    return stream.getvalue()


def mgh(packed: bool) -> bytes:
    content = nib.MGHImage(DATA, np.eye(4)).to_bytes()
    return gzip.compress(content) if packed else content


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "annex pointer": (lambda: b"/annex/objects/" + KEY + b"\n", "datalad get.*git annex get"),
    "annex link as text": (lambda: b"../../.git/annex/objects/x/y/" + KEY, "git annex get"),
    "annex link without end": (lambda: b".git/annex/objects/x/y/" + KEY, "git annex get"),
    "Git LFS pointer": (lambda: LFS, "git lfs pull"),
    "old Git LFS pointer": (lambda: LFS.replace(b"git-lfs", b"hawser"), "git lfs pull"),
    "web page": (lambda: b"<!DOCTYPE html>\n<html>", "web page. Download"),
    "compressed web page": (lambda: gzip.compress(b"\n <html lang='en'>"), "web page. Download"),
    "XML": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied', "XML text"),
    "JSON": (lambda: b'{"message": "Not Found"}', "JSON text"),
    "DICOM": (lambda: bytes(128) + b"DICM" + bytes(300), "DICOM file. Convert .*dcm2niix"),
    "ZIP": (zipped, "ZIP archive. Unpack"),
    "tar": (lambda: tarred("w"), "tar archive"),
    "tar.gz": (lambda: tarred("w:gz"), "tar archive"),
    "bzip2": (lambda: bz2.compress(NIFTI), "bzip2"),
    "xz": (lambda: lzma.compress(NIFTI), "compressed with xz"),
    "gzip twice": (lambda: gzip.compress(gzip.compress(NIFTI)), "compressed twice"),
    "not compressed": (lambda: NIFTI, "not compressed. Rename it to end in .nii"),
    "MGH": (lambda: mgh(False), "MGH image"),
    "MGZ": (lambda: mgh(True), "MGH image"),
    "NRRD": (lambda: b"NRRD0004\ntype: short\n", "NRRD image"),
    "MINC": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5 file, perhaps MINC"),
    "picture": (lambda: b"\x89PNG\r\n\x1a\n", "picture"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_file_types_are_detected(tmp_path, kind, ending):
    make, sentence = WRONG[kind]
    path = tmp_path / f"sub-01_T1w{ending}"
    path.write_bytes(make())
    if kind == "not compressed" and ending == ".nii":
        np.testing.assert_array_equal(nifti.load(path).get_fdata(), DATA)
        return
    with pytest.raises(InputError, match=sentence) as caught:
        nifti.load(path)
    assert str(path) in str(caught.value)


def test_a_compressed_image_without_gz(tmp_path):
    path = tmp_path / "x.nii"
    path.write_bytes(gzip.compress(NIFTI))
    with pytest.raises(InputError, match=r"is compressed. Rename it to end in .nii.gz"):
        nifti.load(path)


@pytest.mark.parametrize(
    "target", [".git/annex/objects/a/b/" + KEY.decode(), "/x/annex/objects/y"]
)
def test_links_into_an_annex(tmp_path, target):
    path = tmp_path / "x.nii.gz"
    path.symlink_to(target)
    with pytest.raises(InputError, match="datalad get"):
        nifti.load(path)


@pytest.mark.parametrize("target", ["nowhere.nii.gz", "x.nii.gz"])
def test_other_broken_links(tmp_path, target):
    path = tmp_path / "x.nii.gz"
    path.symlink_to(target)
    with pytest.raises(InputError, match=f"broken link to {target}"):
        nifti.load(path)


def test_files_of_git_annex_itself(tmp_path):
    if shutil.which("git-annex") is None:
        pytest.skip("git-annex is not installed")
    run = lambda *words: subprocess.run(["git", *words], cwd=tmp_path, check=True)  # noqa: E731
    run("init", "-q")
    run("annex", "init", "-q")
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(NIFTI))
    run("annex", "add", "-q", "x.nii.gz")
    run("annex", "drop", "-q", "--force", "x.nii.gz")
    with pytest.raises(InputError, match="datalad get"):
        nifti.load(path)
