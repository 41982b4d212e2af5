"""Files of which any byte may be wrong: they are read, or refused with a sentence, and no more.

BIDS_FCNREG_FUZZ says how many examples of each kind are tried (default 60).
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from bids_fcnreg.app.summary import quality_warnings
from bids_fcnreg.bids.atlases import resolve_atlas
from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.derivatives import other_source_dataset, prepare_output, unrelated_files
from bids_fcnreg.bids.description import read_description
from bids_fcnreg.bids.filters import read_filter_file
from bids_fcnreg.bids.participants import read_participants
from bids_fcnreg.bids.results import find_results, read_volumes
from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.cli.options import parse_arguments
from bids_fcnreg.config_file import read_settings, settings_names
from bids_fcnreg.errors import FcnregError
from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.nets.li_fan_2017 import FCN2017
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io import nifti
from bids_fcnreg.io.itk import read_transform, write_transform
from bids_fcnreg.io.points import read_points

pytestmark = pytest.mark.slow

fuzzed = settings(
    max_examples=int(os.environ.get("BIDS_FCNREG_FUZZ", "60")),
    deadline=None,
    derandomize="BIDS_FCNREG_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: Bytes to put somewhere: where (a part of the file's length) and what.
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=4)


def changed(content: bytes, changes: list[tuple[float, bytes]]) -> bytes:
    made = bytearray(content)
    for where, new in changes:
        start = int(where * (len(made) - 1))
        made[start : start + len(new)] = new
    return bytes(made)


@fuzzed
@given(changes=st.lists(st.tuples(st.integers(0, 347), st.binary(min_size=1, max_size=8))))
def test_headers_of_images(tmp_path, changes):
    data = np.arange(24, dtype="int16").reshape(2, 3, 4) + 1
    content = bytearray(nib.Nifti1Image(data, np.eye(4)).to_bytes())
    for start, new in changes:
        content[start : start + len(new)] = new
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    nifti.orientation_warning(path)
    try:
        read = nifti.load(path)
    except FcnregError as why:
        assert str(path) in str(why) and "\n" not in str(why)
    else:
        assert read.ndim == 3 and np.isfinite(read.get_fdata()).all()


@fuzzed
@given(changes=CHANGES, cut=st.floats(0.2, 1))
def test_compressed_images(tmp_path, changes, cut):
    data = np.random.default_rng(0).integers(1, 99, (9, 9, 9)).astype("int16")
    content = gzip.compress(nib.Nifti1Image(data, np.eye(4)).to_bytes())
    path = tmp_path / "x.nii.gz"
    path.write_bytes(changed(content, changes)[: int(cut * len(content))])
    try:
        nifti.load(path)
    except FcnregError as why:
        assert str(path) in str(why) and "\n" not in str(why)


@pytest.fixture(scope="module")
def transform(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "x.h5"
    return write_transform(path, Transform((Affine(np.eye(4)),))).read_bytes()


@fuzzed
@given(changes=CHANGES, cut=st.floats(0.2, 1))
def test_bytes_of_transforms(transform, tmp_path, changes, cut):
    path = tmp_path / "x.h5"
    path.write_bytes(changed(transform, changes)[: int(cut * len(transform))])
    try:
        read_transform(path)
    except FcnregError as why:
        assert str(path) in str(why) and "\n" not in str(why)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    checkpoint.save(FCN2017((2, 4)), path)
    return path


@fuzzed
@given(changes=CHANGES, cut=st.floats(0.2, 1))
def test_bytes_of_weights(network, tmp_path, changes, cut):
    path = tmp_path / "x.safetensors"
    path.write_bytes(changed(network.read_bytes(), changes)[: int(cut * network.stat().st_size)])
    check_weights(path)


NUMBERS = st.integers(-3, 2**40) | st.floats()
ARGUMENTS = st.dictionaries(
    st.sampled_from(["widths", "spacing", "spacings", "passes", "divergence_rate"]),
    NUMBERS | st.lists(NUMBERS, max_size=3) | st.text(max_size=3),
)


@fuzzed
@given(
    kind=st.sampled_from(["2017", "diffeomorphic"]) | st.text(max_size=3) | st.integers(),
    arguments=ARGUMENTS | st.none(),
)
def test_what_weights_say_of_themselves(network, tmp_path, kind, arguments):
    with safe_open(network, framework="pt") as stream:
        facts = json.loads(stream.metadata()["fcnreg"])
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    facts |= {"network": kind, "arguments": arguments}
    facts["sha256"] = checkpoint._checksum(tensors, facts)
    path = tmp_path / "y.safetensors"
    save_file(tensors, path, metadata={"fcnreg": json.dumps(facts)})
    check_weights(path)


def check_weights(path: Path) -> None:
    try:
        loaded, _ = checkpoint.load(path)
    except FcnregError as why:
        assert str(path) in str(why) and "\n" not in str(why)
    else:
        assert loaded.arguments["widths"] == (2, 4)


VALUES = st.one_of(
    st.lists(st.floats(width=32), max_size=20),
    st.lists(st.integers(-5, 5), max_size=20),
    st.sampled_from([b"AffineTransform_double_3_3", b"CompositeTransform_double_3_3", b""]),
    st.just(b"DisplacementFieldTransform_float_3_3"),
)


@fuzzed
@given(
    groups=st.lists(
        st.dictionaries(
            st.sampled_from(["TransformType", "TransformParameters", "TransformFixedParameters"]),
            VALUES,
        ),
        max_size=3,
    )
)
def test_content_of_transforms(tmp_path, groups):
    path = tmp_path / "y.h5"
    with h5py.File(path, "w", locking=False) as file:
        for number, group in enumerate(groups):
            for name, value in group.items():
                content = np.array([value]) if isinstance(value, bytes) else np.array(value)
                file[f"TransformGroup/{number}/{name}"] = content
    try:
        read_transform(path)
    except FcnregError as why:
        assert str(path) in str(why) and "\n" not in str(why)


@fuzzed
@given(text=st.one_of(st.text(), st.lists(st.text()).map("\n".join)), header=st.booleans())
def test_tables_of_labels(tmp_path, text, header):
    labels = np.zeros((6, 6, 6), "int16")
    labels[2:4, 2:4, 2:4] = 1
    brain = labels * np.arange(1, 7, dtype="int16")
    nib.Nifti1Image(brain, np.eye(4)).to_filename(tmp_path / "tpl-A_T1w.nii.gz")
    nib.Nifti1Image(labels, np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    table = tmp_path / "a.tsv"
    table.write_bytes(("index\tname\n" * header + text).encode("utf-8", "surrogatepass"))
    try:
        atlas = resolve_atlas(
            str(tmp_path / "a.nii.gz"), resolve_template(str(tmp_path / "tpl-A_T1w.nii.gz"))
        )
    except FcnregError as why:
        assert "\n" not in str(why)
    else:
        assert all(isinstance(index, int) for index in dict(atlas.labels))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ENTITIES = st.sampled_from(["acquisition", "session", "run", "subject", "suffix", "regex_search"])


@fuzzed
@given(filters=st.one_of(JSON, st.fixed_dictionaries({"t1w": st.dictionaries(ENTITIES, JSON)})))
def test_filter_files(tmp_path, filters):
    anat = tmp_path / "in/sub-01/anat"
    anat.mkdir(parents=True, exist_ok=True)
    (anat / "sub-01_T1w.nii.gz").touch()
    (anat / "sub-01_acq-x_run-1_T1w.nii.gz").touch()
    text = json.dumps({"Name": "x", "BIDSVersion": "1.8.0"})
    (tmp_path / "in/dataset_description.json").write_text(text)
    path = tmp_path / "f.json"
    path.write_text(json.dumps(filters))
    try:
        found = read_dataset(tmp_path / "in", filters=read_filter_file(path)).scans
    except FcnregError as why:
        assert "\n" not in str(why)
    else:
        assert all(one.is_relative_to(tmp_path) for scan in found for one in scan.images)


FIELDS = ("Name", "BIDSVersion", "GeneratedBy", "DatasetLinks", "DatasetDOI", "License")


@fuzzed
@given(
    content=JSON | st.dictionaries(st.sampled_from(FIELDS), JSON),
    raw=JSON | st.dictionaries(st.sampled_from(FIELDS), JSON),
)
def test_descriptions_of_datasets(tmp_path, content, raw):
    given_dir, out = tmp_path / "in", tmp_path / "out"
    for folder, said in ((given_dir, raw), (out, content)):
        folder.mkdir(exist_ok=True)
        (folder / "dataset_description.json").write_text(json.dumps(said))
    try:
        read_description(given_dir)
        unrelated_files(out)
        other_source_dataset(out, given_dir)
        prepare_output(out, given_dir)
    except FcnregError as why:
        assert "\n" not in str(why)
    else:
        made = json.loads((out / "dataset_description.json").read_text())
        assert made["DatasetLinks"]["raw"] == given_dir.as_uri()


QUALITY = ("mode", "verdict", "similarity", "seconds", "SourcesSHA256", "weights")
SOUND = {"mode": "refine", "verdict": "doubtful", "verdict_reason": "x", "seconds": {}}


@fuzzed
@given(
    sidecar=JSON
    | st.dictionaries(st.sampled_from(QUALITY), JSON, max_size=2).map(lambda some: SOUND | some),
    table=st.lists(st.text(max_size=20), max_size=4).map("\n".join),
)
def test_results_that_are_there(tmp_path, sidecar, table):
    folder = tmp_path / "in/sub-01/anat"
    folder.mkdir(parents=True, exist_ok=True)
    name = "sub-01_from-T1w_to-A_mode-image_desc-"
    for end in ("space-A_desc-preproc_T1w", "space-A_desc-brain_mask", "desc-brain_mask"):
        (folder / f"sub-01_{end}.nii.gz").touch()
    (folder / f"{name}logjacobian_xfm.nii.gz").touch()
    (folder / f"{name}quality_xfm.json").write_text(json.dumps(sidecar))
    volumes = folder / "sub-01_seg-x_desc-AVolumes_dseg.tsv"
    volumes.write_bytes(table.encode("utf-8", "surrogatepass"))
    (tmp_path / "in/participants.tsv").write_bytes(volumes.read_bytes())
    for result in find_results(tmp_path / "in"):
        assert result.mode == sidecar["mode"]
    quality_warnings(tmp_path / "in", "sub-01")
    for read, path in ((read_volumes, volumes), (read_participants, tmp_path / "in")):
        try:
            read(path)
        except FcnregError as why:
            assert "\n" not in str(why)


@fuzzed
@given(
    key=st.sampled_from(settings_names()) | st.text(),
    value=st.text() | JSON.map(json.dumps),
    binary=st.none() | st.binary(max_size=100),
)
def test_settings(tmp_path, key, value, binary):
    path = tmp_path / "c.toml"
    path.write_bytes(binary or f"{key} = {value}".encode("utf-8", "surrogatepass"))
    try:
        read = read_settings(path)
    except FcnregError as why:
        assert str(path) in str(why) and "\n" not in str(why)
    else:
        assert set(read) <= set(settings_names())


@fuzzed
@given(content=st.binary(max_size=200))
def test_tables_of_points(tmp_path, content):
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    try:
        read_points(path)
    except FcnregError as why:
        assert str(path) in str(why) and "\n" not in str(why)


SAID = (
    "--participant-label --template --atlas --mode --nprocs --mem -w --session-label --device "
    "--random-seed --bids-filter-file --model participant group in out 01 ../x -1 nan"
)
WORDS = st.sampled_from(SAID.split())


@fuzzed
@given(words=st.lists(st.one_of(WORDS, st.text(max_size=9)), max_size=6))
def test_command_lines(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    try:
        parse_arguments(["in", "out", "participant", *words])
    except FcnregError as why:
        assert str(why)
    except SystemExit as stop:
        assert stop.code in (0, 2)
    assert not list(Path(tmp_path).iterdir())
