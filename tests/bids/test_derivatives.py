"""The derivatives folder describes itself, and names sources as BIDS does."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from bids_fcnreg import __version__
from bids_fcnreg.bids.derivatives import BIDS_VERSION, bids_uri, prepare_output, unrelated_files
from bids_fcnreg.errors import InputError


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "my data"
    folder.mkdir()
    description = {"Name": "Raw", "BIDSVersion": "1.8.0", "License": "CC0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    return folder


def description(folder):
    return json.loads((folder / "dataset_description.json").read_text())


def test_description(raw, monkeypatch):
    out = raw / "derivatives" / "bids_fcnreg"
    monkeypatch.setenv("BIDS_FCNREG_DOCKER_TAG", "9.9")
    prepare_output(out, raw)
    made = description(out)
    assert made["DatasetType"] == "derivative"
    assert made["GeneratedBy"][0]["Name"] == "bids_fcnreg"
    assert made["GeneratedBy"][0]["Version"] == __version__
    assert made["GeneratedBy"][0]["Container"] == {"Type": "docker", "Tag": "bids_fcnreg:9.9"}
    assert made["SourceDatasets"] == [{"URL": raw.as_uri()}]
    assert made["DatasetLinks"]["raw"] == raw.as_uri()
    assert made["License"] == "CC0"
    assert (out / "logs").is_dir()
    assert "_xfm" in (out / ".bidsignore").read_text()
    assert (out / "README.md").stat().st_size > 150


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], None),
        (["Home-page: UNKNOWN"], None),
        (["Project-URL: Documentation, https://x.org/docs"], None),
        (["Home-page: https://x.org"], "https://x.org"),
        (["Project-URL: Homepage, https://x.org"], "https://x.org"),
        (["Home-page: https://x.org", "Project-URL: Source, https://x.org/code"],
         "https://x.org/code"),
        (["Project-URL: Source Code, https://x.org/code"], "https://x.org/code"),
        (["Project-URL: Repository, https://x.org/code"], "https://x.org/code"),
    ],
)  # fmt: skip
def test_url_of_the_code_is_that_of_the_installed_package(
    raw, tmp_path, monkeypatch, fields, expected
):
    installed = tmp_path / "site-packages" / "bids_fcnreg-9.9.dist-info" / "METADATA"
    installed.parent.mkdir(parents=True)
    header = ["Metadata-Version: 2.1", "Name: bids_fcnreg", "Version: 9.9", *fields]
    installed.write_text("\n".join(header) + "\n")
    monkeypatch.syspath_prepend(installed.parents[1])
    prepare_output(tmp_path / "out", raw)
    assert description(tmp_path / "out")["GeneratedBy"][0].get("CodeURL") == expected


@pytest.mark.parametrize("doi", ["10.1/x", "doi:10.1/x", "https://doi.org/10.1/x"])
def test_published_source_has_its_doi(raw, tmp_path, doi):
    (raw / "dataset_description.json").write_text(json.dumps({"Name": "x", "DatasetDOI": doi}))
    prepare_output(tmp_path / "out", raw)
    source = description(tmp_path / "out")["SourceDatasets"]
    assert source == [{"URL": "https://doi.org/10.1/x", "DOI": "doi:10.1/x"}]


def test_rerun_keeps_changes_of_users(raw, tmp_path):
    out = tmp_path / "out"
    prepare_output(out, raw)
    (out / "README.md").write_text("Mine.")
    (out / ".bidsignore").write_text("mine*\n*.html\ntpl-*\n")  # the last: of earlier versions
    content = description(out) | {"Authors": ["A", "B"], "BIDSVersion": "1.10.0"}
    (out / "dataset_description.json").write_text(json.dumps(content))
    prepare_output(out, raw)
    assert description(out) == content | {"BIDSVersion": BIDS_VERSION}
    before = (out / "dataset_description.json").stat().st_mtime_ns
    prepare_output(out, raw)
    assert (out / "README.md").read_text() == "Mine."
    lines = (out / ".bidsignore").read_text().splitlines()
    assert lines[0] == "mine*"
    assert {"*.html", "figures", "logs", "*_xfm.*"} <= set(lines)
    assert "tpl-*" not in lines and len(lines) == len(set(lines))
    assert (out / "dataset_description.json").stat().st_mtime_ns == before


def test_concurrent_calls(raw, tmp_path):
    out = tmp_path / "out"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: prepare_output(out, raw), range(16)))
    assert description(out)["DatasetType"] == "derivative"
    names = {path.name for path in out.iterdir()}
    assert names == {".bidsignore", "README.md", "dataset_description.json", "logs"}


def test_unrelated_files_are_reported_until_it_is_a_dataset(raw, tmp_path):
    out = tmp_path / "out"
    assert unrelated_files(out) == []
    for name in ("holiday", "work", "logs", ".cache"):
        (out / name).mkdir(parents=True)
    assert unrelated_files(out, out / "work") == ["holiday/"]
    prepare_output(out, raw)
    assert unrelated_files(out) == []


def test_derivatives_given_in_place_of_the_dataset(raw, tmp_path):
    prepare_output(tmp_path / "out", raw)
    with pytest.raises(InputError, match="The first argument is the BIDS dataset"):
        prepare_output(tmp_path / "out", tmp_path / "out")


def test_input_and_foreign_datasets_are_refused(raw, tmp_path):
    with pytest.raises(InputError, match="is the dataset itself"):
        prepare_output(raw, raw)
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "fMRIPrep"}]}')
    with pytest.raises(InputError, match="did not create"):
        prepare_output(other, raw)
    for text in ('{"Name": "x", "Gen', "[1]", ""):
        (other / "dataset_description.json").write_text(text)
        with pytest.raises(
            InputError, match="cannot be read as JSON, so the results are of unknown origin"
        ):
            prepare_output(other, raw)
    for makers in ("null", "5", "[7]", "{}"):
        (other / "dataset_description.json").write_text(f'{{"GeneratedBy": {makers}}}')
        with pytest.raises(InputError, match="did not create"):
            prepare_output(other, raw)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        prepare_output(tmp_path / "file", raw)
    with pytest.raises(InputError, match="cannot be written"):
        prepare_output(tmp_path / "file" / "out", raw)


def test_uris(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "tf"))
    out = raw / "derivatives" / "x"
    assert bids_uri(raw / "sub-01" / "a.nii", raw, out) == "bids:raw:sub-01/a.nii"
    assert bids_uri(str(out / "sub-01" / "a.h5"), raw, out) == "bids::sub-01/a.h5"
    template = tmp_path / "tf" / "tpl-A" / "t.nii"
    assert bids_uri(template, raw, out) == "bids:templateflow:tpl-A/t.nii"
    assert bids_uri("/else where/a.nii", raw, out) == "file:///else%20where/a.nii"
    assert bids_uri("bids:raw:a", raw, out) == "bids:raw:a"
    assert bids_uri("https://a.org/b", raw, out) == "https://a.org/b"
